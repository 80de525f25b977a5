"""Blocks of several lengths over the counts kept ready, so that a window of any length is answered
from few rows.

The rows that ingest appended (span 0) become rows of one minute. Minutes that are over are added up
again in blocks of 5 and 30 minutes, 3 hours and a day, beside the finer ones. Fine levels are
dropped when nobody asks for them any more. Every level holds the same decisions up to where it is
complete, so the largest blocks that fit cover a time (as the dyadic intervals of a segment tree
cover a range). Decisions that are stored late are added to all levels that were already complete up
to a later minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from django.db import connection, transaction

from decisions.counts.append import FAMILIES, MINUTE_S, Family

# Advisory lock of compaction: one process at a time, or two would build the same blocks. The number
# is ours alone in PostgreSQL's one space of such keys.
LOCK = 0x51_C1_CE_02
# Seconds from the beginning of a minute until it is compacted. Chosen: the minute itself, and one
# more for batches on their way. A batch that comes even later is added to each level by itself.
SETTLED_S = 120
# Seconds, longer than any installation lives: `drop` removes these levels with the decisions' days.
FOR_GOOD_S = 1e11


@dataclass(frozen=True, slots=True)
class Level:
    """Rows of `span` minutes, for times at most `kept_s` seconds ago."""

    span: int
    kept_s: float


# Each length divides the next, so that a block is a sum of finer ones. A level is kept an hour or
# two longer than the longest range that is drawn with it: 6 h with blocks of 1 and 5 minutes, 24 h
# with blocks of 30 minutes.
LEVELS = (
    Level(1, 7 * 3_600.0),
    Level(5, 7 * 3_600.0),
    Level(30, 26 * 3_600.0),
    Level(180, FOR_GOOD_S),
    Level(1_440, FOR_GOOD_S),
)


def grain(age_s: float) -> int:
    """Return the length in minutes of the finest row that still holds a moment `age_s` seconds
    ago.
    """
    return next(level.span for level in LEVELS if age_s <= level.kept_s)


def edge(at: float, now: float) -> float:
    """Return the start of the newest kept rollup row that covers `at`. All in unix seconds."""
    begins = (at // (MINUTE_S * level.span) * MINUTE_S * level.span for level in LEVELS)
    return next(
        begin for begin, level in zip(begins, LEVELS, strict=True) if now - begin <= level.kept_s
    )


# ---- reading ----


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time that rows of one length (`span` minutes) cover, in minutes since 1970, `until`
    exclusive.
    """

    span: int
    since: int
    until: int


def cover(
    since: int, until: int, now: float, complete: dict[int, int], *, most: int = LEVELS[-1].span
) -> list[Stretch]:
    """Return the stretches that cover [since, until) minutes, each decision once, in time order.

    `complete`: the minute up to which each level is complete (`completeness`). `most`: use no block
    longer than this many minutes where a shorter one is kept. Ends that no kept block covers are
    left out; a window of `Filters` has no such ends.
    """
    first_kept = _first_kept(now, complete)
    out: list[Stretch] = []
    at = since
    while at < until:
        kept = [span for span, first in first_kept.items() if at >= first]
        # a block fits when it begins here, ends in time, and holds all of its decisions already
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
        _extend(out, span, at)
        at += span
    return out


def _extend(stretches: list[Stretch], span: int, at: int) -> None:
    """Add a block to the last stretch when it continues it, else as a new one. One condition for
    neighbours keeps the SQL short.
    """
    if stretches and stretches[-1].span == span and stretches[-1].until == at:
        stretches[-1] = Stretch(span, stretches[-1].since, at + span)
    else:
        stretches.append(Stretch(span, at, at + span))


def _first_kept(now: float, complete: dict[int, int]) -> dict[int, float]:
    """Return the first minute of which each level still has rows. Rows are dropped only after the
    next level was completed, so rows that it lacks are still there, however old.
    """
    coarser = {level.span: after.span for level, after in pairwise(LEVELS)}
    return {
        level.span: min(
            (now - level.kept_s) // MINUTE_S, complete.get(coarser.get(level.span, 0), 0)
        )
        for level in LEVELS
    }


def inside(first: int, minutes: int) -> int:
    """Return the length in minutes of the longest block that never crosses the edge of a bucket.
    Buckets last `minutes` each, and the first one begins at `first` (minutes since 1970).
    """
    return max(
        level.span for level in LEVELS if minutes % level.span == 0 and first % level.span == 0
    )


def completeness(family: Family) -> dict[int, int]:
    """Return the minute, exclusive, up to which each level is complete, by the level's span. These
    minutes only grow, so an old answer is safe to use.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT span, minute FROM decisions_countlevel WHERE counts = %s", [family.table]
        )
        return dict(cursor.fetchall())


def within(
    family: Family, since: int, until: int, now: float, *, most: int = LEVELS[-1].span
) -> tuple[str, list[int]]:
    """Return an SQL condition, and its parameters, for the rows of a family that cover [since,
    until) minutes, chosen as in `cover`.

    One statement with this condition sees each decision once, whatever compaction does meanwhile.
    """
    stretches = cover(since, until, now, completeness(family), most=most)
    # appended rows that compaction has not reached yet count as they are
    parts, values = ["span = 0 AND minute >= %s AND minute < %s"], [since, until]
    for one in stretches:
        parts.append("span = %s AND minute >= %s AND minute < %s")
        values += [one.span, one.since, one.until]
    return f"(({') OR ('.join(parts)}))", values


def oldest(family: Family) -> int | None:
    """Return the first minute that is counted, or the start of the block that holds it; None when
    nothing is counted.
    """
    spans = [0, *(level.span for level in LEVELS)]
    with connection.cursor() as cursor:
        cursor.execute(
            # one index look-up per level; min(minute) over the table would scan it
            "SELECT min(first) FROM unnest(%s) AS one, "  # noqa: S608
            f"LATERAL (SELECT min(minute) AS first FROM {family.table} WHERE span = one) AS found",
            [spans],
        )
        first: int | None = cursor.fetchone()[0]
        return first


# ---- compaction ----


def compact(now: float) -> int:
    """Compact the rows that ingest appended: complete the levels, drop old fine rows. Return how
    many rows were compacted.
    """
    return sum(_compact(family, now) for family in FAMILIES)


@transaction.atomic
def _compact(family: Family, now: float) -> int:
    """Compact one family in one transaction: readers see the rows before or after, never both."""
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
    """Turn appended rows into rows of one minute; add late ones to the levels that are already
    complete up to a later minute. Return how many rows were compacted.
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
    """Create the blocks that a level lacks up to the minute `settled`, as sums of the next finer
    level's rows.
    """
    until = settled // level.span * level.span
    with connection.cursor() as cursor:
        if since is None:
            # a new level begins with the oldest block of the finer one
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
    """Delete the rows that are older than their level is kept."""
    with connection.cursor() as cursor:
        for level in LEVELS:
            first = int((now - level.kept_s) // MINUTE_S)
            cursor.execute(
                f"DELETE FROM {family.table} WHERE span = %s AND minute < %s",  # noqa: S608
                [level.span, first],
            )


def drop(keep_days: int, now: float) -> int:
    """Delete the counts of days whose decisions are no longer stored. Return how many rows were
    deleted.
    """
    first = int(now // 86_400 - keep_days) * 1_440
    with connection.cursor() as cursor:
        dropped = 0
        for family in FAMILIES:
            cursor.execute(f"DELETE FROM {family.table} WHERE minute < %s", [first])  # noqa: S608
            dropped += cursor.rowcount
        return dropped
