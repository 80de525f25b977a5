"""Random edits of a config document, each with what the table of the architecture says of it: an
oracle that knows nothing of how `second_person` judges.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from control.config import parts
from control.config.second_person import Circumstances
from decider.contracts import defaults
from decider.contracts.config import (
    Config,
    EndpointPolicy,
    ListEntry,
    ModelRef,
    Override,
    Service,
    Switch,
    TenantPolicy,
)

NOW = 1_800_000_000.0
HOUR = 3600.0
OLD, LIVE, NEW = (ModelRef("risk", k, str(k) * 64) for k in (1, 2, 3))
ENTERPRISE = frozenset({("app", "app_e"), ("tenant", "ten_e")})
SEEN = Circumstances(
    is_own=lambda part: part == "/switches/observe_only",
    was_live=lambda digest: digest == OLD.digest,
    is_enterprise=lambda kind, subject: (kind, subject) in ENTERPRISE,
)


def start() -> Config:
    """A document in which there is something of everything, and of each something that ended."""
    return parts.decoded(
        replace(
            defaults.config(7, NOW - HOUR),
            model=LIVE,
            switches=[Switch("all_ml", NOW + 2 * HOUR)],
            tenants=[TenantPolicy("ten_a", 2.0), TenantPolicy("ten_e", 3.0)],
            overrides=[
                Override(id="up", kind="app", subject="app_a", until=NOW + HOUR, multiplier=2),
                Override(id="up_e", kind="tenant", subject="ten_e", until=NOW + HOUR, multiplier=2),
                Override(id="down", kind="app", subject="app_b", until=NOW + HOUR, multiplier=0.5),
                Override(id="admit", kind="app", subject="app_c", until=NOW + HOUR, action=0),
                Override(id="shed", kind="app", subject="app_d", until=NOW + HOUR, action=3),
                Override(id="over", kind="app", subject="app_a", until=NOW - HOUR, multiplier=9),
            ],
            lists=[
                ListEntry(verdict="allow", kind="app", subject="app_a", until=NOW + HOUR),
                ListEntry(verdict="allow", kind="app", subject="app_e", until=NOW + HOUR),
                ListEntry(verdict="block", kind="app", subject="app_b", until=NOW + HOUR),
                ListEntry(verdict="compliance", kind="tenant", subject="ten_a"),
                ListEntry(verdict="block", kind="app", subject="app_z", until=NOW - 1),
            ],
        )
    )


Edit = tuple[str, Callable[[Config], Config], bool]
"""Where it is (edits of one place are not combined), what it does, whether it needs someone."""


@dataclass(frozen=True)
class Case:
    """Some edits of the document, together."""

    before: Config
    after: Config
    needs: bool
    places: tuple[str, ...]


def case(rng: random.Random) -> Case:
    """One to four edits of different places."""
    chosen: dict[str, Edit] = {}
    for _ in range(rng.randint(1, 4)):
        edit = rng.choice(_EDITS)(rng)
        chosen.setdefault(edit[0], edit)
    before = after = start()
    for _, do, _ in chosen.values():
        after = do(after)
    after = replace(after, version=8, issued_at=NOW)
    return Case(before, after, any(needs for *_, needs in chosen.values()), tuple(chosen))


def _at(items: list, place: int, new: object) -> list:
    return [*items[:place], *([] if new is None else [new]), *items[place + 1 :]]


def _switch(rng: random.Random) -> Edit:
    name = "all_ml"
    which = rng.choice(("clear", "extend", "forever", "shorten", "soon", "again"))
    until = {
        "clear": 0.0,
        "extend": NOW + rng.uniform(2.1, 50) * HOUR,
        "forever": None,
        "shorten": NOW + rng.uniform(600, 7000),
        "soon": NOW + rng.uniform(1, 599),
        "again": NOW + 2 * HOUR,
    }[which]
    made = [] if which == "clear" else [Switch(name, until)]
    needs = which not in ("shorten", "again")
    return "all_ml", lambda c: replace(c, switches=_others(c, name) + made), needs


def _others(config: Config, name: str) -> list[Switch]:
    return [s for s in config.switches if s.name != name]


def _engage(rng: random.Random) -> Edit:
    until = rng.choice((None, NOW + rng.uniform(1, 1e6)))
    made = [Switch("observe_only", until)]
    return "observe_only", lambda c: replace(c, switches=made + c.switches), False


def _capacity(rng: random.Random) -> Edit:
    place, factor = rng.randrange(5), rng.choice((0.1, 0.99, 1.01, 3.0))

    def do(c: Config) -> Config:
        service = c.services[place]
        new = replace(service, capacity=service.capacity * factor)
        return replace(c, services=_at(c.services, place, new))

    return f"service {place}", do, factor > 1


def _service(rng: random.Random) -> Edit:
    """Any other field of a service, or an endpoint."""
    new = rng.choice(
        (
            {"target": 0.5},
            {"latency_ms": 77.0},
            {"prefixes": ["/v9"]},
            {"endpoints": [EndpointPolicy("GET", "/v9/x", 3.0)]},
        )
    )
    place = rng.randrange(5)
    do = lambda c: replace(c, services=_at(c.services, place, replace(c.services[place], **new)))  # noqa: E731
    return f"service {place}", do, True


def _services(rng: random.Random) -> Edit:
    added = Service(name="new", prefixes=["/n"], capacity=1.0, latency_ms=1.0)
    do = rng.choice(
        (
            lambda c: replace(c, services=[*c.services, added]),
            lambda c: replace(c, services=c.services[1:] + c.services[:1]),
        )
    )
    return "services", do, True


def _tier(rng: random.Random) -> Edit:
    field = rng.choice(
        ("rate", "burst", "quota_per_day", "weight", "friction", "harm", "headroom", "rank_from")
    )
    place, factor = rng.randrange(4), rng.choice((0.5, 0.9, 1.1))

    def do(c: Config) -> Config:
        tier = c.tiers[place]
        new = replace(tier, **{field: getattr(tier, field) * factor * 0.9})
        return replace(c, tiers=_at(c.tiers, place, new))

    return f"tier {place}", do, True


def _override(rng: random.Random) -> Edit:
    """The end of an override, or the override itself, taken out or put in."""
    place = rng.randrange(5)
    which = rng.choice(("shorten", "extend", "remove", "strengthen"))
    exempts, enterprise = place in (0, 1, 3), place == 1

    def do(c: Config) -> Config:
        old = c.overrides[place]
        new = {
            "shorten": replace(old, until=NOW + rng.uniform(1, 3599)),
            "extend": replace(old, until=NOW + 2 * HOUR),
            "remove": None,
            "strengthen": replace(old, multiplier=7.5, until=NOW + 60),
        }[which]
        # "removed" is put beside, so that the places of others stay
        gone = replace(old, until=NOW - 5)
        return replace(c, overrides=_at(c.overrides, place, new or gone))

    needs = which in ("extend", "strengthen") or not exempts or enterprise
    return f"override {place}", do, needs


def _new_override(rng: random.Random) -> Edit:
    ends = rng.choice((NOW - 10, NOW + 60))
    kind, subject = rng.choice((("app", "app_e"), ("tenant", "ten_e"), ("app", "app_q")))
    made = Override(
        id="made",
        kind=kind,
        subject=subject,
        until=ends,
        action=rng.choice((None, 0, 4)),
        multiplier=rng.choice((0.1, 1.0, 5.0)),
    )
    return "overrides", lambda c: replace(c, overrides=[*c.overrides, made]), ends > NOW


def _list(rng: random.Random) -> Edit:
    place, which = rng.randrange(4), rng.choice(("shorten", "extend", "remove"))

    def do(c: Config) -> Config:
        until = {"shorten": NOW + 99, "extend": NOW + 9 * HOUR, "remove": NOW - 1}[which]
        return replace(c, lists=_at(c.lists, place, replace(c.lists[place], until=until)))

    needs = not (place == 0 and which != "extend")
    return f"list {place}", do, needs


def _new_list(rng: random.Random) -> Edit:
    made = ListEntry(
        verdict=rng.choice(("allow", "block", "compliance")),
        kind=rng.choice(("app", "tenant", "source")),
        subject="192.0.2.7",
        until=rng.choice((None, NOW + 60)),
    )
    return "lists", lambda c: replace(c, lists=[*c.lists, made]), True


def _model(rng: random.Random) -> Edit:
    new, needs = rng.choice(((OLD, False), (NEW, True), (None, True)))
    return "model", lambda c: replace(c, model=new), needs


def _tenant(rng: random.Random) -> Edit:
    made = rng.choice(([], [TenantPolicy("ten_a", rng.uniform(0.1, 9))]))
    return "tenants", lambda c: replace(c, tenants=made + c.tenants[1:]), True


def _plain(rng: random.Random) -> Edit:
    """A field of the document itself, or of a part that there is once."""
    name, value = rng.choice(
        (
            ("ml_time_limit_ms", 9.0),
            ("ml_time_limit_ms", 1.0),
            ("nodes", 4),
            ("unknown_tier", 2),
            ("feature_schema", "another"),
        )
    )
    return name, lambda c: replace(c, **{name: value}), True


def _sampling(rng: random.Random) -> Edit:
    field = rng.choice(("budget_per_s", "admit", "refuse"))
    do = lambda c: replace(c, sampling=replace(c.sampling, **{field: 0.33}))  # noqa: E731
    return "sampling", do, True


def _actions(rng: random.Random) -> Edit:
    new = (1.0, 0.5, 0.5, 0.0, 0.0)
    return "actions", lambda c: replace(c, actions=replace(c.actions, keep=new)), True


def _unknown(rng: random.Random) -> Edit:
    value = rng.choice(("share", "refuse"))
    do = lambda c: replace(c, unknown_apps=replace(c.unknown_apps, treatment=value))  # noqa: E731
    return "unknown_apps", do, True


def _ended(rng: random.Random) -> Edit:
    """What ended by itself leaves the document, as it does with every change."""

    def do(c: Config) -> Config:
        return replace(c, overrides=[o for o in c.overrides if o.id != "over"])

    return "ended", do, False


_EDITS: tuple[Callable[[random.Random], Edit], ...] = (
    *(_switch, _engage, _capacity, _service, _services, _tier, _override, _new_override, _list),
    *(_new_list, _model, _tenant, _plain, _sampling, _actions, _unknown, _ended),
    # what one person may do, more often: a case of several edits is else hardly ever such a one
    *(_switch, _engage, _capacity, _capacity, _engage, _ended, _model, _override, _list),
)
