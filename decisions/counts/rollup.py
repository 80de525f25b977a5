"""Blocks of several lengths over the counts kept ready, so that a window of any length is answered
from few rows.

What ingest appended (span 0) becomes minutes; minutes that are over are added up again in blocks of
5 and 30 minutes, 3 hours and a day, beside the finer ones. Fine levels are dropped when nobody asks
for them any more. Every level holds the same decisions up to where it is complete, so a time is
covered by the largest blocks that fit (as the dyadic intervals of a segment tree cover a range),
and what was stored late is added to all levels that had passed its minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from django.db import connection, transaction

from decisions.counts.append import FAMILIES, MINUTE_S, Family

# Advisory lock of compaction: one process at a time.
LOCK = 0x51_C1_CE_02
# A minute is over for ingest this long after its beginning; what comes later still is late.
SETTLED_S = 120
# Longer than any installation lives.
FOR_GOOD_S = 1e11


@dataclass(frozen=True, slots=True)
class Level:
    """Rows of `span` minutes, for times at most `kept_s` seconds ago."""

    span: int
    kept_s: float


# Each length divides the next.
LEVELS = (
    Level(1, 7 * 3_600.0),
    Level(5, 7 * 3_600.0),
    Level(30, 26 * 3_600.0),
    Level(180, FOR_GOOD_S),
    Level(1_440, FOR_GOOD_S),
)


def grain(age_s: float) -> int:
    """Minutes of the finest row that holds a moment so long ago."""
    return next(level.span for level in LEVELS if age_s <= level.kept_s)


def edge(at: float, now: float) -> float:
    """The last moment, not after `at`, at which a row that is kept then begins. All in unix
    seconds.
    """
    begins = (at // (MINUTE_S * level.span) * MINUTE_S * level.span for level in LEVELS)
    return next(
        begin for begin, level in zip(begins, LEVELS, strict=True) if now - begin <= level.kept_s
    )


# ---- reading
# ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one length that stand for a time: minutes since 1970, `until` exclusive."""

    span: int
    since: int
    until: int


def cover(
    since: int, until: int, now: float, complete: dict[int, int], *, most: int = LEVELS[-1].span
) -> list[Stretch]:
    """The stretches that answer for [since, until) minutes, each decision once, in time order.

    `complete` says up to which minute each level is (`completeness`). No block is longer than
    `most` minutes where a shorter one is kept. Ends that no block is kept for are left out: a
    window of `Filters` has none.
    """
    first_kept = _first_kept(now, complete)
    out: list[Stretch] = []
    at = since
    while at < until:
        kept = [span for span, first in first_kept.items() if at >= first]
        fits = [
            span
            for span in kept
            if at % span == 0 and (span == 1 or at + span <= min(until, complete.get(span, 0)))
        ]
        if not fits:
            at += kept[0] - at % kept[0]
            continue
        short = [span for span in fits if span <= most]
        span = max(short) if short else min(fits)
        if out and out[-1].span == span and out[-1].until == at:
            out[-1] = Stretch(span, out[-1].since, at + span)
        else:
            out.append(Stretch(span, at, at + span))
        at += span
    return out


def _first_kept(now: float, complete: dict[int, int]) -> dict[int, float]:
    """The first minute of which each level still has rows: compaction that is behind has dropped
    nothing it still needs.
    """
    coarser = {level.span: after.span for level, after in pairwise(LEVELS)}
    return {
        level.span: min(
            (now - level.kept_s) // MINUTE_S, complete.get(coarser.get(level.span, 0), 0)
        )
        for level in LEVELS
    }


def inside(first: int, minutes: int) -> int:
    """The longest block that never reaches over the edge of a bucket of `minutes` that begins at
    `first`.
    """
    return max(
        level.span for level in LEVELS if minutes % level.span == 0 and first % level.span == 0
    )


