"""The number of decisions by everything that they are filtered by, from the counts kept ready or
from the rows.

The counts of `decisions.counts.append` answer for all decisions. What they do not hold (one app,
one tenant, one token, minutes of long ago) is counted from the rows in the same way. Both give
estimates with their intervals.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from django.db import connection
from django.db.models import Count, F, FloatField, Func, Min, QuerySet, Sum, Value
from django.db.models.functions import Floor

from decider.contracts.ids import decision_time
from decisions.counts import rollup
from decisions.counts.aggregate import Cell
from decisions.counts.append import APPS, FACETS, MINUTE_S
from decisions.counts.estimate import NOTHING, Estimate
from decisions.models import Decision
from decisions.search.filters import Filters

K = TypeVar("K")
# Action, stage, tier, service, method and endpoint, reason, arm: in the order of
# `filters.DIMENSIONS`.
Values = tuple[int, int, int, str, str, int, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """Decisions that agree in everything they are filtered by."""

    values: Values
    app: str
    """Empty when apps were not told apart."""
    number: Estimate


@dataclass(frozen=True, slots=True)
class Counted:
    """The counts of a window. The tallies are not filtered, so that each facet can be counted
    without its own filter.
    """

    since: float
    """Unix seconds at which the first bucket begins."""
    width: float
    """Seconds of a bucket."""
    buckets: int
    tallies: tuple[Tally, ...]
    cells: tuple[Cell, ...]
    """The decisions inside the filters by bucket and action, as a histogram draws them."""
    apps: tuple[tuple[str, Estimate], ...]
    """The apps with the most decisions inside the filters; empty where the counts kept ready cannot
    tell them.
    """
    keys: tuple[int, ...] = ()
    """Keys of the counts kept ready that are inside the filters."""

    def inside(self, filters: Filters, *, but: str = "") -> Iterable[Tally]:
        """Return the tallies inside the filters. The dimension called `but` is not filtered."""
        return (t for t in self.tallies if filters.passes(t.values, but=but))


# Chosen: what fits beside the other facets without scrolling.
MOST_APPS = 8
# Bars of a histogram at most, as in `filters`.
_BUCKETS = 60


def sums(tallies: Iterable[Tally], key: Callable[[Tally], K]) -> dict[K, Estimate]:
    """Return the estimate for each value of `key(tally)`, the largest first."""
    out: dict[K, Estimate] = defaultdict(lambda: NOTHING)
    for tally in tallies:
        out[key(tally)] += tally.number
    return dict(sorted(out.items(), key=lambda item: -item[1].count))


# ---- from the counts kept ready ----

_names: dict[int, Values] = {}
_names_lock = threading.Lock()
# As many as a worker remembers (`append.Keys`): some tens of megabytes.
_NAMES_MOST = 200_000


def _values(
    action: int, stage: int, tier: int, service: str, method: str, endpoint: str, *rest: int
) -> Values:
    """Return the values of a key of FACETS: method and endpoint are one dimension."""
    reason, arm = rest
    return action, stage, tier, service, f"{method} {endpoint}", reason, arm


def _named(numbers: Iterable[int]) -> dict[int, Values]:
    """Return what keys of FACETS mean. A key's meaning never changes, so it is remembered.

    The result is a separate dict: the remembered keys may be cleared meanwhile, by this call or by
    another thread.
    """
    wanted = set(numbers)
    found = {number: name for number in wanted if (name := _names.get(number)) is not None}
    if missing := wanted - found.keys():
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, {', '.join(FACETS.fields)} FROM {FACETS.keys} WHERE id = ANY(%s)",  # noqa: S608
                [list(missing)],
            )
            fresh = {number: _values(*key) for number, *key in cursor.fetchall()}
        # threads of the console share the names, so a clearing and an update must not overlap
        with _names_lock:
            if len(_names) > _NAMES_MOST:
                _names.clear()
            _names.update(fresh)
        found |= fresh
    return found


def ready(filters: Filters, now: float) -> Counted:
    """Return the counts of the filters' window at `now` (unix seconds), from the counts kept ready.
    The window consists of whole buckets.
    """
    since, until, width = _bounds(filters, now)
    rows = _grouped(since, until, now)
    names = _named(number for number, *_ in rows)
    tallies = tuple(
        Tally(names[n], "", Estimate(weight, square, kept))
        for n, kept, weight, square in rows
        if n in names
    )
    inside = [n for n, *_ in rows if n in names and filters.passes(names[n])]
    apps = tuple(_apps(filters, since, until, now)) if inside and _apps_held(filters) else ()
    cells = tuple(_cells(inside, names, (since, until, width), now))
    return Counted(
        since, width, max(1, round((until - since) / width)), tallies, cells, apps, tuple(inside)
    )


def held(filters: Filters, now: float) -> bool:
    """Return whether the counts kept ready are fine enough for the filters' time."""
    window = filters.window(now)
    if window.since is None or filters.start is None:
        return True
    grain = rollup.grain(now - window.since) * MINUTE_S
    return window.since % grain == 0 and (window.until or now) % grain == 0


