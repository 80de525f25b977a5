"""The requests of each kind of app: method, path, credential, address, size, and the request's
worth.

What a request holds decides its outcome (401, 402, 404), by the conventions of
`services.answer_status`, so simulated and real demo services answer alike. Abuse overlaps with
honest traffic on purpose: portals have failed sign-ins, subscriptions have declined cards, partners
walk ids in order, and abusers mix in ordinary calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TypeVar

from decider.contracts.requests import CheckRequest
from learning.traffic import services, world
from learning.traffic.conduct import ORDINARY, Conduct
from learning.traffic.world import App, AppKind

Item = TypeVar("Item")
# Resource ids each app owns. The ranges of two apps never overlap.
ID_SPAN = 5_000
# Worth of an abuser's ordinary call. Low: the call is a disguise that nobody would miss.
DISGUISE_WORTH = 0.06
# Least and most addresses of a pool that several abusers share: a rented proxy network.
POOL_ADDRESSES = (5, 60)


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of API call. `path` may end in "/#", which stands for a resource id; sizes are in
    bytes.
    """

    method: str
    path: str
    service: str
    value: float
    """Worth of an honest one, 0 to 1."""
    least: int = 0
    most: int = 0


# Worth is a judgement: payments and batches first, suggestions and polling last.
ORDER = Call("GET", "/v2/orders/#", "orders-read", 0.35)
ORDERS = Call("GET", "/v2/orders", "orders-read", 0.45)
ORDER_BATCH = Call("POST", "/v2/orders:batchGet", "orders-read", 0.55, 900, 6_000)
ORDER_PUT = Call("PUT", "/v2/orders/#", "orders-read", 0.65, 300, 2_500)
LEDGER = Call("GET", "/v2/ledger/entries/#", "ledger-write", 0.4)
LEDGER_POST = Call("POST", "/v2/ledger/entries", "ledger-write", 0.75, 300, 1_800)
LEDGER_BATCH = Call("POST", "/v2/ledger/entries:batch", "ledger-write", 0.8, 5_000, 40_000)
SEARCH = Call("GET", "/v2/search", "search", 0.45)
SUGGEST = Call("GET", "/v2/search/suggest", "search", 0.25)
STOCK = Call("GET", "/v2/search/stock/#", "search", 0.4)
CHARGE = Call("POST", "/v2/payments/charges", "payments", 0.95, 350, 1_400)
REFUND = Call("POST", "/v2/payments/refunds", "payments", 0.85, 200, 700)
PAYMENT = Call("GET", "/v2/payments/charges/#", "payments", 0.5)
SIGN_IN = Call("POST", "/v2/auth/token", "auth", 0.8, 110, 380)
SESSION = Call("GET", "/v2/auth/session", "auth", 0.5)

# Calls of each role with their weights, in percent.
ROLES: dict[str, tuple[tuple[Call, ...], tuple[int, ...]]] = {
    "sync": ((ORDER, ORDERS, ORDER_BATCH, ORDER_PUT, SESSION), (70, 9, 6, 11, 4)),
    "catalogue": ((SEARCH, SUGGEST, STOCK, ORDER, SESSION), (26, 10, 30, 30, 4)),
    "checkout": (
        (CHARGE, REFUND, PAYMENT, ORDER, ORDER_PUT, SIGN_IN, SEARCH),
        (10, 2, 12, 46, 13, 10, 7),
    ),
    "portal": ((SIGN_IN, SESSION, ORDER, ORDERS, SEARCH), (20, 26, 40, 6, 8)),
    "dashboard": ((ORDER, ORDERS, LEDGER, STOCK, SESSION), (58, 10, 10, 16, 6)),
    "books": ((LEDGER_POST, LEDGER, LEDGER_BATCH, ORDER, ORDERS), (34, 24, 3, 33, 6)),
}
# Role -> least and most credentials, least and most addresses of an app. Portals and shops act for
# many people, so many addresses alone are not a sign of abuse.
CLIENT_SPREAD = {
    "sync": ((1, 3), (1, 3)),
    "catalogue": ((1, 40), (1, 120)),
    "checkout": ((1, 12), (1, 60)),
    "portal": ((20, 400), (20, 400)),
    "dashboard": ((1, 4), (1, 6)),
    "books": ((1, 2), (1, 2)),
}


@dataclass(slots=True)
class PlannedRequest:
    """A request that an app is about to send, with the truth about it."""

    at: float
    """Unix seconds at which it is sent."""
    app: int
    """Index in the population."""
    request: CheckRequest
    query: str
    """Without "?"; empty when there is none."""
    service: str
    value: float
    """Worth to the platform and its customer, 0 to 1; known only later."""
    abusive: bool
    tried: int = 0
    """Tries before this one; `request.attempt` is what the client claims."""
    answer: tuple[int, int] | None = None
    """Status and body size in bytes that its service answers when it has room. None: those that
    `services.answer_status` and `services.answer_bytes` return.
    """


