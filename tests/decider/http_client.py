"""A fake engine, a running server and a raw client, for the tests of the decider's HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import httptools
import msgspec
import uvloop

from decider.contracts.requests import CheckRequest, Decision
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.doors.addresses import Address
from decider.doors.guard import Guard
from decider.http.context import Limits
from decider.http.identity import IdentityRule
from decider.http.server import HttpServer
from decider.http.source import NAMED, SourceRule

T = TypeVar("T")
DEC = bytes(range(16))


def decision(action: Action = Action.ADMIT, **changes: object) -> Decision:
    wait = 0.0 if action in (Action.ADMIT, Action.BLOCK) else 2.3
    base = Decision(
        DEC, int(action), int(Stage.TRIAGE), int(Reason.HARMLESS), wait, 300, 20, 250, 3.4
    )
    return msgspec.structs.replace(base, **changes)


class FakeEngine:
    """Decides by app: an app called after an action gets it, `broken` raises. Ids count up, so that
    order shows.
    """

    def __init__(self) -> None:
        self.seen: list[CheckRequest] = []
        self.batches: list[int] = []

    def decide(self, requests: Sequence[CheckRequest], now: float | None = None) -> list[Decision]:
        if any(r.app == "broken" for r in requests):
            raise RuntimeError("the engine is broken")
        self.batches.append(len(requests))
        self.seen += requests
        first = len(self.seen) - len(requests)
        return [self._decide(first + k, r) for k, r in enumerate(requests)]

    def decide_late(self, requests: Sequence[CheckRequest]) -> tuple[list[Decision], bool]:
        return self.decide(requests), True

    @staticmethod
    def _decide(number: int, request: CheckRequest) -> Decision:
        action = next((a for a in Action if a.word == request.app), Action.ADMIT)
        hint = "POST /v2/orders:batchGet" if action == Action.BATCH else ""
        return decision(action, id=number.to_bytes(16, "big"), batch_hint=hint)


class Response(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return msgspec.json.decode(self.body)

    @property
    def number(self) -> int:
        """Which of the engine's decisions it tells."""
        return int(self.headers["sluice-decision"].removeprefix("dec_"), 16)


class _Reader:
    """Collects responses; a body that a HEAD's answer leaves out is the caller's to know."""

    def __init__(self) -> None:
        self.done: list[Response] = []
        self._parser = httptools.HttpResponseParser(self)
        self.feed = self._parser.feed_data

    def on_message_begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.decode() not in self._headers, "a field was sent twice"
        self._headers[name.decode()] = value.decode()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self.done.append(Response(self._parser.get_status_code(), self._headers, self._body))


def parse(data: bytes) -> list[Response]:
    reader = _Reader()
    reader.feed(data)
    return reader.done


class World:
    """A server and its engine."""

    def __init__(self, server: HttpServer, engine: FakeEngine) -> None:
        self.server = server
        self.engine = engine
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def raw(self, *pieces: bytes, pause_s: float = 0.0, eof: bool = True) -> bytes:
        """All that comes back until the server closes; each piece is its own write."""
        reader, writer = await self.open()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if eof:
                writer.write_eof()
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    async def ask(self, *pieces: bytes, **options: object) -> list[Response]:
        return parse(await self.raw(*pieces, **options))  # type: ignore[arg-type]

    async def one(self, *pieces: bytes, **options: object) -> Response:
        (response,) = await self.ask(*pieces, **options)
        return response


@asynccontextmanager
async def serving(
    limits: Limits | None = None,
    health: dict[str, object] | None = None,
    source: SourceRule = NAMED,
    identity: IdentityRule = None,
    guard: Guard | None = None,
) -> AsyncIterator[World]:
    engine = FakeEngine()
    told = {"config_version": 7, "ml": "live"} if health is None else health
    metrics = b"sluice_decisions_total 1\n"
    server = HttpServer(
        engine,
        lambda: told,
        lambda: metrics,
        limits,
        source=source,
        identity=identity,
        gateway_s=60.0,
        guard=guard,
    )
    await server.start(Address(None, "127.0.0.1", 0))
    world = World(server, engine)
    try:
        yield world
    finally:
        await world.close()
        await server.stop(0.2)


def run(
    test: Callable[[World], Awaitable[T]],
    limits: Limits | None = None,
    health: dict[str, object] | None = None,
    source: SourceRule = NAMED,
    identity: IdentityRule = None,
    guard: Guard | None = None,
) -> T:
    """Runs a test against a fresh server on uvloop, as in production; fails on whatever the loop
    reports.
    """

    async def whole() -> T:
        errors: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with serving(limits, health, source, identity, guard) as world:
            result = await test(world)
        assert not errors, errors
        return result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


def request(
    method: str = "GET", target: str = "/v1/check/v2/orders/1", body: bytes = b"", **headers: str
) -> bytes:
    """One request; header names with underscores for dashes, app_1 asks unless said otherwise (""
    leaves a field out).
    """
    fields = {"host": "decider", "x-sluice-app": "app_1"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    if body:
        fields.setdefault("content-length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body
