"""The five demo services over HTTP, in one process: `python -m learning.traffic.demo_services
--listen 127.0.0.1:9200`.

They behave like the model in `learning.traffic.services`, in real time: they slow down and fail
when more is asked of them than they can do, and some have bad times on a schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import uvicorn

from decider.contracts import defaults
from decider.contracts.config import Config
from decider.contracts.normalise.paths import path_of
from decider.engine.routing import Router
from decider.engine.text_hash import TextHash
from learning.traffic import services

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
DETAILS = {
    200: "ok",
    201: "created",
    401: "The credential is expired or unknown.",
    402: "The card was declined.",
    404: "There is nothing here by that id.",
    405: "That method is not served.",
    503: "The service is overloaded.",
}
# Longest wait of a request, seconds, whatever the model says: gateways give up soon after.
LONGEST_WAIT_S = 5.0


class DemoServices:
    """An ASGI application that answers for every service of a config document."""

    def __init__(
        self, config: Config, slowdowns: tuple[services.Slowdown, ...] = services.SLOWDOWNS
    ) -> None:
        self._router = Router(config, TextHash(bytes(32)))
        self._models = services.build_models(config.services, time.time(), slowdowns)
        self._rng = Random()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request. Raises ValueError for anything but HTTP, as ASGI asks."""
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served here, not {scope['type']}")
        # The body is read to its end, or the connection could not be used again.
        while (await receive()).get("more_body"):
            pass
        if scope["path"] == "/healthz":
            await _answer(send, 200, b'{"status":"ok"}')
            return
        status, wait = self._decide(scope)
        await asyncio.sleep(min(wait, LONGEST_WAIT_S))
        await _answer(
            send, status, json.dumps({"service": "demo", "detail": DETAILS[status]}).encode()
        )

    def _decide(self, scope: Message) -> tuple[int, float]:
        """Return the status and the seconds to wait before it."""
        method, path = scope["method"], scope["path"]
        route = self._router.route(method, path_of(path))
        ok, latency_ms = self._models[self._router.names[route.service]].offer(
            route.cost, time.time(), self._rng.random()
        )
        if not ok:
            return 503, latency_ms / 1000
        query = scope["query_string"].decode("latin-1")
        return services.answer_status(
            method, path, query, _token(scope["headers"])
        ), latency_ms / 1000


def _token(headers: list[tuple[bytes, bytes]]) -> str:
    value = next((v for k, v in headers if k == b"authorization"), b"").decode("latin-1")
    return value.removeprefix("Bearer ")


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT. Raises argparse.ArgumentTypeError for any other text."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9200")
    return host, int(port)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m learning.traffic.demo_services", description="The demo services."
    )
    parser.add_argument(
        "--listen", type=parse_address, default=("127.0.0.1", 9200), metavar="HOST:PORT"
    )
    parser.add_argument("--steady", action="store_true", help="no scheduled bad times")
    asked = parser.parse_args()
    app = DemoServices(defaults.config(), () if asked.steady else services.SLOWDOWNS)
    host, port = asked.listen
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=2,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
