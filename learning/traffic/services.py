"""Model of the services behind the gateway: their answers, their latency and their failures. Pure
functions and objects; time is an argument.

A service is a fluid queue: work arrives in cost units and drains at the capacity, and a request
waits for the work ahead of it. Latency is the usual latency over the square root of the room left
(its shape follows M/M/1: Kleinrock, Queueing Systems I, 1975) plus that wait. Requests begin to
fail when the wait is longer than clients' patience.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from decider.contracts.config import Service

# Endpoint ("POST /v2/orders") -> service -> cost units that a request has there.
Calls = Mapping[str, Mapping[str, float]]
# Seconds over which offered load is averaged. Chosen: long enough to smooth a burst, short enough
# that a slow-down of 40 seconds shows.
WINDOW_S = 5.0
# Wait in seconds at which the first requests fail; at two and a half times that nearly all fail.
IMPATIENT_AFTER_S = 1.0
# Largest share of requests that fail: an overloaded service still answers some.
MOST_FAIL = 0.95
# Seconds of work in which a queue is full: servers hold a bounded number of requests. Chosen: well
# above the wait at which all requests fail.
LONGEST_QUEUE_S = 10.0
# Least free share of the capacity in the formula of latency. With less, the wait in the queue tells
# how slow the service is.
LEAST_ROOM = 0.08
# Credentials with this beginning are expired or never were valid: every service answers 401.
EXPIRED_PREFIX = "exp_"
# Cards whose number divides by this are declined: 402.
DECLINED_EVERY = 5
# From this id on every second resource is missing, below it one in eight. So a scraper that walks
# high ids meets many 404s, and an honest client some.
SPARSE_FROM = 50_000_000

# Bytes, least and most of the usual body by the hundreds of the status: pages and documents, then
# redirects, then error messages. Chosen wide, so that no size by itself stands for a kind of site.
USUAL_BYTES = {2: (120, 60_000), 3: (120, 900), 4: (60, 4_000), 5: (60, 4_000)}
# Statuses whose answer has no body.
BODILESS = (204, 304)
# How much the bodies of one endpoint differ, either way: pages of a fixed form, lists, documents.
BODY_SPREADS = (0.0, 0.02, 0.1, 0.4, 0.8)

_LAST_ID = re.compile(r"/(\d{1,18})$")
_CARD = re.compile(r"(?:^|&)card=(\d{1,18})(?:&|$)")


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A planned bad time of a service: its capacity is multiplied by `factor` for `lasts` seconds
    of every `every` seconds, for the first time `first` seconds after the start.
    """

    service: str
    first: float
    every: float
    lasts: float
    factor: float

    def holds(self, elapsed: float) -> bool:
        return elapsed >= self.first and (elapsed - self.first) % self.every < self.lasts


# Chosen: two services with periods that do not divide each other, so that they rarely coincide.
SLOWDOWNS = (
    Slowdown("search", first=150.0, every=540.0, lasts=50.0, factor=0.25),
    Slowdown("payments", first=420.0, every=720.0, lasts=45.0, factor=0.35),
)


# Endpoints that call further services, with the cost units of a request there. Chosen: a charge
# books twice in the ledger, and the session is looked up wherever money moves. So payments fall
# with the ledger, and the ledger with auth.
CHAIN: Calls = {
    "POST /v2/payments/charges": {"ledger-write": 2.0, "auth": 0.5},
    "POST /v2/ledger/entries": {"auth": 0.5},
}


