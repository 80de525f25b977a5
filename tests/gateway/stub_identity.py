"""A decider's real HTTP server and reader of credentials, with an engine that admits everything:
`python stub_identity.py ADDRESS [IDENTITY_FILE] [--secret FILE]`. Its answer's RateLimit-Policy
cannot say who asked, so it is asked at /healthz for the apps that it decided.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import uvloop

from decider.doors.addresses import read_address
from decider.doors.guard import Guard
from decider.doors.secret_keeper import read_secrets
from decider.http.server import HttpServer
from decider.identity.credentials import Credentials
from decider.identity.material import read_material
from tests.decider.http_client import FakeEngine


async def serve(address: str, identity: Path | None, secret: Path | None) -> None:
    engine = FakeEngine()
    reader = Credentials(read_material(identity)) if identity else None

    def health() -> dict[str, object]:
        return {"config_version": 1, "apps": [request.app for request in engine.seen]}

    guard = Guard(read_secrets(secret)) if secret else None
    # as in tests/servers.py: no answer here is too late
    server = HttpServer(engine, health, lambda: b"", identity=reader, gateway_s=60.0, guard=guard)
    await server.start(read_address(address))
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("identity", nargs="?", type=Path)
    parser.add_argument("--secret", type=Path)
    options = parser.parse_args()
    uvloop.run(serve(options.address, options.identity, options.secret))
