"""What the lookup page shows: decisions with their reasons, facets, a histogram, and sentences on
what stands out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from django.db.models import F, QuerySet, Sum
from django.urls import reverse

from console.display import columns
from console.pages.lookup import facets
from console.pages.lookup.facets import Chip, Facet
from control.config import documents
from control.directory import apps as directory
from decider.contracts import units
from decisions.counts.estimate import NOTHING, Estimate, of_row, total
from decisions.models import Decision
from decisions.search import facet_counts, lookup
from decisions.search.facet_counts import Counted
from decisions.search.filters import Filters
from decisions.search.lookup import QueryReading
from explain.text import short_reason

# Readings that may select many decisions, so that counts, facets and a histogram are useful.
COUNTED = ("all", "app", "apps", "tenant", "token")


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision in a table."""

    decision: Decision
    name: str
    """Name of its app."""
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All results of a search."""

    reading: QueryReading
    filters: Filters
    rows: tuple[DecisionRow, ...]
    older: str
    """Address of the next page; empty on the last."""
    number: Estimate
    """Decisions that pass the filters, estimated."""
    by_time: Counted | None
    """All counts of the search; None for a search that selects single decisions."""
    finding: str
    facets: tuple[Facet, ...]
    apps: Facet | None
    chart: columns.Columns | None
    chips: tuple[Chip, ...]
    drop: Chip | None
    """The filter to drop when nothing was found."""
    newest: uuid.UUID | None
    """Id of the newest row, after which a live tail continues."""

    @property
    def shown_apps(self) -> tuple[str, ...]:
        """Ids of the apps whose data is shown: searched for, in rows, or counted one by one."""
        one_by_one = [str(choice.word) for choice in self.apps.choices] if self.apps else []
        return tuple(
            dict.fromkeys(
                [*self.reading.apps, *(row.decision.app for row in self.rows), *one_by_one]
            )
        )

    @property
    def counted(self) -> bool:
        """Whether the page has counts, facets and a histogram."""
        return self.by_time is not None


def lookup_address(
    text: str,
    filters: Filters,
    *,
    insist: str = "",
    before: uuid.UUID | None = None,
    page: str = "lookup",
) -> str:
    """Return the address of the lookup page for a text and filters.

    `page` is the URL name, for another view of the same search; `insist` says what the text is.
    """
    values: list[tuple[str, str]] = [("q", text)] if text else []
    values += [("as", insist)] if insist else []
    values += filters.query()
    values += [("before", str(before))] if before else []
    return f"{reverse(page)}?{urlencode(values)}"


def search_results(
    reading: QueryReading,
    filters: Filters,
    now: float,
    *,
    before: uuid.UUID | None = None,
    insist: str = "",
) -> Listing:
    """Read everything that the page shows for a reading, its filters and `now` (unix seconds)."""

    def to(changed: Filters) -> str:
        return lookup_address(reading.text, changed, insist=insist)

    counted = count(reading, filters, now) if reading.kind in COUNTED else None
    number = total(t.number for t in counted.inside(filters)) if counted else NOTHING
    some, more = _page(reading, filters, now, before, counted, number)
    dropped = lookup.widest(filters) if counted and not some else None
    return Listing(
        reading=reading,
        filters=filters,
        rows=tuple(rows_of(some)),
        older=lookup_address(reading.text, filters, insist=insist, before=some[-1].id)
        if more
        else "",
        number=number if counted else total(of_row(d.inclusion_probability) for d in some),
        by_time=counted,
        finding=_finding(reading, filters, counted, number, now) if counted and some else "",
        facets=facets.all_facets(counted, filters, to) if counted else (),
        apps=(
            facets.app_facet(counted, lambda app: lookup_address(app, filters, insist="app"))
            if counted
            else None
        ),
        chart=_chart(counted) if counted and counted.cells else None,
        chips=_chips(filters, to) if counted else (),
        drop=Chip(dropped[0], to(dropped[1])) if dropped else None,
        newest=some[0].id if some else None,
    )


def _chips(filters: Filters, to: Callable[[Filters], str]) -> tuple[Chip, ...]:
    """Return all filters in force as chips, time first."""
    whole = replace(filters, range="all", start=None, end=None)
    time = () if filters == whole else (Chip(filters.time_words, to(whole)),)
    return time + facets.chips(filters, to)


def count(reading: QueryReading, filters: Filters, now: float) -> Counted:
    """Count everything that a reading of COUNTED selects.

    Use the precomputed counts where they are fine enough for the filters, else read the rows.
    """
    if reading.kind == "all" and facet_counts.held(filters, now):
        return facet_counts.ready(filters, now)
    return facet_counts.from_rows(lookup.unfiltered(reading, filters, now), filters, now)


def _page(
    reading: QueryReading,
    filters: Filters,
    now: float,
    before: uuid.UUID | None,
    counted: Counted | None,
    number: Estimate,
) -> tuple[list[Decision], bool]:
    """Return the rows of a page, and whether there are more.

    If the counts show that few rows match, and when, scan only those times.
    """
    # The counts show that nothing matches, so no scan is needed.
    if counted and not number.kept:
        return [], False
    found = lookup.rows(reading, filters, now)
    whole = sum(t.number.kept for t in counted.tallies) if counted else 0
    # If under a twentieth matches, a scan from the newest row would read mostly other rows.
    if counted and counted.keys and number.kept * 20 < whole:
        found = lookup.spans(found, facet_counts.times(counted, before, lookup.PAGE + 1, now))
    return lookup.page(found.defer("features"), before)


def _chart(counted: Counted) -> columns.Columns:
    return columns.columns(
        counted.cells,
        counted.since,
        counted.width,
        counted.buckets,
        floor=44,
        height=40,
        exact=True,
    )


def rows_of(decisions: Sequence[Decision]) -> list[DecisionRow]:
    """Return decisions with the names of their apps and their reasons."""
    names, reasons = (
        directory.labels([d.app for d in decisions]),
        short_reason.write_short_reasons(decisions),
    )
    return [DecisionRow(d, names[d.app], reasons[d.id]) for d in decisions]


def kept_how_often() -> str:
    """Say in a sentence how likely a decision is to be kept."""
    s = documents.sampling()
    return (
        f"Admits are kept {_one_in(s.admit)}, refusals {_one_in(s.refuse)}, blocks"
        f" {_one_in(s.block)}, refusals of enterprise {_one_in(s.enterprise_refuse)}; less often"
        " when there are very many."
    )


def _one_in(probability: float) -> str:
    return (
        "always" if probability >= 1 else "never" if probability <= 0 else units.one_in(probability)
    )


def _finding(
    reading: QueryReading, filters: Filters, counted: Counted, number: Estimate, now: float
) -> str:
    """Say what stands out: the change from the time before, and what most decisions share."""
    parts, window = [], filters.window(now)
    if window.since is not None:
        until = window.until if window.until is not None else now
        earlier = _before(reading, filters, 2 * window.since - until, window.since, now)
        parts += _against(number.count, earlier, filters.time_words)
    return " ".join(parts + facets.pattern(counted, filters, directory.labels))


def _before(
    reading: QueryReading, filters: Filters, since: float, until: float, now: float
) -> float:
    """Estimate how many decisions pass the filters, but for time, from `since` to `until`."""
    if reading.kind == "all" and facet_counts.held(filters, now):
        return facet_counts.before(filters, since, until, now)
    everything = replace(filters, range="all", start=None, end=None)
    found: QuerySet[Decision] = lookup.within(
        lookup.rows(reading, everything, now).order_by(), since, until
    )
    return float(found.aggregate(n=Sum(1.0 / F("inclusion_probability")))["n"] or 0.0)


def _against(number: float, before: float, span: str) -> list[str]:
    """Compare the window with the time before in a sentence."""
    if before <= 0:
        return []
    times, then = (
        number / before,
        (
            f"the {span.removeprefix('Last ')} before"
            if span.startswith("Last ")
            else "the same time before"
        ),
    )
    # Chosen: sampling and chance explain a difference of up to a quarter.
    if 0.8 <= times <= 1.25:
        return [f"About as many as in {then}."]
    return [f"{times:.1f} times {then}."] if times > 1 else [f"{times:.0%} of {then}."]
