"""What the lookup page shows: rows with their reasons, facets, a histogram, and sentences about them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from django.db.models import F, Min, Sum
from django.urls import reverse

from decider.vocabulary import Action, Stage, Tier

from . import aggregate, charts, configs, directory, lookup, why
from .aggregate import Cell
from .lookup import RANGES, Filters, Reading
from .models import Decision

BUCKETS = 60
REFUSED = frozenset({Action.DEFER, Action.BATCH, Action.SHED, Action.BLOCK})
_COUNTED = ("all", "app", "apps", "tenant")
"""Readings that select many decisions, so that counts, facets and a histogram say something."""


@dataclass(frozen=True, slots=True)
class Row:
    """A decision in a table."""

    decision: Decision
    name: str
    """Its app's."""
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a facet."""

    name: str
    """Of the form field."""
    value: str
    label: str
    count: float
    share: float
    """Of the largest in its facet, percent."""
    chosen: bool


@dataclass(frozen=True, slots=True)
class Facet:
    title: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter in force, and the address without it."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All of the page's results."""

    reading: Reading
    filters: Filters
    rows: tuple[Row, ...]
    older: str
    """Address of the next page; empty on the last."""
    kept: int
    count: float
    counted: bool
    """Whether counts, facets and histogram are there."""
    finding: str
    facets: tuple[Facet, ...]
    chart: charts.Columns | None
    chips: tuple[Chip, ...]
    drop: Chip | None
    """What to drop when nothing was found."""


def address(text: str, filters: Filters, *, insist: str = "", before: uuid.UUID | None = None) -> str:
    """The lookup page's address for a text and filters."""
    values: list[tuple[str, str]] = [("q", text)] if text else []
    values += [("as", insist)] if insist else []
    values += [("range", filters.range), ("f", "1")]
    values += [("action", Action(a).word) for a in sorted(filters.actions)]
    values += [("stage", Stage(s).name.lower()) for s in sorted(filters.stages)]
    values += [("tier", Tier(t).word) for t in sorted(filters.tiers)]
    values += [("service", s) for s in sorted(filters.services)]
    values += [("before", str(before))] if before else []
    return f"{reverse('lookup')}?{urlencode(values)}"


def compose(reading: Reading, filters: Filters, now: float, *, before: uuid.UUID | None = None, insist: str = "") -> Listing:
    """Reads everything the page shows."""
    found = lookup.rows(reading, filters, now)
    some, more = lookup.page(found, before)
    cells: list[Cell] = []
    chart, counted = None, reading.kind in _COUNTED
    if counted:
        unfiltered = lookup.rows(reading, Filters(range=filters.range), now)
        since = filters.since(now) or _oldest(unfiltered, now)
        width = (now - since) / BUCKETS
        cells = aggregate.cells(unfiltered, since, width)
        chart = charts.columns((c for c in cells if _passes(c, filters)), since, width, BUCKETS, floor=44, height=40, exact=True)
    inside = [c for c in cells if _passes(c, filters)]
    kept = sum(c.kept for c in inside) if counted else len(some)
    dropped = lookup.widest(filters) if counted and not some else None
    return Listing(
        reading=reading,
        filters=filters,
        rows=tuple(rows_of(some)),
        older=address(reading.text, filters, insist=insist, before=some[-1].id) if more else "",
        kept=kept,
        count=sum(c.count for c in inside) if counted else sum(d.weight for d in some),
        counted=counted,
        finding=_finding(reading, found, inside, filters, now) if counted and some else "",
        facets=_facets(cells, filters) if counted else (),
        chart=chart if inside else None,
        chips=_chips(reading, filters, insist) if counted else (),
        drop=Chip(dropped[0], address(reading.text, dropped[1], insist=insist)) if dropped else None,
    )


def rows_of(decisions: Sequence[Decision]) -> list[Row]:
    """Decisions with the names of their apps and their reasons."""
    names, reasons = directory.names(d.app for d in decisions), why.short(decisions)
    return [Row(d, names[d.app], reasons[d.id]) for d in decisions]


def kept_how_often() -> str:
    """How likely a decision is to be kept, in a sentence."""
    s = configs.sampling()
    return (
        f"Admits are kept {_one_in(s.admit)}, refusals {_one_in(s.refuse)}, blocks {_one_in(s.block)}, "
        f"refusals of enterprise {_one_in(s.enterprise_refuse)}; less often when there are very many."
    )


def _one_in(probability: float) -> str:
    return "always" if probability >= 1 else "never" if probability <= 0 else f"1 in {1 / probability:,.0f}"


