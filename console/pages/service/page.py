"""What a service's page shows: each tenant's demand, due and admitted requests, and who pays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from console.display import charts
from control.deciders import keys
from control.directory import apps as directory
from decider.contracts.vocabulary import Tier
from decider.engine.text_hash import TextHash
from monitoring import fleet, shares
from monitoring.shares import ServiceShares, TenantShare

# A tenant that asks for this much more than its due is over it. Chosen: rates that deciders measure
# over seconds differ by a few percent from one look to the next.
OVER = 1.1
# A tenant that gets less than this part of its due is below it. Chosen as OVER, and twice as far,
# because it accuses us.
BELOW = 0.8
# Cost units a second below which a tenant has no row of its own: a request now and then.
LEAST = 1.0
# Cost units a second that count as nothing due: higher tiers take all.
NOTHING = 0.05
# Most rows. Chosen: who asks for most is what one looks for, and a page is read at a glance.
MOST_ROWS = 30

OVER_ITS_DUE, BELOW_ITS_DUE, WAITS = "Over its due, pays", "Below its due", "Its tier waits"


@dataclass(frozen=True)
class TenantRow:
    """One tenant, cost units a second."""

    name: str
    id: str
    """Empty for tenants that are not named."""
    tier: str
    asks: float
    due: float
    gets: float
    most: float
    """What the busiest tenant asks for, which fills the bar."""
    level: str
    word: str

    @property
    def asks_bar(self) -> float:
        """Percent of the bar for what it asks for."""
        return charts.scale(self.asks, 0, self.most)

    @property
    def bar(self) -> float:
        """Percent of the bar for what it gets."""
        return charts.scale(self.gets, 0, self.most)

    @property
    def tick(self) -> float:
        """Percent of the bar at which its due stands."""
        return charts.scale(self.due, 0, self.most)

    @property
    def times(self) -> float | None:
        """How many times its due it asks for; None where nothing is due to its tier."""
        return self.asks / self.due if self.due >= NOTHING else None


@dataclass(frozen=True)
class RegionShares:
    """One service in one region."""

    region: str
    deciders: int
    asked: float
    given: float
    short: bool
    rows: tuple[TenantRow, ...]
    others_ask: float
    """What all tenants without a row ask for."""


@dataclass(frozen=True)
class ServicePage:
    """Everything on the page."""

    name: str
    known: bool
    """Whether Valkey answered."""
    capacity: float
    """Cost units a second, 0 when it is not known."""
    regions: tuple[RegionShares, ...]

    @property
    def headline(self) -> str:
        if not self.known:
            return f"How {self.name} is shared is unknown: Valkey does not answer"
        short = [region for region in self.regions if region.short]
        if not short:
            return f"{self.name} has room for all that it is asked for"
        words = Counter(row.word for region in short for row in region.rows)
        said = [
            _count(
                words[OVER_ITS_DUE],
                "asks for more than its due and pays",
                "ask for more than their due and pay",
            ),
            _count(words[WAITS], "of a lower tier waits", "of lower tiers wait"),
            _count(words[BELOW_ITS_DUE], "gets less than its due", "get less than their due"),
        ]
        found = [text for text in said if text] or ["every tenant gets its due"]
        return f"{self.name} is short of room: {', '.join(found)}"


def _count(number: int, one: str, many: str) -> str:
    """Return how many tenants do something, "" for none."""
    if not number:
        return ""
    return f"1 tenant {one}" if number == 1 else f"{number} tenants {many}"


def service_page(name: str) -> ServicePage | None:
    """Return the page of a service; None for one that no document and no decider has."""
    try:
        document = fleet.read_fleet().config
        found = shares.read_shares(name)
    except fleet.Unreachable:
        return ServicePage(name, False, 0.0, ())
    services = {one.name: one for one in document.services} if document else {}
    if name not in services and not found:
        return None
    capacity = services[name].capacity if name in services else 0.0
    return ServicePage(name, True, capacity, tuple(_region(each) for each in found))


def _region(found: ServiceShares) -> RegionShares:
    names = tenants_by_hash() if found.tenants else {}
    most = max((tenant.asks for tenant in found.tenants), default=1.0)
    told = [tenant for tenant in found.tenants if tenant.asks >= LEAST][:MOST_ROWS]
    others = found.tenants[len(told) :]
    return RegionShares(
        found.region,
        found.deciders,
        found.asked,
        found.given,
        found.short,
        tuple(_row(tenant, found.short, names, most) for tenant in told),
        # deciders name and sum tenants only while a service is asked for much
        sum(tenant.asks for tenant in others) + found.unnamed if found.tenants else found.asked,
    )


def tenants_by_hash() -> dict[int, tuple[str, str]]:
    """Return id and name of each tenant by the hash under which deciders name it."""
    return _tenants(settings.SLUICE_KEYS, directory.tenant_count())


@lru_cache(maxsize=2)
def _tenants(folder: Path, count: int) -> dict[int, tuple[str, str]]:
    """Compute the hashes. `count`: how many tenants there are, so that a new one is found."""
    known = directory.tenants()
    hashes = TextHash(keys.load_token_key(folder)).many([one for one, _ in known])
    return dict(zip(hashes.tolist(), known, strict=True))


def _row(
    tenant: TenantShare, short: bool, names: dict[int, tuple[str, str]], most: float
) -> TenantRow:
    tenant_id, name = names.get(tenant.key, ("", ""))
    level, word = _judge(tenant, short)
    return TenantRow(
        name or "A tenant that nobody registered",
        tenant_id,
        Tier(tenant.tier).word,
        tenant.asks,
        tenant.due,
        tenant.gets,
        most,
        level,
        word,
    )


def _judge(tenant: TenantShare, short: bool) -> tuple[str, str]:
    """Return the level of a tenant and its word."""
    if not short:
        return "ok", "Gets what it asks for"
    if tenant.due < NOTHING:
        return "warn", WAITS
    if tenant.gets < BELOW * tenant.due:
        return "bad", BELOW_ITS_DUE
    if tenant.asks > OVER * tenant.due:
        return "warn", OVER_ITS_DUE
    return "ok", "Gets its due"
