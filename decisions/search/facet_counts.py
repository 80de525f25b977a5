"""How many decisions there were, by everything they are filtered by: from the counts kept ready, or
from the rows themselves.

Every decision answers from `decisions.counts.append`; what it does not hold (one app, one tenant,
one token, minutes of long ago) is counted from the rows, exactly the same way. Both give estimates
with their intervals.
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
    """What was counted in a window. The tallies are of all values, so that a facet can leave out
    its own filter.
    """

    since: float
    """Unix seconds at which the first bucket begins."""
    width: float
    """Seconds of a bucket."""
    buckets: int
    tallies: tuple[Tally, ...]
    cells: tuple[Cell, ...]
    """Inside the filters, by bucket and action: what a histogram draws."""
    apps: tuple[tuple[str, Estimate], ...]
    """The apps with the most, inside the filters; empty where the counts kept ready do not hold
    them.
    """
    keys: tuple[int, ...] = ()
    """Of the counts kept ready, those inside the filters."""

    def inside(self, filters: Filters, *, but: str = "") -> Iterable[Tally]:
        """The tallies inside the filters, leaving out the one called `but`."""
        return (t for t in self.tallies if filters.passes(t.values, but=but))


MOST_APPS = 8
_BUCKETS = 60


def sums(tallies: Iterable[Tally], key: Callable[[Tally], K]) -> dict[K, Estimate]:
    """Estimates by any property of a tally, the largest first."""
    out: dict[K, Estimate] = defaultdict(lambda: NOTHING)
    for tally in tallies:
        out[key(tally)] += tally.number
    return dict(sorted(out.items(), key=lambda item: -item[1].count))


# ---- from the counts kept ready
# ---------------------------------------------------------------------

_names: dict[int, Values] = {}
_names_lock = threading.Lock()
_NAMES_MOST = 200_000


def _named(numbers: Iterable[int]) -> dict[int, Values]:
    """Return what keys of FACETS mean. A key's meaning never changes, so it is remembered.

    What is returned is collected apart from what is remembered, which may be emptied meanwhile, by
    this call or by another thread.
    """
    wanted = set(numbers)
    found = {number: name for number in wanted if (name := _names.get(number)) is not None}
    if missing := wanted - found.keys():
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, {', '.join(FACETS.fields)} FROM {FACETS.keys} WHERE id = ANY(%s)",  # noqa: S608
                [list(missing)],
            )
            fresh: dict[int, Values] = {
                number: (action, stage, tier, service, f"{method} {endpoint}", reason, arm)
                for number, action, stage, tier, service, method, endpoint, reason, arm in cursor
            }
        with _names_lock:
            if len(_names) > _NAMES_MOST:
                _names.clear()
            _names.update(fresh)
        found |= fresh
    return found


def ready(filters: Filters, now: float) -> Counted:
    """Everything counted, from the counts kept ready. The window's ends are where the counts have
    theirs.
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
    cells = tuple(_cells(inside, names, since, until, width, now))
    return Counted(
        since, width, max(1, round((until - since) / width)), tallies, cells, apps, tuple(inside)
    )


def held(filters: Filters, now: float) -> bool:
    """Whether the counts kept ready are fine enough for the filters' time."""
    window = filters.window(now)
    if window.since is None or filters.start is None:
        return True
    grain = rollup.grain(now - window.since) * MINUTE_S
    return window.since % grain == 0 and (window.until or now) % grain == 0