def times(
    counted: Counted, before: uuid.UUID | None, enough: int, now: float
) -> list[tuple[float, float]]:
    """Return time ranges (start and end in unix seconds), newest first, that together hold at least
    `enough` stored decisions inside the filters and older than `before`; fewer when there are not
    that many. A search for rare rows needs to look only there.
    """
    until = counted.since + counted.width * counted.buckets
    latest = min(until, decision_time(before.bytes) + MINUTE_S) if before else until
    found: list[tuple[float, float]] = []
    kept = 0
    for start, end, rows in _stored_times(counted, latest, now):
        if found and found[-1][0] <= end:
            # one range for neighbours: each range costs the planner every partition
            found[-1] = (start, found[-1][1])
        else:
            found.append((start, end))
        if before is None or end < latest - MINUTE_S:
            # the minutes around the cursor hold decisions newer than it, so they do not count
            kept += rows
        if kept >= enough:
            break
    return found


def _stored_times(
    counted: Counted, latest: float, now: float
) -> Iterable[tuple[float, float, int]]:
    """Return start, end (unix seconds) and kept rows of each block inside the filters that begins
    by `latest`, newest first.
    """
    # blocks of at most five minutes where they are kept: longer ones would widen the search
    where, values = rollup.within(
        FACETS, int(counted.since // MINUTE_S), int(latest // MINUTE_S) + 1, now, most=5
    )
    sql = (
        f"SELECT minute, max(greatest(span, 1)), sum(kept) FROM {FACETS.table} "  # noqa: S608
        f"WHERE {where} AND key = ANY(%s) GROUP BY minute ORDER BY minute DESC"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [*values, list(counted.keys)])
        return [(at * 60.0, (at + span) * 60.0, kept) for at, span, kept in cursor.fetchall()]


def before(filters: Filters, since: float, until: float, now: float) -> float:
    """Return the estimated number of decisions inside the filters from `since` to `until` (unix
    seconds), from the counts kept ready. Where these begin before `since`, take the share of their
    time that lies after it.
    """
    first = rollup.edge(since, now)
    rows = _grouped(first, until, now)
    names = _named(number for number, *_ in rows)
    whole = sum(weight for n, _, weight, _ in rows if n in names and filters.passes(names[n]))
    return whole * (until - since) / (until - first)


def _bounds(filters: Filters, now: float) -> tuple[float, float, float]:
    """Return the start and the end of the filters' window (unix seconds), and the width of a bucket
    in seconds.
    """
    window = filters.window(now)
    if window.since is not None:
        end = window.until if window.until is not None else (now // window.width + 1) * window.width
        return window.since, end, window.width
    first = rollup.oldest(FACETS)
    oldest = min(first * MINUTE_S if first is not None else now, now)
    grain = rollup.grain(now - oldest) * MINUTE_S
    width = max(1, -(-(now - oldest) // (grain * _BUCKETS))) * grain
    return oldest // width * width, (now // width + 1) * width, width


def _grouped(since: float, until: float, now: float) -> list[tuple[int, int, float, float]]:
    """Return key of FACETS, kept rows, weight and squared weight between two moments (unix
    seconds).
    """
    where, values = rollup.within(FACETS, int(since // MINUTE_S), int(until // MINUTE_S), now)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT key, sum(kept), sum(weight), sum(square) FROM {FACETS.table} WHERE {where}"  # noqa: S608
            " GROUP BY key",
            values,
        )
        return [(key, int(kept), weight, square) for key, kept, weight, square in cursor.fetchall()]


def _cells(
    inside: list[int], names: dict[int, Values], bounds: tuple[float, float, float], now: float
) -> Iterable[Cell]:
    """Yield the histogram's cells: decisions inside the filters by bucket and action. `bounds` is
    what `_bounds` returns.
    """
    if not inside:
        return
    since, until, width = bounds
    first, minutes = int(since // MINUTE_S), int(width // MINUTE_S)
    where, values = rollup.within(
        FACETS, first, int(until // MINUTE_S), now, most=rollup.inside(first, minutes)
    )
    # without filters, the query needs no list of thousands of keys
    chosen = "" if len(inside) == len(names) else "AND key = ANY(%s)"
    sql = (
        "SELECT r.bucket, k.action, sum(r.weight), sum(r.square), sum(r.kept) FROM "  # noqa: S608
        "(SELECT (minute - %s) / %s AS bucket, key, sum(weight) AS weight, sum(square) AS square,"
        " sum(kept) AS kept "
        f"FROM {FACETS.table} WHERE {where} {chosen} GROUP BY 1, key) r JOIN {FACETS.keys} k ON"
        " k.id = r.key GROUP BY 1, 2"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [first, minutes, *values, *([inside] if chosen else [])])
        for bucket, action, *number in cursor.fetchall():
            yield _cell(since + bucket * width, action, *number)


def _cell(start: float, action: int, weight: float, square: float, kept: int) -> Cell:
    """Return the part of one bar that belongs to one action. The histogram needs no stage, tier or
    service, so these are left empty.
    """
    return Cell(start, action, 0, 0, "", Estimate(weight, square, int(kept)))


def _apps_held(filters: Filters) -> bool:
    """Return whether the counts by app hold these filters: they know tier and action only."""
    others = (
        filters.stages or filters.services or filters.endpoints or filters.reasons or filters.arms
    )
    return not others and all(name in ("action", "tier") for name, _ in filters.out)


def _apps(
    filters: Filters, since: float, until: float, now: float
) -> Iterable[tuple[str, Estimate]]:
    """Yield the apps with the most decisions inside the filters."""
    # the other dimensions filter nothing here (`_apps_held`), so any value of theirs will do
    actions = [a for a in range(5) if filters.passes((a, 0, 0, "", "", 0, 0), but="tier")]
    tiers = [t for t in range(4) if filters.passes((0, 0, t, "", "", 0, 0), but="action")]
    where, values = rollup.within(APPS, int(since // MINUTE_S), int(until // MINUTE_S), now)
    sql = (
        "SELECT k.app, sum(r.weight), sum(r.square), sum(r.kept) FROM "  # noqa: S608
        "(SELECT key, sum(weight) AS weight, sum(square) AS square, sum(kept) AS kept FROM"
        f" {APPS.table} "
        f"WHERE {where} GROUP BY key) r JOIN {APPS.keys} k ON k.id = r.key "
        "WHERE k.action = ANY(%s) AND k.tier = ANY(%s) GROUP BY k.app ORDER BY 2 DESC, 1 LIMIT %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(sql, [*values, actions, tiers, MOST_APPS])
        for app, weight, square, kept in cursor.fetchall():
            yield app, Estimate(weight, square, int(kept))


# ---- from the rows ----

_EPOCH = Func(
    F("at"), template="extract(epoch FROM %(expressions)s)::float8", output_field=FloatField()
)
_W = 1.0 / F("inclusion_probability")


def from_rows(rows: QuerySet[Decision], filters: Filters, now: float) -> Counted:
    """Return the counts of `rows`, which are limited to the time and the apps, but not filtered
    otherwise.
    """
    window = filters.window(now)
    since, until, width = window.since, window.until, window.width
    if since is None:
        oldest = rows.order_by().aggregate(oldest=Min("at"))["oldest"]
        begin = min(oldest.timestamp(), now - MINUTE_S) if oldest else now - 3_600
        width = -(-(now - begin) // (_BUCKETS * MINUTE_S)) * MINUTE_S
        since = begin // width * width
    end = until if until is not None else (now // width + 1) * width
    tallies = tuple(_of_rows(rows))
    apps = sums((t for t in tallies if filters.passes(t.values)), lambda t: t.app)
    cells = tuple(_cells_of_rows(rows.filter(filters.condition()), since, width)) if apps else ()
    return Counted(
        since,
        width,
        max(1, round((end - since) / width)),
        tallies,
        cells,
        tuple(apps.items())[:MOST_APPS],
    )


def _of_rows(rows: QuerySet[Decision]) -> Iterable[Tally]:
    """Yield tallies of rows, separate for each app."""
    grouped = rows.values_list("app", *FACETS.fields).annotate(
        total=Sum(_W), square=Sum(_W * _W), kept=Count("*")
    )
    for app, *key, total, square, kept in grouped.order_by():
        yield Tally(_values(*key), app, Estimate(total, square, kept))


def _cells_of_rows(rows: QuerySet[Decision], since: float, width: float) -> Iterable[Cell]:
    """Yield the histogram of rows by bucket and action."""
    bucket = Floor((_EPOCH - Value(since)) / Value(width), output_field=FloatField())
    grouped = (
        rows.annotate(bucket=bucket)
        .values_list("bucket", "action")
        .annotate(total=Sum(_W), square=Sum(_W * _W), kept=Count("*"))
    )
    for number, action, weight, square, kept in grouped.order_by():
        yield _cell(since + number * width, action, weight, square, kept)
