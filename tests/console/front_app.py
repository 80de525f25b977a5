"""A WSGI application in the console's place, which says what reached it and can be kept busy."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from console import client_address

LINE = b"a,b,c\n" * 10_000


def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    trusted = [ipaddress.ip_network(one) for one in os.environ.get("TRUSTED", "").split(",") if one]
    client_address.settle(environ, trusted)
    asked = dict(parse_qsl(environ["QUERY_STRING"]))
    start_response("200 OK", [("content-type", "application/json")])
    if "hold" in asked:
        yield hold_interpreter(float(asked["hold"]))
        return
    if "stream" in asked:
        for _ in range(int(asked["stream"])):
            time.sleep(float(asked.get("pause", "0")))
            yield LINE
        return
    time.sleep(float(asked.get("wait", "0")))
    body = environ["wsgi.input"].read()
    headers = {name: str(value) for name, value in environ.items() if name.startswith("HTTP_")}
    said = {
        "client": environ["REMOTE_ADDR"],
        "scheme": environ["wsgi.url_scheme"],
        "bytes": len(body),
        "process": os.getppid(),
        "worker": os.getpid(),
    }
    yield json.dumps({**headers, **said}).encode()


def hold_interpreter(seconds: float) -> bytes:
    """Compute so that no other thread of this process runs meanwhile."""
    began = time.process_time()
    sum(range(10**6))
    # one call, which does not give the interpreter's lock away
    sum(range(int(10**6 * seconds / (time.process_time() - began))))
    return b"held"
