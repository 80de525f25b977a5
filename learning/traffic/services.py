"""The services behind the gateway: what they answer, how slow they get, when they fail. Pure; time
is an argument.

A service is a fluid queue: work arrives in cost units, drains at the capacity, and a request waits
for the work ahead of it. Latency is the usual latency over the room left (the shape of M/M/1:
Kleinrock, Queueing Systems I, 1975) plus that wait. When the wait passes a client's patience,
requests fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from decider.contracts.config import Service

# Time over which offered load is averaged, seconds.
WINDOW_S = 5.0
# Wait at which the first requests fail; twice and a half of it fails nearly all.
IMPATIENT_AFTER_S = 1.0
# Credentials that begin so are expired or never were valid: every service answers 401.
EXPIRED_PREFIX = "exp_"
# Cards whose number divides by this are declined: 402.
DECLINED_EVERY = 5
# From this id on every second resource is missing; below it one in eight.
SPARSE_FROM = 50_000_000

_LAST_ID = re.compile(r"/(\d{1,18})$")
_CARD = re.compile(r"(?:^|&)card=(\d{1,18})(?:&|$)")


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A planned bad time of a service: for `lasts` seconds of every `every`, beginning `first`
    seconds after the start, its capacity is multiplied by `factor`.
    """

    service: str
    first: float
    every: float
    lasts: float
    factor: float

    def holds(self, elapsed: float) -> bool:
        return elapsed >= self.first and (elapsed - self.first) % self.every < self.lasts


SLOWDOWNS = (
    Slowdown("search", first=150.0, every=540.0, lasts=50.0, factor=0.25),
    Slowdown("payments", first=420.0, every=720.0, lasts=45.0, factor=0.35),
)


@dataclass(slots=True)
class ServiceModel:
    """One service under load. `started` is when its slow-downs are counted from, unix seconds."""

    policy: Service
    started: float
    slowdowns: tuple[Slowdown, ...] = ()
    backlog: float = 0.0
    """Work not yet done, cost units."""
    load: float = 0.0
    """Offered work, cost units a second, averaged over WINDOW_S."""
    at: float = 0.0

    def capacity(self, now: float) -> float:
        """Cost units a second at `now`."""
        if not self.slowdowns:
            return self.policy.capacity
        return self.policy.capacity * min(
            (s.factor for s in self.slowdowns if s.holds(now - self.started)), default=1.0
        )

    def offer(self, cost: float, now: float, draw: float) -> tuple[bool, float]:
        """Whether a request of `cost` is served, and its latency in ms. `draw` in [0, 1) is the
        dice of this request.
        """
        capacity = self.capacity(now)
        if now > self.at:
            passed = now - self.at if self.at else 0.0
            self.at = now
            self.backlog = max(0.0, self.backlog - capacity * passed)
            self.load *= math.exp(-passed / WINDOW_S)
        self.load += cost / WINDOW_S
        wait = self.backlog / capacity
        room = 1.0 - self.load / capacity
        latency = (
            self.policy.latency_ms * (0.7 + 0.6 * draw) / (room if room > 0.08 else 0.08) ** 0.5
            + 1000 * wait
        )
        if wait > IMPATIENT_AFTER_S and draw < min(
            0.95, (wait - IMPATIENT_AFTER_S) / (1.5 * IMPATIENT_AFTER_S)
        ):
            return False, latency
        self.backlog += cost
        return True, latency


def build_models(
    services: Iterable[Service], started: float, slowdowns: tuple[Slowdown, ...] = ()
) -> dict[str, ServiceModel]:
    """A model for each service, by name."""
    return {
        s.name: ServiceModel(s, started, tuple(d for d in slowdowns if d.service == s.name))
        for s in services
    }


def answer_status(method: str, path: str, query: str, token: str) -> int:
    """What a service that has room answers: 200, 201, 401, 402, 404 or 405. `path` is without its
    query.
    """
    if token.startswith(EXPIRED_PREFIX):
        return 401
    if method not in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
        return 405
    if (found := _LAST_ID.search(path)) is not None and not exists(int(found[1])):
        return 404
    if method != "POST":
        return 200
    if (
        path.startswith("/v2/payments")
        and (card := _CARD.search(query)) is not None
        and int(card[1]) % DECLINED_EVERY == 0
    ):
        return 402
    return 201


def exists(resource: int) -> bool:
    """Whether a resource id is known: ids have gaps, old ones more."""
    return resource % 8 != 3 if resource < SPARSE_FROM else resource % 2 == 0
