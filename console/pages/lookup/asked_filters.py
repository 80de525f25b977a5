"""Filters from an address or a form.

Every value that cannot be read is reported in a sentence; the others are kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.http import QueryDict

from decisions.search.filters import (
    DIMENSIONS,
    LONGEST_VALUE,
    MOST_VALUES,
    RANGES,
    REFUSED,
    Dimension,
    Filters,
    Value,
)

# What addresses and forms of lookup hold besides filters.
_BESIDES = ("q", "as", "f", "before", "live", "after", "hold", "csrfmiddlewaretoken")
_NAMES = (
    *("q", "as", "range", "from", "to"),
    *(name for d in DIMENSIONS for name in (d.name, d.without)),
)
_KNOWN = frozenset({*_NAMES, *_BESIDES, *(f"-{d.name}" for d in DIMENSIONS)})
# Characters of a wrong value that are repeated: enough to recognise it, too few to fill the page.
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """Filters, and sentences about the values that could not be read."""

    filters: Filters
    before: uuid.UUID | None
    """Show what is older than this decision."""
    problems: tuple[str, ...]


def unknown_filters(given: Iterable[str]) -> list[str]:
    """Return a sentence for each name of an address or a form that is none of a search."""
    return [
        f"There is no filter “{_short(name)}”. A search has {', '.join(_NAMES)}."
        for name in given
        if name not in _KNOWN
    ]


def read_filters(given: QueryDict, *, first_visit: bool = True, rest: bool = False) -> Asked:
    """Return the filters of an address or a form, with a sentence for each wrong name or value.

    With `first_visit`, an address without any filter means "not admitted". With `rest`, the names
    were compared with the operation's document, and a time without a zone is wrong; else it is
    UTC, as the forms of pages have it.
    """
    problems = [] if rest else unknown_filters(given)
    filters = replace(
        _time(given, problems, zoned=rest),
        **_values(given, problems),  # type: ignore[arg-type]  # each reader fits its own field
    )
    # The form always sends f, so that choosing "everything" there is no first visit.
    if first_visit and "f" not in given and not filters.narrows():
        filters = replace(filters, actions=REFUSED)
    return Asked(filters, _cursor(given.get("before", ""), problems), tuple(problems))


def _values(
    given: QueryDict, problems: list[str]
) -> Mapping[str, frozenset[Value] | frozenset[tuple[str, Value]]]:
    """Return the values of each dimension by its field in Filters, and excluded values in `out`."""
    found: dict[str, frozenset[Value] | frozenset[tuple[str, Value]]] = {}
    out: set[tuple[str, Value]] = set()
    for dimension in DIMENSIONS:
        # links and saved searches of before write "-action"
        unwanted = _read_all(dimension, dimension.without, given, problems)
        unwanted |= _read_all(dimension, f"-{dimension.name}", given, problems)
        found[dimension.field] = _read_all(dimension, dimension.name, given, problems) - unwanted
        out |= {(dimension.name, value) for value in unwanted}
    return {**found, "out": frozenset(out)}


def _read_all(
    dimension: Dimension, name: str, given: QueryDict, problems: list[str]
) -> frozenset[Value]:
    """Return the values given for one name; add a sentence to `problems` for each wrong one."""
    words, found = [word for word in given.getlist(name) if word], set()
    if len(words) > MOST_VALUES:
        problems.append(
            f"At most {MOST_VALUES} values of “{name}” are read; {len(words) - MOST_VALUES} were"
            " left out."
        )
    for word in words[:MOST_VALUES]:
        try:
            found.add(dimension.read(word))
        except ValueError:
            problems.append(
                f"“{_short(word)}” is not a {dimension.name}, so it filters nothing. “{name}” is"
                f" {dimension.known}."
            )
    return frozenset(found)


def _time(given: QueryDict, problems: list[str], *, zoned: bool) -> Filters:
    """Return the time range that was asked for; the last hour when it cannot be read."""
    span = given.get("range") or "1h"
    if span not in RANGES:
        problems.append(
            f"“{_short(span)}” is not a time range; the last hour is shown. “range” is one of"
            f" {', '.join(RANGES)}."
        )
        span = "1h"
    first, last = given.get("from", ""), given.get("to", "")
    if not first and not last:
        return Filters(range=span)
    start = _moment("from", first, problems, zoned)
    end = _moment("to", last, problems, zoned)
    if start is None or end is None:
        return Filters(range=span)
    if end <= start:
        problems.append("“to” is not after “from”, so the two filter nothing. Swap them.")
        return Filters(range=span)
    return Filters(range=span, start=start, end=end)


def _moment(name: str, text: str, problems: list[str], zoned: bool) -> float | None:
    """Return the unix seconds of a time; None when the text is not a time."""
    example = "with its zone, as 2025-11-18T14:21Z" if zoned else "in UTC, as 2025-11-18T14:21"
    try:
        # no time is nearly as long
        at = datetime.fromisoformat(text.strip()[:LONGEST_VALUE])
        if zoned and at.tzinfo is None:
            raise ValueError(text)
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        # Years 1970 to 2191: what PostgreSQL and an id's 48 bits of milliseconds can both hold.
        if not 0 <= seconds < 7e9:
            raise ValueError(text)
    except (ValueError, OverflowError):
        said = f"“{_short(text)}” is not a time" if text else f"“{name}” is missing"
        problems.append(f"{said}, so “from” and “to” filter nothing. Write both {example}.")
        return None
    return seconds


def _cursor(text: str, problems: list[str]) -> uuid.UUID | None:
    """Return the decision id that the page begins after."""
    try:
        return uuid.UUID(text.removeprefix("dec_")) if text else None
    except ValueError:
        problems.append(
            f"“{_short(text)}” is not a decision id; the newest are shown. “before” is the id of a"
            " decision."
        )
        return None


def _short(text: str) -> str:
    """Shorten a wrong value for a sentence."""
    # A NUL cannot be shown; U+FFFD stands for it.
    text = text[:LONGEST_VALUE].replace("\x00", "�")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
