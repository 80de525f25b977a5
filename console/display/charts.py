"""Shapes of server-rendered charts: pure functions from figures to SVG coordinates and paths.

The outer `<svg class="chart">` of a chart has no viewBox and places x in percent, so text never
stretches. Areas and lines are drawn in an inner `<svg viewBox="0 0 100 100"
preserveAspectRatio="none">`; the paths here are made for it. Nothing here writes markup or styles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

# Round tops of an axis, times a power of ten. Dense, so a chart wastes less than half its height.
ROUND_TOPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
# Tops whose half is a whole number too (from 2 on): for an axis of counts labelled in the middle.
EVEN_TOPS = (1, 2, 4, 6, 8, 10)
# Steps between labels of an axis, times the power of ten of its top.
_AXIS_STEPS = (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10)
# Steps between labels of a time axis, seconds: each divides the next unit of the clock, so labels
# fall on times that people expect.
_TIME_STEPS_S = (
    *(1, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1_800),
    *(3_600, 7_200, 10_800, 21_600, 43_200),
    *(86_400, 604_800),
)
# Percent of a time axis at either end where a label, centred on its place, would be cut.
_EDGE = 3
# Tolerance for a ratio of floats that should be a whole number: it may miss it in its last bits.
_CLOSE = 1e-9


@dataclass(frozen=True)
class Layer:
    """One layer of a stacked area."""

    name: str
    area: str
    """Closed path of the filled area."""
    top: str
    """Open path of its upper edge."""


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    """Percent of the axis, 0 to 100, from the left or from the bottom."""
    label: str


def nice_ceiling(value: float, tops: Sequence[float] = ROUND_TOPS, *, least: float = 0.0) -> float:
    """Return the smallest of `tops` times a power of ten that is not below `value`, nor `least`.

    If `value` is not a finite positive number, return `least`, or 1 if that is 0.
    """
    if not value > 0 or not math.isfinite(value):
        return least or 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    # a rounding error in the last bits of a round value must not lead to the next top
    enough = value * (1 - 1e-12)
    return max(least, next(top * unit for top in tops if top * unit >= enough))


def ticks(top: float, most: int = 4) -> list[Tick]:
    """Return round labelled positions from 0 to `top` (a `nice_ceiling`), at most `most` steps."""
    unit = 10.0 ** math.floor(math.log10(top))
    steps = [step * unit for step in _AXIS_STEPS]
    step = next(
        step
        for step in steps
        if top / step <= most + _CLOSE and abs(top / step - round(top / step)) < _CLOSE
    )
    return [Tick(100 * k * step / top, short(k * step)) for k in range(round(top / step) + 1)]


def time_ticks(since: float, until: float, most: int = 6) -> list[Tick]:
    """Return round UTC times between two moments (unix seconds), about `most` of them.

    Times so near an edge that their label would be cut are left out.
    """
    room = until - since
    step = next((s for s in _TIME_STEPS_S if room / s <= most), _TIME_STEPS_S[-1])
    first = math.ceil(since / step) * step
    found = [
        Tick(round(100 * (at - since) / room, 2), _clock(at, step))
        for at in range(first, math.floor(until) + 1, step)
    ]
    return [tick for tick in found if _EDGE <= tick.at <= 100 - _EDGE]


def _clock(at: int, step: int) -> str:
    """Return the label of a time: 14:05:30, 14:05, or Tue 18, as exact as the steps are."""
    day = datetime.fromtimestamp(at, UTC)
    if step < 60:
        return f"{day:%H:%M:%S}"
    # steps of a day start at midnight, so a time of day would say nothing
    return f"{day:%H:%M}" if step < 86_400 else f"{day:%a} {day.day}"


def short(value: float) -> str:
    """Return a figure for an axis: 0, 250, 2 k, 1.5 k, 3 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def scale(value: float, low: float, high: float) -> float:
    """Return where `value` stands on an axis from `low` to `high`, percent.

    A value outside the axis stands at its edge.
    """
    # an axis without length would divide by zero; any length places its only value at the start
    share = 100 * (value - low) / ((high - low) or 1.0)
    return round(min(100.0, max(0.0, share)), 2)


def line(values: Sequence[float], top: float, bottom: float = 0.0) -> str:
    """Return the path of a line; empty for no values.

    Values above `top` or under `bottom` are drawn at the edge, a single value as a level line.
    """
    room = top - bottom or 1.0
    held = [min(1.0, max(0.0, (value - bottom) / room)) for value in _line_points(values)]
    return f"M{_points(held, 1.0)}" if held else ""


def stacked(series: Sequence[tuple[str, Sequence[float]]], top: float) -> list[Layer]:
    """Return the layers of a stacked area, the first one at the bottom.

    All series have the same length; `top` is the figure at full height.
    """
    if not series or not series[0][1]:
        return []
    base = [0.0] * max(2, len(series[0][1]))
    layers = []
    for name, values in series:
        upper = [b + v for b, v in zip(base, _line_points(values), strict=True)]
        edge = _points(upper, top)
        layers.append(Layer(name, f"M{edge} L{_points(base, top, backwards=True)}Z", f"M{edge}"))
        base = upper
    return layers


def _line_points(values: Sequence[float]) -> list[float]:
    """Return the points of a line: a single value twice, because one point draws nothing."""
    return list(values) * 2 if len(values) == 1 else list(values)


def _points(values: Sequence[float], top: float, *, backwards: bool = False) -> str:
    """Return "x,y" pairs over the full width of the inner viewBox, whose y grows downwards."""
    width = max(1, len(values) - 1)
    pairs = [(100 * k / width, 100 - 100 * value / top) for k, value in enumerate(values)]
    return " ".join(
        f"{_fixed(x)},{_fixed(y)}" for x, y in (reversed(pairs) if backwards else pairs)
    )


def _fixed(value: float) -> str:
    """Return a coordinate with at most two decimals: finer than a screen, and a shorter page."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
