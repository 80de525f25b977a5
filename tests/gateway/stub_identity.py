"""A decider's real HTTP server and reader of credentials, with an engine that admits everything:
`python stub_identity.py PORT [IDENTITY_FILE]`. Its answer's RateLimit-Policy cannot say who asked,
so it is asked at /healthz for the apps that it decided.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from decider.http.server import HttpServer
from decider.identity.credentials import Credentials
from decider.identity.material import read_material
from tests.decider.http_client import FakeEngine


async def serve(port: int, identity: Path | None) -> None:
    engine = FakeEngine()
    reader = Credentials(read_material(identity)) if identity else None

    def health() -> dict[str, object]:
        return {"config_version": 1, "apps": [request.app for request in engine.seen]}

    # as in tests/servers.py: no answer here is too late
    server = HttpServer(engine, health, lambda: b"", identity=reader, gateway_s=60.0)
    await server.start("127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None))
