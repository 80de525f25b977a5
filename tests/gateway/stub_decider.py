"""Answers checks by the app's name alone: `python stub_decider.py NAME ADDRESS`. For answers and
faults a real one shows rarely. It believes every token. ADDRESS: unix:PATH or HOST:PORT.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATUS = {"defer": 429, "shed": 503, "block": 403, "malformed": 400}


def app_in(credential: str) -> str:
    """The app that a token claims to be of."""
    try:
        claims = credential.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"])
    except (IndexError, ValueError, KeyError):
        return ""


NAMED = ("source", "service", "app")


def whose(secret: str | None) -> str:
    """Whose secret this is; never the secret itself, which would stand in the gateway's log."""
    if secret is None:
        return "none"
    return "gateway" if secret == os.environ.get("SLUICE_SECRET") else "other"


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else 40 ms between head and body

    def do_GET(self) -> None:
        app = self.headers.get("x-sluice-app") or app_in(self.headers.get("authorization", ""))
        if app == "slow":
            time.sleep(2)
        if app == "broken":
            self.send(500, {}, b"")
            return
        true_status = STATUS.get(app, 200)
        seen = {name.lower(): value for name, value in self.headers.items()}
        for_nginx = seen.get("x-sluice-answer") == "nginx" or "?answer=nginx" in self.path
        answered = 403 if true_status != 200 and for_nginx else true_status
        fields = {
            "sluice-decision": "dec_" + "0" * 32,
            "ratelimit": f'"burst";r=1;{sys.argv[1]}',
            "sluice-status": str(true_status),
            "sluice-app": app,
            # every gateway hands this field on
            "ratelimit-policy": '"named";'
            + ";".join(seen.get(f"x-sluice-{name}", "") for name in NAMED)
            + f";{whose(seen.get('x-sluice-secret'))}",
        }
        if app == "late":
            fields["sluice-late"] = "true"
        if true_status in {429, 503}:
            fields["retry-after"] = "7"
        body = b""
        if true_status != 200:
            fields["content-type"] = "application/problem+json"
            fields["sluice-receipt"] = "AQAB"
            body = json.dumps({"status": true_status, "path": self.path, "seen": seen}).encode()
        self.send(answered, fields, body)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def send(self, status: int, fields: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**fields, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


class Server(ThreadingHTTPServer):
    request_queue_size = 1024  # as a decider's; the usual 5 drops connections of a burst


class UnixServer(Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind without asking for the host's name, which a path is not."""
        socketserver.TCPServer.server_bind(self)


class UnixStub(Stub):
    disable_nagle_algorithm = False  # which only TCP has


def server(address: str) -> Server:
    if (path := address.removeprefix("unix:")) != address:
        Path(path).unlink(missing_ok=True)
        return UnixServer(path, UnixStub)  # type: ignore[arg-type]
    host, _, port = address.rpartition(":")
    return Server((host, int(port)), Stub)


if __name__ == "__main__":
    server(sys.argv[2]).serve_forever()
