"""The decider's HTTP server: /v1/check, /v1/decide, /healthz and /metrics on one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from decider.doors import addresses
from decider.doors.addresses import Address
from decider.doors.guard import Guard
from decider.http.batcher import Batcher, Decides, Stats
from decider.http.connection import Connection
from decider.http.context import Health, Limits, Metrics, ServerContext
from decider.http.identity import IdentityRule
from decider.http.pace import GATEWAY_S, Pace
from decider.http.responses import Answers
from decider.http.source import NAMED, SourceRule

# Connections the kernel holds until they are accepted: as many as `Limits.connections`, so that all
# of a gateway's may come at once after a restart. Linux caps it at somaxconn, 4096 by default.
BACKLOG = 4096


def _nothing() -> None:
    """Do nothing: the default `on_decided` hook."""


class HttpServer:
    """The HTTP server of one engine. Make and use it on the event loop's thread; `stats` may be
    read at any time.
    """

    def __init__(
        self,
        engine: Decides,
        health: Health,
        metrics: Metrics,
        limits: Limits | None = None,
        on_decided: Callable[[], None] = _nothing,
        source: SourceRule = NAMED,
        identity: IdentityRule = None,
        gateway_s: float = GATEWAY_S,
        guard: Guard | None = None,
    ) -> None:
        """Serve `engine`. `on_decided` is called after each engine.decide, before its answers are
        written; it must be quick. `source` says which header of a check names its client's address,
        `identity` what names its app. `gateway_s`: seconds that the gateway waits for a decision.
        `guard`: what those who ask at a TCP address must know; at a Unix socket nobody is asked.
        """
        self.limits = limits or Limits()
        self.stats = Stats()
        self.port = 0
        """The port that was bound; it differs from the one asked for when that was 0."""
        self._engine = engine
        self._health = health
        self._metrics = metrics
        self._on_decided = on_decided
        self._source, self._identity = source, identity
        self._gateway_s, self._guard = gateway_s, guard
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._context.connections)

    async def start(self, *where: Address) -> None:
        """Bind all addresses and serve. Raise OSError when one cannot be bound."""
        answers = Answers(time.time(), names_apps=self._identity is not None)
        pace = Pace(self._gateway_s)
        batcher = Batcher(self._engine, answers, self.stats, self._on_decided, pace)
        self._context = ServerContext(
            batcher,
            answers,
            self.stats,
            self.limits,
            self._health,
            self._metrics,
            self._source,
            self._identity,
            self._guard,
        )
        for address in where:
            await self._listen(address)
        batcher.watch()
        self._sweep()

    async def _listen(self, address: Address) -> None:
        loop, context = asyncio.get_running_loop(), self._context
        if address.path is not None:
            bound = addresses.bind(address.path)
            self._paths.append(address.path)
            self._servers.append(
                await loop.create_unix_server(
                    lambda: Connection(context), sock=bound, backlog=BACKLOG
                )
            )
            return
        guarded = self._guard is not None
        server = await loop.create_server(
            lambda: Connection(context, guarded), address.host, address.port, backlog=BACKLOG
        )
        self._servers.append(server)
        self.port = int(server.sockets[0].getsockname()[1])

    def _sweep(self) -> None:
        """Refresh the shared clock and the Date field, and look at every connection's deadlines."""
        # One timer for all connections: a timer each would be set and cancelled for every request.
        context = self._context
        context.now = context.loop.time()
        context.answers.tick(time.time())
        # A copy, because a sweep may cut a connection, which then leaves the set.
        for connection in list(context.connections):
            connection.sweep(context.now)
        self._sweeper = context.loop.call_later(self.limits.sweep_s, self._sweep)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Accept no more connections, answer the requests that have come, and close. After
        `grace_s` seconds, cut the connections that are left.
        """
        if not self._servers:
            return
        context = self._context
        context.stop()
        for path in self._paths:
            path.unlink(missing_ok=True)
        for server in self._servers:
            server.close()
        context.batcher.run()
        end = context.loop.time() + grace_s
        while context.connections and context.loop.time() < end:
            for connection in list(context.connections):
                connection.close_if_idle()
            await asyncio.sleep(0.01)
        for connection in list(context.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
        context.batcher.stop_watching()
        await asyncio.sleep(0)  # lets aborted transports report their end
        self._servers, self._paths = [], []