class AppClient:
    """Client of one app, which makes the app's requests. All its draws come from `rng` or from the
    app id, so a population sends the same requests for the same seed.
    """

    def __init__(self, app: App, index: int, rng: Random, conduct: Conduct = ORDINARY) -> None:
        self.app, self.index, self._rng = app, index, rng
        self.id, self._kind, self.abusive = app.profile.app, app.kind, app.abusive
        self.ids_dropped = 0
        # Each call occurs as often as its weight says, so that picking one takes a single draw.
        self._deck = [
            call for call, weight in zip(*ROLES[app.role], strict=True) for _ in range(weight)
        ]
        tokens, sources = CLIENT_SPREAD[app.role]
        self._tokens = [f"tok_{rng.getrandbits(64):016x}" for _ in range(_between(rng, *tokens))]
        self._sources = [draw_address(rng) for _ in range(_between(rng, *sources))]
        self._first_id = index * ID_SPAN
        self._ids = _between(rng, 12, ID_SPAN)
        self._walks = rng.random() < (0.5 if app.kind == AppKind.POLLER else 0.05)
        self._next_id = self._first_id
        self._stale = rng.random() ** 3
        # Some honest shops have many declined cards, subscriptions above all.
        self._declined = rng.uniform(0.1, 0.5) if rng.random() < 0.15 else rng.uniform(0.02, 0.08)
        self._failed_sign_in = rng.random() ** 2 * 0.6
        # Share of an abuser's requests that are ordinary calls.
        self._disguise = (
            rng.uniform(0.1, 0.8) if app.kind == AppKind.DRIPPER else rng.uniform(0.0, 0.75)
        )
        # A dashboard asks again in a few seconds anyway.
        self._worth = 0.6 if app.role == "dashboard" else 1.0
        self._always = app.kind == AppKind.DRIPPER
        self._prepare_abuse()
        self._behave(conduct)

    def _prepare_abuse(self) -> None:
        """Draw what only abusers use: hit rate, pool of addresses, first id and kind of abuse.

        Honest apps draw it too, and then do not use it.
        """
        rng = self._rng
        self._hit_rate = rng.uniform(0.05, 0.8)
        self._pool = [
            draw_address(rng) for _ in range(_between(rng, 1, 200 if self.abusive else 1))
        ]
        self._scan_from = (
            services.SPARSE_FROM + rng.randrange(10**7)
            if rng.random() < 0.35
            else rng.randrange(10**7)
        )
        errands = {
            AppKind.SCRAPER: self._scrape,
            AppKind.STUFFER: self._stuff,
            AppKind.CARD_TESTER: self._test_card,
        }
        errand = rng.choice(list(errands.values()))
        self._abuse = errands.get(self._kind, errand)

    def _behave(self, conduct: Conduct) -> None:
        """Set what `conduct` changes. Nothing is drawn from the generator that all clients share,
        so that the rest of a world stays as it is.
        """
        # Seeded by the app id: whether `conduct` applies to an abuser depends on no other app.
        own = Random(f"conduct of {self.app.profile.app}")
        self.changed = self.abusive and own.random() < conduct.changed_share
        self._claims_retry = conduct.claims_retry and self.changed
        self._quiet = conduct.quiet_abuse and self.changed
        if self._quiet:
            self._hit_rate = 1.0
        if self.changed and conduct.disguise is not None:
            self._disguise = own.uniform(*conduct.disguise)
        if self.changed and conduct.source_pools:
            pool = Random(f"pool {own.randrange(conduct.source_pools)}")
            self._pool = [draw_address(pool) for _ in range(_between(pool, *POOL_ADDRESSES))]
        self._moves = own if conduct.rotate_sources else None
        noisy = not self.abusive and own.random() < conduct.noisy_share
        if conduct.noise is not None and noisy:
            draw = Random(self.app.profile.app).uniform
            self._failed_sign_in, self._stale, self._declined = (
                draw(*conduct.noise) for _ in range(3)
            )

    def drop_id(self) -> None:
        """Take a new app id, and new addresses if the conduct says so."""
        self.ids_dropped += 1
        self.id = world.later_id(self.app.profile.app, self.ids_dropped)
        if self._moves is not None:
            self._pool = [draw_address(self._moves) for _ in self._pool]

    def claimed_attempt(self, tried: int) -> int:
        """Return the attempt number that the client claims after `tried` earlier tries."""
        return 1 if self._claims_retry else tried

    def _one_of(self, items: list[Item]) -> Item:
        """Return a random item, like `random.choice` but four times as fast."""
        return items[int(self._rng.random() * len(items))]

    def next_request(self, at: float, campaign: bool, expired: bool = False) -> PlannedRequest:
        """Return the next request, sent at `at` (unix seconds).

        In a `campaign` an abuser may abuse. With `expired` the request has an expired credential.
        """
        rng = self._rng
        if self.abusive and (campaign or self._always) and rng.random() >= self._disguise:
            return self._abuse(at)
        call = self._one_of(self._deck)
        token = self._token(call, expired)
        query = self._query(call, self._declined)
        # Worth varies by up to 0.3 either way: the value model must not read it off the call.
        worth = call.value * self._worth + 0.3 * (rng.random() + rng.random() - 1.0)
        if token.startswith(services.EXPIRED_PREFIX):
            worth *= 0.5
        if self.abusive:
            worth = DISGUISE_WORTH
        # The path draws before the source: another order would change every world.
        path, source = self._path(call), self._one_of(self._sources)
        return self._plan(at, call, path, query, token, source, worth)

    def _scrape(self, at: float) -> PlannedRequest:
        """Return a request for the next id in order, from a random address of the pool."""
        call = STOCK if self.index % 3 == 0 else ORDER
        self._scan_from += 1
        while self._quiet and not services.exists(self._scan_from):
            self._scan_from += 1
        path = call.path[:-1] + str(self._scan_from)
        return self._plan(
            at, call, path, "", self._one_of(self._tokens), self._one_of(self._pool), 0.02
        )

    def _stuff(self, at: float) -> PlannedRequest:
        """Return a sign-in with a leaked credential, another one each time; only some are right."""
        rng = self._rng
        good = rng.random() < self._hit_rate
        token = f"{'tok_' if good else services.EXPIRED_PREFIX}{rng.getrandbits(64):016x}"
        return self._plan(at, SIGN_IN, SIGN_IN.path, "", token, self._one_of(self._pool), 0.02)

    def _test_card(self, at: float) -> PlannedRequest:
        """Return a tiny charge on a stolen card; many are declined."""
        rng = self._rng
        query = self._query(CHARGE, 1.0 - self._hit_rate)
        planned = self._plan(
            at,
            CHARGE,
            CHARGE.path,
            query,
            self._one_of(self._tokens),
            self._one_of(self._pool),
            0.01,
        )
        planned.request.payload_bytes = rng.randint(240, 520)
        return planned

    def _token(self, call: Call, expired: bool) -> str:
        token = self._one_of(self._tokens)
        if expired or (call is SIGN_IN and self._rng.random() < self._failed_sign_in):
            return services.EXPIRED_PREFIX + token[4:]
        return token

    def _query(self, call: Call, declined: float) -> str:
        rng = self._rng
        if call is CHARGE:
            card = rng.randrange(10**8) * services.DECLINED_EVERY
            if rng.random() >= declined:
                card += rng.randint(1, services.DECLINED_EVERY - 1)
            return f"card={card}"
        return f"q={rng.getrandbits(20):x}" if call is SEARCH or call is SUGGEST else ""

    def _path(self, call: Call) -> str:
        if not call.path.endswith("#"):
            return call.path
        rng = self._rng
        if self._walks:
            self._next_id = self._first_id + (self._next_id + 1 - self._first_id) % self._ids
            resource = self._next_id
        else:
            # Squared: a few resources are asked for often, most rarely.
            resource = self._first_id + int(self._ids * rng.random() ** 2)
        # Stale clients go on asking for deleted items; others move to one that exists.
        if not services.exists(resource) and rng.random() >= self._stale:
            resource += 1
        return call.path[:-1] + str(resource)

    def _plan(
        self, at: float, call: Call, path: str, query: str, token: str, source: str, worth: float
    ) -> PlannedRequest:
        size = call.least + int((call.most - call.least) * self._rng.random())
        request = CheckRequest(
            self.id,
            call.method,
            path,
            token,
            source,
            f"req_{self._rng.getrandbits(64):016x}",
            size,
            self.claimed_attempt(0),
        )
        return PlannedRequest(
            at, self.index, request, query, call.service, min(1.0, max(0.0, worth)), self.abusive
        )


def draw_address(rng: Random) -> str:
    """Draw an address from the ranges kept for documentation (RFC 5737, RFC 3849)."""
    if rng.random() < 0.3:
        return f"{rng.choice(('192.0.2', '198.51.100', '203.0.113'))}.{rng.randint(1, 254)}"
    return f"2001:db8:{rng.getrandbits(16):x}:{rng.getrandbits(16):x}::{rng.getrandbits(16):x}"


def _between(rng: Random, least: int, most: int) -> int:
    """Draw a whole number from `least` to `most`, small ones more often."""
    return least + int((most - least + 1) * rng.random() ** 3)
