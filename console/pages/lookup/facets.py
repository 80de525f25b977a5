"""Facets: how many decisions there are of every value, and the addresses that include or exclude
the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from control.directory import apps as directory
from decider.contracts.vocabulary import Action, Tier
from decisions.counts.estimate import NOTHING, Estimate
from decisions.search.facet_counts import Counted, Tally, sums
from decisions.search.filters import DIMENSIONS, REFUSED, Dimension, Filters, Value

# Most values shown of a dimension without fixed values, besides those that a filter names. Chosen:
# more would push the next facet off the screen.
MOST = 8
Address = Callable[[Filters], str]
# Refusals first, from the mildest: they are what people look for.
_ACTIONS = (Action.DEFER, Action.BATCH, Action.SHED, Action.BLOCK, Action.ADMIT)


# Shares from which a value stands out, and from which a single app does. Chosen: a value that half
# of the decisions have is a pattern; among many apps, so is one app with a quarter of them.
MAJORITY, ONE_APP = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a facet."""

    word: str
    label: str
    number: Estimate
    share: float
    """Length of its bar: percent of the largest count in its facet."""
    state: str
    """in if the filters include it, out if they exclude it, else empty."""
    href: str
    """Address that includes the value, or no longer does."""
    out: str
    """Address that excludes the value, or no longer does; empty where that makes no sense."""


@dataclass(frozen=True, slots=True)
class Facet:
    """The values of one dimension with their counts."""

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


def all_facets(counted: Counted, filters: Filters, address: Address) -> tuple[Facet, ...]:
    """Return every facet that has values, each counted with all filters but its own."""
    found = (
        _facet(place, dimension, counted, filters, address)
        for place, dimension in enumerate(DIMENSIONS)
    )
    return tuple(facet for facet in found if facet.choices)


def _facet(
    place: int, dimension: Dimension, counted: Counted, filters: Filters, address: Address
) -> Facet:
    """Count the values of one dimension. `place` is its index in DIMENSIONS."""
    numbers = sums(counted.inside(filters, but=dimension.name), lambda t: t.values[place])
    wanted, unwanted = filters.wanted(dimension), filters.unwanted(dimension)
    shown = _shown(dimension, numbers, wanted | unwanted)
    inside = [
        numbers.get(v, NOTHING).count
        for v in shown
        if v not in unwanted and (not wanted or v in wanted)
    ]
    # At least 1, so that an empty facet does not divide by zero.
    largest = max([1.0, *inside])
    choices = []
    for value in shown:
        state = "in" if value in wanted else "out" if value in unwanted else ""
        number = numbers.get(value, NOTHING)
        # A value outside the filters has a count but no bar, because the bars show what was found.
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
    """Return the values of a facet: actions and tiers in a fixed order, others by their count."""
    if dimension.name == "action":
        return list(_ACTIONS)
    if dimension.name == "tier":
        return [t for t in reversed(Tier) if t in numbers or t in chosen]
    some = [v for v in numbers if v != ""][:MOST]
    return some + sorted(v for v in chosen if v not in some)


def app_facet(counted: Counted, address: Callable[[str], str]) -> Facet | None:
    """Return the apps with the most decisions.

    None when apps are not counted under these filters, or there is only one.
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
    """Return the filters in force except time, each with the address without it."""
    found = []
    for dimension in DIMENSIONS:
        wanted = filters.wanted(dimension)
        # The usual filter, all four refusals, is one chip.
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
    """Say what most of the decisions inside the filters have in common.

    Return at most two sentences; [] when nothing stands out.
    """
    inside = list(counted.inside(filters))
    whole = sum(t.number.count for t in inside)
    if not whole:
        return []
    found = []
    # indices in DIMENSIONS
    parts = {"endpoint": 4, "service": 3, "reason": 5}
    if len(counted.apps) > 1 and (share := counted.apps[0][1].count / whole) >= ONE_APP:
        app = counted.apps[0][0]
        found.append(
            f"{min(share, 1):.0%} are one app, {labels([app])[app]}{_on_one_arm(inside, app)}."
        )
    # One of these is enough: an endpoint implies its service, and often its reason.
    for name, words in (("endpoint", "are on"), ("service", "are on"), ("reason", "say")):
        dimension = DIMENSIONS[parts[name]]
        by_value = sums(inside, partial(_value_at, parts[name]))
        value, number = next(iter(by_value.items()))
        if (
            len(by_value) > 1
            and value
            and number.count / whole >= MAJORITY
            and not filters.wanted(dimension)
        ):
            text = dimension.label(value)
            found.append(
                f"{number.count / whole:.0%} {words} {f'“{text}”' if name == 'reason' else text}."
            )
            break
    return found[:2]


def _value_at(place: int, tally: Tally) -> Value:
    """Return a tally's value of the dimension at this place of DIMENSIONS."""
    return tally.values[place]


def _on_one_arm(inside: Sequence[Tally], app: str) -> str:
    """Return a clause when the app's decisions were all scored by one arm while others were not."""
    arms = {t.values[6] for t in inside}
    of_app = {t.values[6] for t in inside if t.app == app}
    return " on one model arm" if len(of_app) == 1 and len(arms) > 1 else ""
