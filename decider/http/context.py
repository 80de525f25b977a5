"""The context of a server's connections: what they share, and the limits of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from decider.doors.guard import Guard
from decider.http import fast_path
from decider.http.batcher import Batcher, Stats
from decider.http.identity import IdentityRule
from decider.http.responses import Answers
from decider.http.source import NAMED, SourceRule

# Returns the contents of /healthz; the node is healthy when its `config_version` is there and not
# zero.
Health = Callable[[], Mapping[str, object]]
# Returns the contents of /metrics, Prometheus text.
Metrics = Callable[[], bytes]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of what a client may use. Sizes in bytes, times in seconds."""

    # Room for a credential of `check.MAX_TOKEN` and as much again.
    head: int = 16 * 1024
    """Request line and header fields together."""
    # As long as a request line may be by nginx's default.
    url: int = 8 * 1024
    # Envoy's own default, so a request that passed the gateway passes here.
    headers: int = 100
    # Gateways rarely send a body along with a check, and only its size is used.
    body: int = 64 * 1024
    """Body of anything but /v1/decide; it is not kept."""
    # 2 KiB for each of `decide_api.MAX_REQUESTS`.
    decide_body: int = 2 * 1024 * 1024
    # 32 full bodies. Without it 4096 connections could take 8 GiB.
    all_bodies: int = 64 * 1024 * 1024
    """Memory for bodies being received, all connections together."""
    # As many as the gateway's circuit breaker opens (examples/gateway/envoy.yaml).
    connections: int = 4096
    # Half of an engine call, so that one pipelining client leaves room for the others.
    outstanding: int = 128
    """Checks a connection may have queued; more are decided before more are read."""
    # Short, because a head is one small packet; a slow one is a client that holds connections.
    head_s: float = 5.0
    """From the first byte of a request to the end of its head."""
    # `decide_body` within it needs 70 kB/s, which any network between servers has.
    body_s: float = 30.0
    """From the first byte of a request to its end."""
    # nginx's default for kept-alive connections.
    idle_s: float = 75.0
    # Chosen: a gateway reads within milliseconds; this forgives one that is paused for a moment.
    stall_s: float = 10.0
    """Time a client may refuse to read its answers."""
    linger_s: float = 2.0
    """Time in which a refused client may finish sending, so that it can read the reason."""
    # Chosen: a quarter of the shortest deadline, and often enough for Date, which counts seconds.
    sweep_s: float = 0.5
    """Time between two looks at deadlines, and so how exact they are."""


class Member(Protocol):
    """The part of a connection that its server uses."""

    def sweep(self, now: float) -> None:
        """End the connection, or refuse its request, when a time limit has passed. `now`: loop
        time.
        """

    def close_if_idle(self) -> None:
        """Close for shutdown, unless something is being received or decided, which may finish."""

    def abort(self) -> None:
        """Cut the connection."""


class ServerContext:
    """State and services that all connections of a server share."""

    def __init__(
        self,
        batcher: Batcher,
        answers: Answers,
        stats: Stats,
        limits: Limits,
        health: Health,
        metrics: Metrics,
        source: SourceRule = NAMED,
        identity: IdentityRule = None,
        guard: Guard | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time()
        """Loop time of the last sweep. Requests read it, because asking the clock costs more."""
        self.batcher = batcher
        self.answers = answers
        self.stats = stats
        self.limits = limits
        self.health = health
        self.metrics = metrics
        self.connections: set[Member] = set()
        self.body_bytes = 0
        self.stopping = False
        self.source = source
        """Which header of a check names its client's address."""
        self.identity = identity
        """What names a check's app; None: the gateway does, in x-sluice-app."""
        self.credential_header = b"authorization" if identity is None else identity.header.encode()
        self.guard = guard
        """What those who ask at a TCP address must know; None: nobody asks there."""
        self.plain = fast_path.PlainReader(limits.headers, source, identity)
        self.guarded_plain = fast_path.PlainReader(limits.headers, source, identity, guard)
        """The same for connections that the guard looks at."""
        self.plain_most = min(fast_path.MOST, limits.head, limits.url)
        """Longest read, in bytes, that may be a plain check; 0 while stopping, when every answer
        says that it is the last.
        """

    def stop(self) -> None:
        """Make every connection close after its next answer."""
        self.stopping = True
        self.plain_most = 0
