"""A population of tenants and apps, drawn from a seed, with the truth about each of them.

Deciders know an app's `Profile`. How it really behaves (`AppKind`) stays here and becomes the
label. Each cohort has its own share of abusers, and deciders are told exactly that share as the
prior: it is true on average and never decides about one app.

The order of the random draws decides which world a seed stands for, so it must not change.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TypeVar

import numpy as np
from msgspec import structs

from decider.contracts.store import Profile
from decider.contracts.vocabulary import Tier
from learning.traffic import names

DAY_S = 86_400.0  # seconds of a day
Choice = TypeVar("Choice")


class AppKind(IntEnum):
    """How an app really behaves. SCRAPER and all after it are abuse."""

    STEADY = 0
    BURSTY = 1
    """Honest; bursts at the top of the hour or on a schedule of its own."""
    POLLER = 2
    """Honest and even as a clock: monitors, cron jobs, partner synchronisation that walks ids in
    order.
    """
    STORM = 3
    """Honest, but its client retries at once and without backoff when refused, failed or expired.
    """
    SCRAPER = 4
    STUFFER = 5
    CARD_TESTER = 6
    DRIPPER = 7
    """Abuse at a low rate for a long time, hidden among ordinary calls."""


ABUSIVE = frozenset({AppKind.SCRAPER, AppKind.STUFFER, AppKind.CARD_TESTER, AppKind.DRIPPER})
# Shares within the honest apps. Chosen: bursts, polling and retry storms are common enough that a
# model meets honest traffic which looks like abuse.
HONEST_MIX = (
    (AppKind.STEADY, 0.62),
    (AppKind.BURSTY, 0.18),
    (AppKind.POLLER, 0.14),
    (AppKind.STORM, 0.06),
)
# Shares within the abusers. Chosen: no kind is most of the abuse, so a model must learn them all.
ABUSE_MIX = (
    (AppKind.SCRAPER, 0.38),
    (AppKind.STUFFER, 0.22),
    (AppKind.CARD_TESTER, 0.18),
    (AppKind.DRIPPER, 0.22),
)
# What honest calls are for, with the share of the apps; `behaviour.ROLES` says what each calls.
ROLES = (
    ("sync", 0.23),
    ("catalogue", 0.23),
    ("checkout", 0.15),
    ("portal", 0.17),
    ("dashboard", 0.13),
    ("books", 0.09),
)


@dataclass(frozen=True, slots=True)
class Cohort:
    """How a group of apps came to be customers."""

    name: str
    prior: float
    """Share of its apps that turns out abusive, 0 to 1."""
    tiers: tuple[float, float, float, float]
    """Share of each tier, in `Tier` order."""
    share: float
    """Share of the apps of a population."""
    verified: float
    """Share of verified owners among the honest."""
    age_days: float
    """Median age of an app, days."""


# Invented, not measured. The order of the numbers is the point: the easier it is to sign up, the
# more abuse, the fewer verified owners and the younger the apps.
COHORTS = (
    Cohort("contract", 0.004, (0.0, 0.12, 0.43, 0.45), 0.12, 0.98, 900),
    Cohort("partner", 0.02, (0.05, 0.45, 0.42, 0.08), 0.18, 0.9, 600),
    Cohort("self-serve", 0.07, (0.55, 0.38, 0.07, 0.0), 0.45, 0.6, 260),
    Cohort("reseller", 0.12, (0.5, 0.4, 0.1, 0.0), 0.13, 0.5, 180),
    Cohort("trial", 0.2, (0.95, 0.05, 0.0, 0.0), 0.12, 0.25, 25),
)
# Fields of a profile that hint at abuse, besides the tier.
TELLING = (
    "created_at",
    "verified",
    "cohort_prior",
    "abuse_history",
    "chargeback_history",
    "false_throttle_history",
)


@dataclass(frozen=True, slots=True)
class App:
    """One app: the profile that deciders know, and the truth about it."""

    profile: Profile
    kind: AppKind
    role: str
    """What its honest calls are for; see `behaviour.ROLES`."""
    weight: float
    """Its mean rate relative to others of the population, heavy-tailed."""
    cohort: str
    born_late: bool
    """Cold start: it sends nothing before some time into the simulation."""
    obeys: bool
    """Its client waits for Retry-After."""

    @property
    def abusive(self) -> bool:
        return self.kind in ABUSIVE


@dataclass(frozen=True, slots=True)
class Population:
    """All apps of one seed, in a fixed order."""

    seed: int
    apps: tuple[App, ...]

    def profiles(self) -> list[Profile]:
        """Return the profiles that deciders are told, in the order of the apps."""
        return [app.profile for app in self.apps]

    def tenants(self) -> dict[str, str]:
        """Return each tenant's id (`Profile.tenant`) with the name people know it by."""
        return {
            slug: slug.replace("-", " ").title()
            for slug in dict.fromkeys(app.profile.tenant for app in self.apps)
        }