def times(
    counted: Counted, before: uuid.UUID | None, enough: int, now: float
) -> list[tuple[float, float]]:
    """The newest times that hold `enough` decisions inside the filters, older than `before`: where
    to look for what is rare.
    """
    until = counted.since + counted.width * counted.buckets
    latest = min(until, decision_time(before.bytes) + MINUTE_S) if before else until
    some, values = rollup.within(
        FACETS, int(counted.since // MINUTE_S), int(latest // MINUTE_S) + 1, now, most=5
    )
    sql = (
        f"SELECT minute, max(greatest(span, 1)), sum(kept) FROM {FACETS.table} "  # noqa: S608
        f"WHERE {some} AND key = ANY(%s) GROUP BY minute ORDER BY minute DESC"
    )
    found: list[tuple[float, float]] = []
    with connection.cursor() as cursor:
        cursor.execute(sql, [*values, list(counted.keys)])
        kept = 0
        for minute, span, some in cursor.fetchall():
            start, end = minute * 60.0, (minute + span) * 60.0
            if found and found[-1][0] <= end:
                found[-1] = (
                    start,
                    found[-1][1],
                )  # one range for neighbours: each costs the planner every partition
            else:
                found.append((start, end))
            kept += (
                some if before is None or end < latest - MINUTE_S else 0
            )  # the cursor's own time holds newer ones too
            if kept >= enough:
                break
    return found


def before(filters: Filters, since: float, until: float, now: float) -> float:
    """Decisions inside the filters between two moments, from the counts kept ready; in proportion
    where those are coarser.
    """
    first = rollup.edge(since, now)
    rows = _grouped(first, until, now)
    names = _named(number for number, *_ in rows)
    whole = sum(weight for n, _, weight, _ in rows if n in names and filters.passes(names[n]))
    return whole * (until - since) / (until - first)


def _bounds(filters: Filters, now: float) -> tuple[float, float, float]:
    """Beginning, end and width of a bucket, in seconds."""
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
    """Key of FACETS, kept, weight and squared weight between two moments."""
    where, values = rollup.within(FACETS, int(since // MINUTE_S), int(until // MINUTE_S), now)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT key, sum(kept), sum(weight), sum(square) FROM {FACETS.table} WHERE {where}"  # noqa: S608
            " GROUP BY key",
            values,
        )
        return [(key, int(kept), weight, square) for key, kept, weight, square in cursor.fetchall()]


def _cells(
    inside: list[int],
    names: dict[int, Values],
    since: float,
    until: float,
    width: float,
    now: float,
) -> Iterable[Cell]:
    """The histogram: the keys inside the filters by bucket and action."""
    if not inside:
        return
    first, minutes = int(since // MINUTE_S), int(width // MINUTE_S)
    where, values = rollup.within(
        FACETS, first, int(until // MINUTE_S), now, most=rollup.inside(first, minutes)
    )
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
        for bucket, action, weight, square, kept in cursor.fetchall():
            yield Cell(
                since + bucket * width, action, 0, 0, "", Estimate(weight, square, int(kept))
            )


def _apps_held(filters: Filters) -> bool:
    """Whether the counts by app hold these filters: they know tier and action."""
    others = (
        filters.stages or filters.services or filters.endpoints or filters.reasons or filters.arms
    )
    return not others and all(name in ("action", "tier") for name, _ in filters.out)


def _apps(
    filters: Filters, since: float, until: float, now: float
) -> Iterable[tuple[str, Estimate]]:
    """The apps with the most decisions inside the filters."""
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


# ---- from the rows
# ---------------------------------------------------------------------

_EPOCH = Func(
    F("at"), template="extract(epoch FROM %(expressions)s)::float8", output_field=FloatField()
)
_W = 1.0 / F("inclusion_probability")


def from_rows(rows: QuerySet[Decision], filters: Filters, now: float) -> Counted:
    """Everything counted from `rows`, which are narrowed by time and app but not by the filters."""
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
    grouped = rows.values_list("app", *FACETS.fields).annotate(
        weight=Sum(_W), square=Sum(_W * _W), kept=Count("*")
    )
    for (
        app,
        action,
        stage,
        tier,
        service,
        method,
        endpoint,
        reason,
        arm,
        weight,
        square,
        kept,
    ) in grouped.order_by():
        values = (action, stage, tier, service, f"{method} {endpoint}", reason, arm)
        yield Tally(values, app, Estimate(weight, square, kept))


def _cells_of_rows(rows: QuerySet[Decision], since: float, width: float) -> Iterable[Cell]:
    bucket = Floor((_EPOCH - Value(since)) / Value(width), output_field=FloatField())
    grouped = (
        rows.annotate(bucket=bucket)
        .values_list("bucket", "action")
        .annotate(weight=Sum(_W), square=Sum(_W * _W), kept=Count("*"))
    )
    for number, action, weight, square, kept in grouped.order_by():
        yield Cell(since + number * width, action, 0, 0, "", Estimate(weight, square, kept))