def _oldest(found, now: float) -> float:
    oldest = found.order_by().aggregate(oldest=Min("at"))["oldest"]
    return min(oldest.timestamp(), now - 60) if oldest else now - 3_600


def _passes(cell: Cell, filters: Filters, *, but: str = "") -> bool:
    """Whether a cell is inside the filters, leaving out the one called `but`."""
    wanted = {"actions": cell.action, "stages": cell.stage, "tiers": cell.tier, "services": cell.service}
    return all(name == but or not getattr(filters, name) or value in getattr(filters, name) for name, value in wanted.items())


def _facets(cells: list[Cell], filters: Filters) -> tuple[Facet, ...]:
    """Counts by every property, each with all filters but its own."""
    actions = [(a, a.word, a.word.capitalize()) for a in (Action.DEFER, Action.BATCH, Action.SHED, Action.BLOCK, Action.ADMIT)]
    stages = [(s, s.name.lower(), s.label) for s in Stage]
    tiers = [(t, t.word, t.word.capitalize()) for t in reversed(Tier)]
    services = [(s, s, s) for s in sorted({c.service for c in cells} | filters.services)]
    return (
        _facet("Action", "action", "actions", cells, filters, lambda c: c.action, actions),
        _facet("Decided by", "stage", "stages", cells, filters, lambda c: c.stage, stages),
        _facet("Tier", "tier", "tiers", cells, filters, lambda c: c.tier, tiers),
        _facet("Service", "service", "services", cells, filters, lambda c: c.service, services),
    )


def _facet(
    title: str, field: str, group: str, cells: list[Cell], filters: Filters,
    key: Callable[[Cell], object], values: Iterable[tuple[object, str, str]],
) -> Facet:  # fmt: skip
    counts = aggregate.totals((c for c in cells if _passes(c, filters, but=group)), key)
    chosen = getattr(filters, group)
    counted = {v for v, _, _ in values if (not chosen or v in chosen) and counts.get(v)}
    largest = max((counts[v] for v in counted), default=1.0)
    choices = [
        Choice(field, name, label, count, round(100 * count / largest, 2) if value in counted else 0.0, value in chosen)
        for value, name, label in values
        if (count := counts.get(value, 0.0)) or value in chosen or group == "actions"
    ]
    return Facet(title, tuple(choices))


def _chips(reading: Reading, filters: Filters, insist: str) -> tuple[Chip, ...]:
    def without(**change) -> str:
        return address(reading.text, replace(filters, **change), insist=insist)

    chips = [] if filters.range == "all" else [Chip(RANGES[filters.range][0], without(range="all"))]
    if filters.actions == REFUSED:
        chips.append(Chip("Not admitted", without(actions=frozenset())))
    else:
        chips += [Chip(Action(a).word.capitalize(), without(actions=filters.actions - {a})) for a in sorted(filters.actions)]
    chips += [Chip(Stage(s).label, without(stages=filters.stages - {s})) for s in sorted(filters.stages)]
    chips += [Chip(Tier(t).word.capitalize(), without(tiers=filters.tiers - {t})) for t in sorted(filters.tiers)]
    return tuple(chips + [Chip(s, without(services=filters.services - {s})) for s in sorted(filters.services)])


def _finding(reading: Reading, found, inside: list[Cell], filters: Filters, now: float) -> str:
    """What stands out: against the time before, and which app or service most of it is."""
    total, parts = sum(c.count for c in inside), []
    if (since := filters.since(now)) is not None:
        earlier = lookup.rows(reading, replace(filters, range="all"), now).order_by()
        before = lookup.within(earlier, 2 * since - now, since).aggregate(n=Sum(1.0 / F("inclusion_probability")))["n"] or 0.0
        parts += _against(total, before, RANGES[filters.range][0].removeprefix("Last "))
    apps = aggregate.largest_apps(found.order_by(), 1) if len(reading.apps) != 1 else []
    if apps and total and apps[0][1] / total >= 0.25:
        name = directory.names([apps[0][0]])[apps[0][0]]
        parts.append(f"{apps[0][1] / total:.0%} are one app, {name}.")
    else:
        service, count = max(aggregate.totals(inside, lambda c: c.service).items(), key=lambda item: item[1])
        if count / total >= 0.5 and service:
            parts.append(f"{count / total:.0%} are on {service}.")
    return " ".join(parts)


def _against(total: float, before: float, span: str) -> list[str]:
    if before <= 0:
        return []
    times = total / before
    if 0.8 <= times <= 1.25:
        return [f"About as many as in the {span} before."]
    return [f"{times:.1f} times the {span} before."] if times > 1 else [f"{times:.0%} of the {span} before."]
