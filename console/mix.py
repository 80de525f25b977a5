"""What was decided over time: counts from stored decisions, each row weighed by the inverse of its inclusion probability.

Time is cut into buckets of a fixed width, aligned to the epoch. A bucket that has been over for a while does not change any
more and is remembered, so a page that refreshes every ten seconds asks the database for the newest buckets only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import connection

from decider.vocabulary import Action, Stage, Tier

SETTLED_S = 60.0
"""A bucket this long over is complete: what ingest has not stored by then counts as lost or late."""


@dataclass(frozen=True)
class Range:
    """A length of time a page can show."""

    key: str
    label: str
    length_s: int
    bucket_s: int


RANGES: dict[str, Range] = {
    r.key: r
    for r in (
        Range("15m", "15 min", 900, 15),
        Range("1h", "1 h", 3_600, 60),
        Range("3h", "3 h", 10_800, 120),
        Range("24h", "24 h", 86_400, 1_200),
        Range("7d", "7 d", 604_800, 7_200),
    )
}


@dataclass(frozen=True)
class Cell:
    """Decisions of one kind in one bucket."""

    start: int
    """Unix seconds at which the bucket begins."""
    action: Action
    stage: Stage
    service: str
    enterprise: bool
    count: float
    """Weighted: how many decisions there were, about."""
    kept: int
    """Stored rows it was estimated from."""


@dataclass(frozen=True)
class Mix:
    """Decisions from `since` until `until` (unix seconds), in buckets of `bucket_s`."""

    since: int
    until: int
    bucket_s: int
    cells: tuple[Cell, ...]

    @property
    def minutes(self) -> float:
        return (self.until - self.since) / 60

    @property
    def starts(self) -> range:
        return range(self.since, self.until, self.bucket_s)

    @property
    def kept(self) -> int:
        return sum(cell.kept for cell in self.cells)

    @property
    def total(self) -> float:
        return sum(cell.count for cell in self.cells)

    def series(self, action: Action) -> list[float]:
        """Decisions a minute with this action, one figure a bucket."""
        return self._per_minute(cell for cell in self.cells if cell.action == action)

    def shares(self, *, enterprise: bool = False, action: Action | None = None) -> list[float]:
        """Share of decisions that were `action` (None: anything but admit), one figure a bucket, 0 where there was none."""
        chosen = [cell for cell in self.cells if cell.enterprise or not enterprise]
        every = self._per_minute(chosen)
        some = self._per_minute(cell for cell in chosen if (cell.action == action if action else cell.action != Action.ADMIT))
        return [s / e if e else 0.0 for s, e in zip(some, every, strict=True)]

    def share(self, *, enterprise: bool = False, action: Action | None = None) -> float | None:
        """The same share over the whole time; None when nothing was decided."""
        chosen = [cell for cell in self.cells if cell.enterprise or not enterprise]
        every = sum(cell.count for cell in chosen)
        some = sum(cell.count for cell in chosen if (cell.action == action if action else cell.action != Action.ADMIT))
        return some / every if every else None

    def _per_minute(self, cells: Iterable[Cell]) -> list[float]:
        sums: defaultdict[int, float] = defaultdict(float)
        for cell in cells:
            sums[cell.start] += cell.count
        return [sums[start] * 60 / self._length(start) for start in self.starts]

    def _length(self, start: int) -> int:
        """Seconds of a bucket that lie within the time shown; the newest one may be cut off."""
        return min(self.bucket_s, self.until - start)


def over(span: Range, until: float) -> Mix:
    """The mix of the last `span` up to `until`. The newest bucket is left out while less than a quarter of it has passed."""
    end = math.floor(until)
    newest = end - end % span.bucket_s
    if end - newest < span.bucket_s / 4:
        end = newest
    since = newest - span.length_s + (span.bucket_s if end > newest else 0)
    starts = range(since, end, span.bucket_s)
    known = {start: _settled[span.bucket_s, start] for start in starts if (span.bucket_s, start) in _settled}
    missing = [start for start in starts if start not in known]
    fresh = _query(missing[0], end, span.bucket_s) if missing else []
    for start in missing:
        known[start] = [cell for cell in fresh if cell.start == start]
    _remember(span, {start: known[start] for start in missing if start + span.bucket_s + SETTLED_S < until})
    return Mix(since, end, span.bucket_s, tuple(cell for start in starts for cell in known[start]))


def lately(until: float, seconds: int = 60) -> Mix:
    """The last `seconds` in one piece."""
    end = math.floor(until)
    return Mix(end - seconds, end, seconds, tuple(_query(end - seconds, end, seconds, align=end - seconds)))


def oldest() -> float | None:
    """Unix seconds of the oldest stored decision; None when there is none."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM at)::float8 FROM decisions_decision ORDER BY id LIMIT 1")
        row = cursor.fetchone()
    return row[0] if row else None


_SQL = """
SELECT %(align)s + floor((extract(epoch FROM at) - %(align)s) / %(width)s)::bigint * %(width)s AS start,
       action, stage, service, tier = %(enterprise)s, sum(1 / inclusion_probability), count(*)
FROM decisions_decision
WHERE at >= to_timestamp(%(since)s) AND at < to_timestamp(%(until)s)
GROUP BY 1, 2, 3, 4, 5
"""


def _query(since: int, until: int, width: int, align: int = 0) -> list[Cell]:
    values = {"since": since, "until": until, "width": width, "align": align, "enterprise": int(Tier.ENTERPRISE)}
    with connection.cursor() as cursor:
        cursor.execute(_SQL, values)
        return [
            Cell(int(start), Action(action), Stage(stage), service, enterprise, count, kept)
            for start, action, stage, service, enterprise, count, kept in cursor.fetchall()
        ]


def forget() -> None:
    """Drops what is remembered, for a database whose past has changed."""
    _settled.clear()


_settled: dict[tuple[int, int], list[Cell]] = {}
"""Complete buckets by width and start; each worker process remembers its own, so nothing unpickled comes over a wire."""
_MOST_SETTLED = 1_000


def _remember(span: Range, buckets: dict[int, list[Cell]]) -> None:
    if len(_settled) + len(buckets) > _MOST_SETTLED:
        _settled.clear()
    _settled.update({(span.bucket_s, start): cells for start, cells in buckets.items()})
