"""Stacked columns of decisions by action over time: x in percent of the plot, y in pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from console.display import charts
from decider.contracts.vocabulary import Action
from decisions.counts.aggregate import Cell
from decisions.counts.estimate import NOTHING, Estimate

# Least height of a count above zero, pixels, so that every such count can be seen.
SMALLEST = 2.0
# Share of a bucket's width that its column takes; the rest is the gap to the next one. Chosen by
# eye.
_COLUMN_SHARE = 0.8
# Most labels of a time axis, not counting one at its edge. Chosen: texts with seconds (14:05:30) do
# not touch in the narrowest of these charts.
_TIME_LABELS = 5
# Pixels from a grid line down to the baseline of its label, so that it stands level with the line.
_BASELINE = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """One rectangle: an action's part of a column."""

    word: str
    """The action."""
    x: float
    """Percent."""
    width: float
    """Percent."""
    y: float
    """Upper edge, pixels from the top."""
    height: float
    """Pixels."""


@dataclass(frozen=True, slots=True)
class CountLabel:
    """A figure on the axis of counts."""

    at: float
    """Its grid line, pixels from the top."""
    text: str
    at_text: float
    """Baseline of its text, pixels from the top."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A chart of counts by action over time."""

    pieces: tuple[Piece, ...]
    times: tuple[charts.Tick, ...]
    counts: tuple[CountLabel, ...]
    top: float
    """The count at full height."""
    peak_at: float
    """Unix seconds of the start of the fullest bucket."""
    peak: Estimate
    """Decisions in the fullest bucket."""
    peak_x: float
    """Left edge of the fullest bucket, percent."""
    rows: tuple[tuple[float, tuple[float, ...]], ...]
    """The same as a table: start of the bucket (unix seconds), count of each action."""


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
    """Return the chart of `count` buckets of `width` seconds from `since` (unix seconds).

    The columns stand on `floor`, pixels from the top, and are at most `height` pixels high. With
    `exact` the fullest bucket has the full height, for a chart without an axis of counts.
    """
    buckets, sums = _filled(found, since, width, count)
    fullest = max(sums, key=lambda k: sums[k].count, default=0)
    peak = sums.get(fullest, NOTHING)
    top = (
        max(peak.count, 1.0)
        if exact
        else charts.nice_ceiling(peak.count, charts.EVEN_TOPS, least=2.0)
    )
    slot = 100 / count
    return Columns(
        pieces=tuple(
            piece
            for k in sorted(buckets)
            for piece in _stack(buckets[k], k * slot, slot * _COLUMN_SHARE, floor, height / top)
        ),
        times=tuple(charts.time_ticks(since, since + width * count, _TIME_LABELS)),
        counts=_count_labels(top, floor, height),
        top=top,
        peak_at=since + fullest * width,
        peak=peak,
        peak_x=round(fullest * slot, 2),
        rows=tuple(
            (since + k * width, tuple(buckets[k].get(int(action), 0.0) for action in Action))
            for k in sorted(buckets)
        ),
    )


def _filled(
    found: Iterable[Cell], since: float, width: float, count: int
) -> tuple[dict[int, dict[int, float]], dict[int, Estimate]]:
    """Return, by bucket, the count of each action and the estimate of all of them."""
    buckets: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    sums: dict[int, Estimate] = {}
    for cell in found:
        # cells start on the grid; rounding undoes the error of float times
        k = round((cell.start - since) / width)
        if 0 <= k < count:
            buckets[k][cell.action] += cell.count
            sums[k] = sums.get(k, NOTHING) + cell.number
    return buckets, sums


def _stack(
    bucket: dict[int, float], x: float, width: float, floor: float, scale: float
) -> list[Piece]:
    """Return the pieces of one column from the floor up; `scale` is pixels for each decision."""
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


def _count_labels(top: float, floor: float, height: float) -> tuple[CountLabel, ...]:
    """Return the labels at zero, at half of `top` and at `top`."""
    return tuple(
        CountLabel(
            floor - height * share, f"{top * share:,.0f}", floor - height * share + _BASELINE
        )
        for share in (0, 0.5, 1)
    )
