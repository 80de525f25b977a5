"""Facets: how many decisions there are of every value, and the address that includes or excludes
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from control.directory import apps as directory
from decider.contracts.vocabulary import Action, Tier
from decisions.counts.estimate import NOTHING, Estimate
from decisions.search.facet_counts import Counted, sums
from decisions.search.filters import DIMENSIONS, REFUSED, Dimension, Filters, Value

# Values shown of a dimension without fixed values; those chosen are always shown.
MOST = 8
Address = Callable[[Filters], str]
_ACTIONS = (Action.DEFER, Action.BATCH, Action.SHED, Action.BLOCK, Action.ADMIT)


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a facet."""

    word: str
    label: str
    number: Estimate
    share: float
    """Of the largest counted in its facet, percent."""
    state: str
    """in, out, or empty."""
    href: str
    """Includes it, or takes that back."""
    out: str
    """Excludes it, or takes that back; empty where that makes no sense."""


@dataclass(frozen=True, slots=True)
class Facet:
    name: str
    title: str
    choices: tuple[Choice, ...]
    more: int
    """Values that are not shown."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter in force, and the address without it."""

    text: str
    href: str


def of(counted: Counted, filters: Filters, address: Address) -> tuple[Facet, ...]:
    """Every facet, each counted with all filters but its own."""
    found = (
        _facet(place, dimension, counted, filters, address)
        for place, dimension in enumerate(DIMENSIONS)
    )
    return tuple(facet for facet in found if facet.choices)


def _facet(
    place: int, dimension: Dimension, counted: Counted, filters: Filters, address: Address
) -> Facet:
    numbers = sums(counted.inside(filters, but=dimension.name), lambda t: t.values[place])
    wanted, unwanted = filters.wanted(dimension), filters.unwanted(dimension)
    shown = _shown(dimension, numbers, wanted | unwanted)
    inside = [
        numbers.get(v, NOTHING).count
        for v in shown
        if v not in unwanted and (not wanted or v in wanted)
    ]
    largest = max([1.0, *inside])
    choices = []
    for value in shown:
        state = "in" if value in wanted else "out" if value in unwanted else ""
        number = numbers.get(value, NOTHING)
        drawn = state != "out" and (not wanted or state == "in")
        share = round(100 * number.count / largest, 2) if drawn else 0.0
        choices.append(
            Choice(
                dimension.word(value),
                dimension.label(value) or "none",
                number,
                share,
                state,
                address(filters.including(dimension, value)),
                address(filters.excluding(dimension, value)),
            )
        )
    return Facet(dimension.name, dimension.title, tuple(choices), len(numbers.keys() - set(shown)))


def _shown(
    dimension: Dimension, numbers: dict[Value, Estimate], chosen: frozenset[Value]
) -> list[Value]:
    """The values of a facet in their order: actions and tiers as always, others by their number."""
    if dimension.name == "action":
        return list(_ACTIONS)
    if dimension.name == "tier":
        return [t for t in reversed(Tier) if t in numbers or t in chosen]
    some = [v for v in numbers if v != ""][:MOST]
    return some + sorted(v for v in chosen if v not in some)


def of_apps(counted: Counted, address: Callable[[str], str]) -> Facet | None:
    """The apps with the most decisions; None when they are not counted under these filters, or
    there is one only.
    """
    if len(counted.apps) < 2:
        return None
    names, largest = directory.labels([app for app, _ in counted.apps]), counted.apps[0][1].count
    choices = tuple(
        Choice(
            app, names[app], number, round(100 * number.count / largest, 2), "", address(app), ""
        )
        for app, number in counted.apps
    )
    return Facet("app", "App", choices, 0)


def chips(filters: Filters, address: Address) -> tuple[Chip, ...]:
    """The filters in force but time, each with the address without it."""
    found = []
    for dimension in DIMENSIONS:
        wanted = filters.wanted(dimension)
        if dimension.name == "action" and wanted == REFUSED:
            found.append(Chip("Not admitted", address(filters.without(dimension))))
        else:
            found += [
                Chip(_label(dimension, v), address(filters.including(dimension, v)))
                for v in sorted(wanted)
            ]
        found += [
            Chip(f"Without {_label(dimension, v)}", address(filters.excluding(dimension, v)))
            for v in sorted(filters.unwanted(dimension))
        ]
    return tuple(found)


def _label(dimension: Dimension, value: Value) -> str:
    return dimension.label(value) or "none"


def pattern(
    counted: Counted, filters: Filters, labels: Callable[[Sequence[str]], dict[str, str]]
) -> list[str]:
    """What most of the decisions inside the filters have in common, in sentences; empty when
    nothing stands out.
    """
    inside = list(counted.inside(filters))
    whole = sum(t.number.count for t in inside)
    if not whole:
        return []
    found, parts = [], {"arm": 6, "endpoint": 4, "service": 3, "reason": 5}
    if len(counted.apps) > 1 and (share := counted.apps[0][1].count / whole) >= 0.25:
        app = counted.apps[0][0]
        found.append(
            f"{min(share, 1):.0%} are one app, {labels([app])[app]}{_on_one_arm(inside, app)}."
        )
    for name, least, words in (
        ("endpoint", 0.5, "are on"),
        ("service", 0.5, "are on"),
        ("reason", 0.5, "say"),
    ):
        dimension = DIMENSIONS[parts[name]]
        by_value = sums(inside, lambda t, at=parts[name]: t.values[at])
        value, number = next(iter(by_value.items()))
        if (
            len(by_value) > 1
            and value
            and least <= number.count / whole
            and not filters.wanted(dimension)
        ):
            text = dimension.label(value)
            found.append(
                f"{number.count / whole:.0%} {words} {f'“{text}”' if name == 'reason' else text}."
            )
            break
    return found[:2]


def _on_one_arm(inside: Sequence, app: str) -> str:
    """When nearly all of an app's decisions were scored by the same arm while others were not, that
    belongs to the pattern.
    """
    arms = {t.values[6] for t in inside}
    of_app = {t.values[6] for t in inside if t.app == app}
    return " on one model arm" if len(of_app) == 1 and len(arms) > 1 else ""