@dataclass(frozen=True, slots=True)
class _Tenant:
    name: str
    slug: str
    cohort: Cohort
    tier: Tier
    size: int


def draw_population(
    seed: int, apps: int = 3000, now: float | None = None, abusive: float | None = None
) -> Population:
    """Draw `apps` apps that belong to tenants of very different size.

    The seed decides all but the dates: ages count back from `now` (unix seconds, default: the
    start of today, UTC). `abusive`: mean share of the apps that is abusive, 0 to 1, by which the
    priors of all cohorts are scaled; None leaves them as they are. Raises ValueError when `apps` is
    less than 1.
    """
    if apps < 1:
        raise ValueError(f"a population needs at least one app, not {apps}")
    # The start of the day, so that two populations drawn on the same day are equal.
    now = (time.time() // DAY_S) * DAY_S if now is None else now
    rng = np.random.default_rng([seed, 0x51])
    out: list[App] = []
    tenants = _tenants(rng, apps)
    if abusive is not None:
        tenants = _with_abusers(tenants, abusive)
    for tenant in tenants:
        taken: set[str] = set()
        out += [_app(rng, seed, len(out) + k, tenant, taken, now) for k in range(tenant.size)]
    return Population(seed, tuple(out))


def _tenants(rng: np.random.Generator, apps: int) -> list[_Tenant]:
    """Draw tenants until their sizes add up to `apps`. Sizes follow a Pareto distribution. Tenants
    of lower tiers are smaller, and abuse-prone cohorts have more of these.
    """
    free = [f"{a} {b}" for a in names.FIRST for b in names.SECOND]
    order = rng.permutation(len(free))
    out: list[_Tenant] = []
    left = apps
    while left:
        n = len(out)
        # When all names are taken they are used again with a number.
        name = free[order[n % len(free)]] + ("" if n < len(free) else f" {n // len(free) + 1}")
        cohort = COHORTS[rng.choice(len(COHORTS), p=[c.share for c in COHORTS])]
        tier = Tier(int(rng.choice(4, p=cohort.tiers)))
        # 1.3: heavy-tailed with a finite mean. At most 40, so no tenant is the whole population.
        size = min(left, 1 + int(rng.pareto(1.3) * (1.5 if tier >= Tier.PREMIUM else 0.7)), 40)
        out.append(_Tenant(name, name.lower().replace(" ", "-"), cohort, tier, size))
        left -= size
    return out


def _with_abusers(tenants: list[_Tenant], share: float) -> list[_Tenant]:
    """Return the tenants with the priors of their cohorts scaled, so that `share` of all apps is
    abusive on average. A prior stays at most 1.
    """
    expected = sum(t.size * t.cohort.prior for t in tenants) / sum(t.size for t in tenants)
    return [
        replace(t, cohort=replace(t.cohort, prior=min(1.0, t.cohort.prior * share / expected)))
        for t in tenants
    ]


def flatten_profiles(population: Population, prior: float) -> Population:
    """Return the population with profiles that do not tell who abuses.

    Every cohort prior is `prior` and no app has a history. Ages and verified owners are shuffled
    over the apps separately, so there are as many young and as many verified apps as before.
    """
    # A random stream of its own, so that the shuffle does not repeat the population's draws.
    rng, apps = np.random.default_rng([population.seed, 0xF1]), population.apps
    ages, verified = rng.permutation(len(apps)), rng.permutation(len(apps))
    told = [
        structs.replace(
            app.profile,
            created_at=apps[ages[k]].profile.created_at,
            verified=apps[verified[k]].profile.verified,
            cohort_prior=prior,
            abuse_history=0,
            chargeback_history=0,
            false_throttle_history=0,
        )
        for k, app in enumerate(apps)
    ]
    return replace(
        population,
        apps=tuple(replace(a, profile=profile) for a, profile in zip(apps, told, strict=True)),
    )


def shuffle_profiles(population: Population) -> Population:
    """Return the population with profiles that do not tell who abuses, but look as before.

    Ages, verified owners, cohort priors and each history are shuffled over the apps, each
    separately, so that every column keeps its values.
    """
    # A random stream of its own, so that the shuffle does not repeat other draws of the same seed.
    rng, apps = np.random.default_rng([population.seed, 0xF2]), population.apps
    columns = {
        name: [getattr(apps[k].profile, name) for k in rng.permutation(len(apps))]
        for name in TELLING
    }
    told = [
        structs.replace(app.profile, **{name: column[k] for name, column in columns.items()})
        for k, app in enumerate(apps)
    ]
    return replace(
        population,
        apps=tuple(replace(a, profile=profile) for a, profile in zip(apps, told, strict=True)),
    )


def _app(
    rng: np.random.Generator, seed: int, index: int, tenant: _Tenant, taken: set[str], now: float
) -> App:
    cohort = tenant.cohort
    abusive = bool(rng.random() < cohort.prior)
    kind = _pick(rng, ABUSE_MIX if abusive else HONEST_MIX)
    role = _pick(rng, ROLES)
    born_late = bool(rng.random() < (0.12 if abusive else 0.04))
    # Both distributions overlap widely: age hints at abuse and never proves it.
    age = 0.01
    if not born_late:
        age = cohort.age_days * float(rng.lognormal(-0.25 if abusive else 0.0, 1.1))
    # The arguments draw random numbers in this order; moving one changes every world.
    profile = Profile(
        app=_hashed_id(f"{seed}:{index}"),
        name=_name(rng, role, taken),
        tenant=tenant.slug,
        tier=int(tenant.tier),
        created_at=round(now - age * DAY_S),
        verified=bool(rng.random() < cohort.verified * (0.7 if abusive else 1.0)),
        cohort_prior=cohort.prior,
        # Honest apps have some history too, or one column would decide the label.
        abuse_history=int(rng.poisson(0.3 if abusive and not born_late else 0.03)),
        chargeback_history=int(rng.poisson(_mean_chargebacks(kind, role, abusive))),
        false_throttle_history=int(rng.poisson(_mean_false_throttles(kind))),
    )
    weight = _weight(rng, kind, tenant.tier)
    return App(profile, kind, role, weight, cohort.name, born_late, _obeys(rng, kind))


def _mean_chargebacks(kind: AppKind, role: str, abusive: bool) -> float:
    """Return the mean number of chargebacks. Honest shops have some as well."""
    if role != "checkout" and not abusive:
        return 0.02
    return 0.9 if kind == AppKind.CARD_TESTER else 0.25


def _mean_false_throttles(kind: AppKind) -> float:
    """Return the mean number of confirmed false throttles: most for bursty and polling apps."""
    return 0.25 if kind in (AppKind.BURSTY, AppKind.POLLER) else 0.03


def _weight(rng: np.random.Generator, kind: AppKind, tier: Tier) -> float:
    """Draw a Pareto weight, scaled and capped by tier: most apps are quiet, and a few are most of
    the traffic.
    """
    # The caps keep a single app from being the whole load of its tier.
    scale, cap = {
        Tier.FREE: (0.25, 12.0),
        Tier.STANDARD: (0.7, 60.0),
        Tier.PREMIUM: (1.6, 200.0),
        Tier.ENTERPRISE: (4.0, 600.0),
    }[tier]
    quiet = 0.5 if kind == AppKind.DRIPPER else 1.0
    return float(min(cap, scale * quiet * (1.0 + rng.pareto(1.15))))


def _obeys(rng: np.random.Generator, kind: AppKind) -> bool:
    # Share of clients that wait for Retry-After. Some abusers wait to look honest.
    share = {
        AppKind.STORM: 0.0,
        AppKind.SCRAPER: 0.3,
        AppKind.STUFFER: 0.05,
        AppKind.CARD_TESTER: 0.15,
        AppKind.DRIPPER: 0.6,
    }.get(kind, 0.82)
    return bool(rng.random() < share)


def _pick(rng: np.random.Generator, mix: Sequence[tuple[Choice, float]]) -> Choice:
    return mix[rng.choice(len(mix), p=[share for _, share in mix])][0]


def _name(rng: np.random.Generator, role: str, taken: set[str]) -> str:
    choices = names.ROLE_NAMES[role]
    base = choices[int(rng.integers(len(choices)))]
    name, n = base, 2
    while name in taken:
        name, n = f"{base} {n}", n + 1
    taken.add(name)
    return name


def later_id(app: str, turn: int) -> str:
    """Return the id that the owner of `app` uses after it dropped `turn` ids, 1 or more."""
    return _hashed_id(f"{app}:{turn}")


def _hashed_id(text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=5).digest()
    return "app_" + base64.b32encode(digest).decode().lower()
