"""What was decided over time: counts from stored decisions, each row weighed by the inverse of its
inclusion probability.

Time is cut into buckets of a fixed width, aligned to the epoch. A bucket that has been over for a
while does not change any more and is remembered, so a page that refreshes every ten seconds asks
the database for the newest buckets only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from decider.contracts.vocabulary import Action, Tier
from decisions.counts import aggregate
from decisions.counts.aggregate import Cell
from decisions.models import Decision
from decisions.search import lookup

# A bucket this long over is complete: what ingest has not stored by then counts as lost or late.
SETTLED_S = 60.0


# A rate over less than this, or than a quarter of a bucket, is mostly noise.
_BEGUN_S = 15.0


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


Test = Callable[[Cell], bool]


def every(cell: Cell) -> bool:
    return True


def enterprise(cell: Cell) -> bool:
    return cell.tier == Tier.ENTERPRISE


def refused(cell: Cell) -> bool:
    return cell.action != Action.ADMIT


def shed(cell: Cell) -> bool:
    return cell.action == Action.SHED


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
        return self.count(every)

    def series(self, action: Action) -> list[float]:
        """Decisions a minute with this action, one figure a bucket."""
        return self._per_minute(lambda cell: cell.action == action)

    def shares(self, part: Test, of: Test) -> list[float]:
        """Which share of the decisions `of` are also `part`, one figure a bucket, 0 where there was
        none.
        """
        some, every = self._per_minute(lambda cell: of(cell) and part(cell)), self._per_minute(of)
        return [s / e if e else 0.0 for s, e in zip(some, every, strict=True)]

    def share(self, part: Test, of: Test) -> float | None:
        """The same share over the whole time; None when nothing was decided."""
        every = self.count(of)
        return self.count(lambda cell: of(cell) and part(cell)) / every if every else None

    def count(self, of: Test) -> float:
        """How many of these decisions there were, about."""
        return sum(cell.count for cell in self.cells if of(cell))

    def _per_minute(self, of: Test) -> list[float]:
        sums: defaultdict[float, float] = defaultdict(float)
        for cell in self.cells:
            if of(cell):
                sums[cell.start] += cell.count
        return [sums[start] * 60 / self._length(start) for start in self.starts]

    def _length(self, start: int) -> int:
        """Seconds of a bucket that lie within the time shown; the newest one may be cut off."""
        return min(self.bucket_s, self.until - start)


def mix_over(span: Range, until: float) -> Mix:
    """The mix of the last `span` up to `until`. The newest bucket is left out while it has only
    just begun.
    """
    end = math.floor(until)
    newest = end - end % span.bucket_s
    if end - newest < min(span.bucket_s / 4, _BEGUN_S):
        end = newest
    since = newest - span.length_s + (span.bucket_s if end > newest else 0)
    starts = range(since, end, span.bucket_s)
    known = {
        start: _settled[span.bucket_s, start]
        for start in starts
        if (span.bucket_s, start) in _settled
    }
    missing = [start for start in starts if start not in known]
    fresh = _count(missing[0], end, span.bucket_s) if missing else []
    for start in missing:
        known[start] = [cell for cell in fresh if cell.start == start]
    _remember(
        span,
        {start: known[start] for start in missing if start + span.bucket_s + SETTLED_S < until},
    )
    return Mix(since, end, span.bucket_s, tuple(cell for start in starts for cell in known[start]))


def mix_lately(until: float, seconds: int = 60) -> Mix:
    """The last `seconds` in one piece."""
    end = math.floor(until)
    return Mix(end - seconds, end, seconds, tuple(_count(end - seconds, end, seconds)))


def oldest_decision() -> float | None:
    """Unix seconds of the oldest stored decision; None when there is none."""
    first = Decision.objects.order_by("id").values_list("at", flat=True).first()
    return first.timestamp() if first else None


def _count(since: int, until: int, width: int) -> list[Cell]:
    return aggregate.cells(lookup.within(Decision.objects.all(), since, until), since, width)


def forget_buckets() -> None:
    """Drops what is remembered, for a database whose past has changed."""
    _settled.clear()


# Complete buckets by width and start; each worker process remembers its own, so nothing unpickled
# comes over a wire.
_settled: dict[tuple[int, int], list[Cell]] = {}
_MOST_SETTLED = 1_000


def _remember(span: Range, buckets: dict[int, list[Cell]]) -> None:
    if len(_settled) + len(buckets) > _MOST_SETTLED:
        _settled.clear()
    _settled.update({(span.bucket_s, start): cells for start, cells in buckets.items()})
