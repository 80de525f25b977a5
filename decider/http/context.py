"""What all connections of a server share, and what each of them may use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from decider.http import fast_path
from decider.http.batcher import Batcher, Stats
from decider.http.responses import Answers

# What /healthz tells; healthy when its `config_version` is there and not zero.
Health = Callable[[], Mapping[str, object]]
# Prometheus text.
Metrics = Callable[[], bytes]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a client may use. Sizes in bytes, times in seconds."""

    head: int = 16 * 1024
    """Request line and header fields together."""
    url: int = 8 * 1024
    headers: int = 100
    body: int = 64 * 1024
    """Body of anything but /v1/decide; it is not kept."""
    decide_body: int = 2 * 1024 * 1024
    all_bodies: int = 64 * 1024 * 1024
    """Memory for bodies being received, all connections together."""
    connections: int = 4096
    outstanding: int = 128
    """Checks a connection may have queued; more are decided before more are read."""
    head_s: float = 5.0
    """From the first byte of a request to the end of its head."""
    body_s: float = 30.0
    """From the first byte of a request to its end."""
    idle_s: float = 75.0
    stall_s: float = 10.0
    """Time a client may refuse to read its answers."""
    linger_s: float = 2.0
    """Time in which a refused client may finish sending, so that it gets to read why."""
    sweep_s: float = 0.5
    """How often deadlines are looked at, and so how exact they are."""


class Member(Protocol):
    """A connection as its server sees it."""

    def sweep(self, now: float) -> None:
        """Ends what has taken too long; `now` in loop time."""

    def close_if_idle(self) -> None:
        """For shutdown: what is being received or decided may still finish."""

    def abort(self) -> None:
        """Cuts the connection."""


class Hub:
    """What all connections of a server share."""

    def __init__(
        self,
        batcher: Batcher,
        answers: Answers,
        stats: Stats,
        limits: Limits,
        health: Health,
        metrics: Metrics,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = self.loop.time()
        """Loop time of the last sweep."""
        self.batcher = batcher
        self.answers = answers
        self.stats = stats
        self.limits = limits
        self.health = health
        self.metrics = metrics
        self.connections: set[Member] = set()
        self.body_bytes = 0
        self.stopping = False
        self.plain = fast_path.PlainReader(limits.headers)
        self.plain_most = min(fast_path.MOST, limits.head, limits.url)
        """Longest read, in bytes, that may be a plain check; 0 while stopping, when every answer
        says that it is the last.
        """

    def stop(self) -> None:
        """From now on connections close after their next answer."""
        self.stopping = True
        self.plain_most = 0