@dataclass(slots=True)
class ServiceModel:
    """One service under load."""

    policy: Service
    started: float
    """Unix seconds from which its slow-downs are counted."""
    slowdowns: tuple[Slowdown, ...] = ()
    backlog: float = 0.0
    """Work not yet done, cost units."""
    load: float = 0.0
    """Offered work, cost units a second, averaged over WINDOW_S."""
    at: float = 0.0
    late_work: float = 0.0
    """Share of a failed request's cost that the service still works off, 0 to 1, because it does
    not know that the client has gone.
    """

    def capacity(self, now: float) -> float:
        """Return the capacity at `now`, cost units a second. The worst of several slow-downs
        counts.
        """
        if not self.slowdowns:
            return self.policy.capacity
        return self.policy.capacity * min(
            (s.factor for s in self.slowdowns if s.holds(now - self.started)), default=1.0
        )

    def wait(self, now: float) -> float:
        """Return the seconds that a request offered at `now` would wait for the work ahead."""
        capacity = self.capacity(now)
        return max(0.0, self.backlog / capacity - max(0.0, now - self.at))

    def offer(self, cost: float, now: float, draw: float) -> tuple[bool, float]:
        """Offer a request of `cost`; return whether it is served, and its latency in ms.

        `draw` in [0, 1) is the request's random number: it decides its latency and whether it
        fails.
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
        # A conditional and not max(): this runs for every simulated request.
        slowness = (room if room > LEAST_ROOM else LEAST_ROOM) ** 0.5
        latency = self.policy.latency_ms * (0.7 + 0.6 * draw) / slowness + 1000 * wait
        # Without late work a failed request adds nothing to the queue, which then stops growing
        # when all requests fail.
        if wait > IMPATIENT_AFTER_S and draw < min(
            MOST_FAIL, (wait - IMPATIENT_AFTER_S) / (1.5 * IMPATIENT_AFTER_S)
        ):
            if self.late_work:
                full = max(self.backlog, LONGEST_QUEUE_S * capacity)
                self.backlog = min(full, self.backlog + self.late_work * cost)
            return False, latency
        self.backlog += cost
        return True, latency


def build_models(
    services: Iterable[Service],
    started: float,
    slowdowns: tuple[Slowdown, ...] = (),
    late_work: float = 0.0,
) -> dict[str, ServiceModel]:
    """Return a model of each service, by its name; see `ServiceModel.late_work`."""
    return {
        s.name: ServiceModel(
            s, started, tuple(d for d in slowdowns if d.service == s.name), late_work=late_work
        )
        for s in services
    }


def offer_along(
    models: Mapping[str, ServiceModel],
    costs: Mapping[str, float],
    now: float,
    draw: Callable[[], float],
) -> tuple[bool, float]:
    """Offer a request to each of the services in `costs`, the first of which calls the others one
    after the other. Return whether all served it, and the latency of all together in ms.

    `draw` returns a random number in [0, 1).
    """
    served, latency = True, 0.0
    for name, cost in costs.items():
        ok, took = models[name].offer(cost, now, draw())
        latency += took
        served &= ok
        # the first is asked already when it calls the next; it stops at the first that fails
        if not served:
            break
    return served, latency


def answer_status(method: str, path: str, query: str, token: str) -> int:
    """Return the status that a service with room answers: 200, 201, 401, 402, 404 or 405.

    `path` is without its query.
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


def answer_bytes(name: str, status: int, draw: float) -> int:
    """Return the size of an answer's body, bytes.

    Answers of the same `name` and status have similar sizes; the name decides how similar. `draw`
    in [0, 1) varies the size. A name stands for an endpoint, or for one answer that several paths
    share.
    """
    if status in BODILESS:
        return 0
    # crc32 and not hash(): the same in every process.
    mixed = zlib.crc32(f"{name} {status}".encode())
    least, most = USUAL_BYTES.get(status // 100, USUAL_BYTES[4])
    usual = least * (most / least) ** ((mixed & 0xFFFF) / 0xFFFF)
    spread = BODY_SPREADS[(mixed >> 16) % len(BODY_SPREADS)]
    return int(usual * (1.0 + spread * (2.0 * draw - 1.0)))


def endpoint_of(method: str, path: str) -> str:
    """Return the endpoint of an API call: a resource id at its end is left out."""
    return f"{method} {_LAST_ID.sub('/#', path)}"


def exists(resource: int) -> bool:
    """Return whether a resource id is known. Ids have gaps: more from SPARSE_FROM on."""
    return resource % 8 != 3 if resource < SPARSE_FROM else resource % 2 == 0
