"""A service that says what it received: `python stub_service.py PORT NAME`."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else 40 ms between head and body

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(500 if "fail" in self.path else 401 if "denied" in self.path else 200)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-served-by", sys.argv[2])
        if "exposes" in self.path:
            self.send_header("access-control-expose-headers", "x-own")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
