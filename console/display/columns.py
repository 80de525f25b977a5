"""Geometry of the charts of this room: stacked columns over time, x in percent of the plot, y in
pixels from the top.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from decider.contracts.vocabulary import Action
from decisions.counts.aggregate import Cell
from decisions.counts.estimate import NOTHING, Estimate

# Height of the smallest count that is not zero, pixels: nothing that happened is invisible.
SMALLEST = 2.0
_STEPS = (1, 5, 10, 15, 30, 60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 604_800)


@dataclass(frozen=True, slots=True)
class Piece:
    """One rectangle."""

    word: str
    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Label:
    """A text on an axis: `at` in percent (time) or pixels (counts)."""

    at: float
    text: str
    anchor: str = "middle"
    at_text: float = 0.0
    """Baseline of a count's text, pixels."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A chart of counts by action over time."""

    pieces: tuple[Piece, ...]
    times: tuple[Label, ...]
    counts: tuple[Label, ...]
    top: float
    """The count at full height."""
    peak_at: float
    """Unix seconds of the fullest bucket."""
    peak: Estimate
    """What it holds."""
    peak_x: float
    """Its place, percent."""
    rows: tuple[tuple[float, tuple[float, ...]], ...]
    """The same as a table: bucket start, count of each action."""


def columns(
    found: Iterable[Cell],
    since: float,
    width: float,
    count: int,
    floor: float,
    height: float,
    *,
    exact: bool = False,
) -> Columns:
    """`count` buckets of `width` seconds from `since`; the columns stand on `floor`, at most
    `height` pixels high.

    `exact`: the fullest bucket has the full height, for a chart without an axis of counts.
    """
    buckets: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    sums: dict[int, Estimate] = {}
    for cell in found:
        k = round((cell.start - since) / width)
        if 0 <= k < count:
            buckets[k][cell.action] += cell.count
            sums[k] = sums.get(k, NOTHING) + cell.number
    peak_k = max(sums, key=lambda k: sums[k].count, default=0)
    peak = sums.get(peak_k, NOTHING)
    top = max(peak.count, 1.0) if exact else ceiling(peak.count)
    slot = 100 / count
    return Columns(
        pieces=tuple(
            p
            for k in sorted(buckets)
            for p in _stack(buckets[k], k * slot, slot * 0.8, floor, height / top)
        ),
        times=times(since, since + width * count),
        counts=tuple(
            Label(floor - height * share, f"{top * share:,.0f}", "end", floor - height * share + 4)
            for share in (0, 0.5, 1)
        ),
        top=top,
        peak_at=since + peak_k * width,
        peak=peak,
        peak_x=round(peak_k * slot, 2),
        rows=tuple(
            (since + k * width, tuple(buckets[k].get(int(a), 0.0) for a in Action))
            for k in sorted(buckets)
        ),
    )


def _stack(
    bucket: dict[int, float], x: float, width: float, floor: float, scale: float
) -> list[Piece]:
    pieces, y = [], floor
    for action in sorted(bucket):
        if bucket[action] > 0:
            tall = max(SMALLEST, bucket[action] * scale)
            y -= tall
            pieces.append(
                Piece(
                    Action(action).word, round(x, 2), round(width, 2), round(y, 1), round(tall, 1)
                )
            )
    return pieces


def ceiling(value: float) -> float:
    """The smallest of 1, 2, 4, 6, 8, 10 times a power of ten that is not below `value`; at
    least 2.
    """
    if not value > 2:
        return 2.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 4, 6, 8, 10) if step * unit >= value)


def times(since: float, until: float, most: int = 5) -> tuple[Label, ...]:
    """Round UTC times between two moments, with their place in percent; none so near an edge that
    its text would be cut.
    """
    room = until - since
    step = next((s for s in _STEPS if room / s <= most), _STEPS[-1])
    first = math.ceil(since / step) * step
    places = [(100 * (t - since) / room, t) for t in range(first, math.floor(until) + 1, step)]
    return tuple(Label(round(at, 2), _clock(t, step)) for at, t in places if 3 <= at <= 97)


def _clock(at: int, step: int) -> str:
    clock = f"{at // 3600 % 24:02d}:{at // 60 % 60:02d}"
    if step >= 86_400:
        days = at // 86_400
        return ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")[days % 7] + f", {clock}"
    return clock if step >= 60 else f"{clock}:{at % 60:02d}"
