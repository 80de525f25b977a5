"""What was decided over time, counted from stored decisions, each weighted by 1/inclusion
probability.

Time is cut into buckets of a fixed width, aligned to the epoch. A bucket that ended a while ago
does not change any more and is remembered. So a page that refreshes every ten seconds asks the
database for the newest buckets only.
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

# Seconds after its end when a bucket counts as complete: what is stored later is not counted.
SETTLED_S = 60.0


# Seconds. A rate over less time than this, or than a quarter of a bucket, is mostly noise.
_BEGUN_S = 15.0


@dataclass(frozen=True)
class Range:
    """A length of time that the page can show."""

    key: str
    label: str
    length_s: int
    bucket_s: int


# Each range has 60 to 90 buckets, which is as many columns as a chart can show apart.
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
    """Accept every cell."""
    return True


def enterprise(cell: Cell) -> bool:
    """Accept cells of the enterprise tier."""
    return cell.tier == Tier.ENTERPRISE


def refused(cell: Cell) -> bool:
    """Accept cells that were not admitted."""
    return cell.action != Action.ADMIT


def shed(cell: Cell) -> bool:
    """Accept cells that were shed."""
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
        """Length of the time shown, minutes."""
        return (self.until - self.since) / 60

    @property
    def starts(self) -> range:
        """Beginnings of the buckets, unix seconds."""
        return range(self.since, self.until, self.bucket_s)

    @property
    def kept(self) -> int:
        """Stored decisions that the counts rest on."""
        return sum(cell.kept for cell in self.cells)

    @property
    def total(self) -> float:
        """Decisions in all, estimated."""
        return self.count(every)

    def series(self, action: Action) -> list[float]:
        """Return the decisions a minute with this action, one figure a bucket."""
        return self._per_minute(lambda cell: cell.action == action)

    def shares(self, part: Test, of: Test) -> list[float]:
        """Return the share of the decisions `of` that are also `part`, 0 to 1, one figure a bucket.
        The figure is 0 for a bucket in which no decision passes `of`.
        """
        some, every = self._per_minute(lambda cell: of(cell) and part(cell)), self._per_minute(of)
        return [s / e if e else 0.0 for s, e in zip(some, every, strict=True)]

    def share(self, part: Test, of: Test) -> float | None:
        """Return this share over the whole time of the mix; None when no decision passes `of`."""
        every = self.count(of)
        return self.count(lambda cell: of(cell) and part(cell)) / every if every else None

    def count(self, of: Test) -> float:
        """Estimate how many decisions pass the test `of`."""
        return sum(cell.count for cell in self.cells if of(cell))

    def _per_minute(self, of: Test) -> list[float]:
        """Return the decisions a minute that pass a test, one figure a bucket."""
        sums: defaultdict[float, float] = defaultdict(float)
        for cell in self.cells:
            if of(cell):
                sums[cell.start] += cell.count
        return [sums[start] * 60 / self._length(start) for start in self.starts]

    def _length(self, start: int) -> int:
        """Return the seconds of a bucket within the time shown; the newest may be cut off."""
        return min(self.bucket_s, self.until - start)


def mix_over(span: Range, until: float) -> Mix:
    """Return the mix of the last `span` up to `until` (unix seconds).

    The newest bucket is left out while it has only just begun.
    """
    end = math.floor(until)
    newest = end - end % span.bucket_s
    if end - newest < min(span.bucket_s / 4, _BEGUN_S):
        end = newest
    since = newest - span.length_s + (span.bucket_s if end > newest else 0)
    starts = range(since, end, span.bucket_s)
    # Each is looked up only once: another thread may empty `_settled` between two look-ups.
    known = {
        start: cells
        for start in starts
        if (cells := _settled.get((span.bucket_s, start))) is not None
    }
    missing = [start for start in starts if start not in known]
    fresh = _count(missing[0], end, span.bucket_s) if missing else []
    for start in missing:
        known[start] = [cell for cell in fresh if cell.start == start]
    settled = [start for start in missing if start + span.bucket_s + SETTLED_S < until]
    _remember(span, {start: known[start] for start in settled})
    return Mix(since, end, span.bucket_s, tuple(cell for start in starts for cell in known[start]))


def mix_lately(until: float, seconds: int = 60) -> Mix:
    """Return the mix of the last `seconds` up to `until` (unix seconds), in one bucket."""
    end = math.floor(until)
    return Mix(end - seconds, end, seconds, tuple(_count(end - seconds, end, seconds)))


def oldest_decision() -> float | None:
    """Return the time of the oldest stored decision, unix seconds; None when there is none."""
    first = Decision.objects.order_by("id").values_list("at", flat=True).first()
    return first.timestamp() if first else None


def _count(since: int, until: int, width: int) -> list[Cell]:
    """Count stored decisions from `since` until `until` in buckets of `width` seconds."""
    return aggregate.cells(lookup.within(Decision.objects.all(), since, until), since, width)


def forget_buckets() -> None:
    """Drop the remembered buckets, for a database whose past has changed."""
    _settled.clear()


# Complete buckets by width and start. Each worker process remembers its own, because a shared cache
# would unpickle what comes over the network.
_settled: dict[tuple[int, int], list[Cell]] = {}
# Most remembered buckets. All ranges together have about 370, so this is reached only as time goes
# on. Then all are dropped, which costs one full read.
_MOST_SETTLED = 1_000


def _remember(span: Range, buckets: dict[int, list[Cell]]) -> None:
    """Keep complete buckets for the next request."""
    if len(_settled) + len(buckets) > _MOST_SETTLED:
        _settled.clear()
    _settled.update({(span.bucket_s, start): cells for start, cells in buckets.items()})