def completeness(family: Family) -> dict[int, int]:
    """Up to which minute, exclusive, each level holds what was compacted. Only grows, so an old
    answer is a safe one.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT span, minute FROM decisions_countlevel WHERE counts = %s", [family.table]
        )
        return dict(cursor.fetchall())


def within(
    family: Family, since: int, until: int, now: float, *, most: int = LEVELS[-1].span
) -> tuple[str, list[int]]:
    """An SQL condition on a family's rows, and its parameters: the rows that answer for [since,
    until) minutes, as `cover`.

    One statement with this condition sees each decision once, whatever compaction does meanwhile.
    """
    stretches = cover(since, until, now, completeness(family), most=most)
    parts, values = ["span = 0 AND minute >= %s AND minute < %s"], [since, until]
    for one in stretches:
        parts.append("span = %s AND minute >= %s AND minute < %s")
        values += [one.span, one.since, one.until]
    return f"(({') OR ('.join(parts)}))", values


def oldest(family: Family) -> int | None:
    """The first minute that anything is counted in, or the block it is in; None when nothing is."""
    spans = [0, *(level.span for level in LEVELS)]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT min(first) FROM unnest(%s) AS one, "  # noqa: S608
            f"LATERAL (SELECT min(minute) AS first FROM {family.table} WHERE span = one) AS found",
            [spans],
        )
        first: int | None = cursor.fetchone()[0]
        return first


# ---- compaction
# ---------------------------------------------------------------------


def compact(now: float) -> int:
    """Takes in what ingest appended, completes levels, drops fine rows that are old. Returns how
    many rows were taken in.
    """
    return sum(_compact(family, now) for family in FAMILIES)


@transaction.atomic
def _compact(family: Family, now: float) -> int:
    """One family. Readers see the rows before or after, never both."""
    settled = int((now - SETTLED_S) // MINUTE_S)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
    complete = completeness(family)
    taken = _take_in(family, settled, complete)
    for finer, level in pairwise(LEVELS):
        _complete(family, finer, level, settled, complete.get(level.span))
    _drop_old(family, now)
    return taken


def _take_in(family: Family, settled: int, complete: dict[int, int]) -> int:
    """Appended rows become minutes; what came late is added to the levels that had passed its
    minute.
    """
    parts, values = ["SELECT minute, 1 AS span, key, kept, weight, square FROM taken"], [settled]
    for span, until in complete.items():
        parts.append(
            "SELECT minute / %s * %s, %s, key, kept, weight, square FROM taken WHERE minute < %s"
        )
        values += [span, span, span, until]
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH taken AS (DELETE FROM {family.table} WHERE span = 0 AND minute < %s "  # noqa: S608
            "RETURNING *), "
            f"made AS (INSERT INTO {family.table} (minute, span, key, kept, weight, square) "
            "SELECT minute, span, key, sum(kept), sum(weight), sum(square) "
            f"FROM ({' UNION ALL '.join(parts)}) AS spread GROUP BY 1, 2, 3) SELECT count(*) FROM"
            " taken",
            values,
        )
        return int(cursor.fetchone()[0])


def _complete(family: Family, finer: Level, level: Level, settled: int, since: int | None) -> None:
    """Makes the blocks of a level that ended since it was last completed, out of the next finer
    one.
    """
    until = settled // level.span * level.span
    with connection.cursor() as cursor:
        if since is None:
            cursor.execute(f"SELECT min(minute) FROM {family.table} WHERE span = %s", [finer.span])  # noqa: S608
            since = min(until, cursor.fetchone()[0] or until) // level.span * level.span
        elif since >= until:
            return
        cursor.execute(
            f"INSERT INTO {family.table} (minute, span, key, kept, weight, square) "  # noqa: S608
            "SELECT minute / %s * %s, %s, key, sum(kept), sum(weight), sum(square) FROM"
            f" {family.table} "
            "WHERE span = %s AND minute >= %s AND minute < %s GROUP BY 1, key",
            [level.span, level.span, level.span, finer.span, since, until],
        )
        cursor.execute(
            "INSERT INTO decisions_countlevel (counts, span, minute) VALUES (%s, %s, %s) "
            "ON CONFLICT (counts, span) DO UPDATE SET minute = excluded.minute",
            [family.table, level.span, until],
        )


def _drop_old(family: Family, now: float) -> None:
    with connection.cursor() as cursor:
        for level in LEVELS:
            first = int((now - level.kept_s) // MINUTE_S)
            cursor.execute(
                f"DELETE FROM {family.table} WHERE span = %s AND minute < %s",  # noqa: S608
                [level.span, first],
            )


def drop(keep_days: int, now: float) -> int:
    """Drops counts of days that are no longer stored. Returns how many rows."""
    first = int(now // 86_400 - keep_days) * 1_440
    with connection.cursor() as cursor:
        dropped = 0
        for family in FAMILIES:
            cursor.execute(f"DELETE FROM {family.table} WHERE minute < %s", [first])  # noqa: S608
            dropped += cursor.rowcount
        return dropped
