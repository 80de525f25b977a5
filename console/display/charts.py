"""Shapes of server-rendered charts: pure functions from figures to SVG coordinates and path
strings.

The outer `<svg class="chart">` of a chart has no viewBox and places x in percent, so that text
never stretches; areas and lines are drawn in an inner `<svg viewBox="0 0 100 100"
preserveAspectRatio="none">`, for which the paths here are made. Nothing here writes markup or
styles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


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


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in percent of the plot; `y` is measured from the top."""

    x: float
    y: float
    width: float
    height: float
    value: float


@dataclass(frozen=True)
class Mark:
    """One measure on a strip plot, in percent of its axis; `beyond` when the value lay outside and
    is drawn at the edge.
    """

    at: float
    beyond: bool


@dataclass(frozen=True)
class StripPlot:
    """Where one value stands among its peers: p5 to p95, p25 to p75, median, and the value itself,
    in percent.
    """

    low: float
    mid_low: float
    median: float
    mid_high: float
    high: float
    value: Mark

    @property
    def range_width(self) -> float:
        return self.high - self.low

    @property
    def mid_width(self) -> float:
        return self.mid_high - self.mid_low


def fixed(value: float) -> str:
    """A coordinate with at most two decimals and no trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten that is not below `value`; 1
    for nothing.
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return next(
        step * unit for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * unit >= value * (1 - 1e-12)
    )


def ticks(top: float, most: int = 4) -> list[Tick]:
    """Round labelled positions from 0 to `top` (a `nice_ceiling`), at most `most` steps."""
    unit = 10.0 ** math.floor(math.log10(top))
    steps = [s * unit for s in (0.1, 0.2, 0.25, 0.5, 1, 2, 2.5, 5, 10)]
    step = next(s for s in steps if top / s <= most + 1e-9 and abs(top / s - round(top / s)) < 1e-9)
    return [Tick(100 * k * step / top, short(k * step)) for k in range(round(top / step) + 1)]


def short(value: float) -> str:
    """A figure for an axis: 0, 250, 2 k, 1.5 k, 3 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def spread(count: int) -> list[float]:
    """x of `count` points over the full width, percent."""
    return [0.0] if count == 1 else [100 * k / (count - 1) for k in range(count)]


def line(values: Sequence[float], top: float, bottom: float = 0.0) -> str:
    """Path of a line; values above `top` or under `bottom` are held at the edge; one value is drawn
    as a level line.
    """
    points = list(values) * 2 if len(values) == 1 else list(values)
    room = top - bottom or 1.0
    ys = [100 - 100 * min(1.0, max(0.0, (v - bottom) / room)) for v in points]
    return (
        "M" + " ".join(f"{fixed(x)},{fixed(y)}" for x, y in zip(spread(len(ys)), ys, strict=True))
        if ys
        else ""
    )


def stacked(series: Sequence[tuple[str, Sequence[float]]], top: float) -> list[Layer]:
    """Layers of a stacked area, first one at the bottom. All series have the same length; `top` is
    the figure at full height.
    """
    if not series or not series[0][1]:
        return []
    base = [0.0] * max(2, len(series[0][1]))
    layers = []
    for name, values in series:
        points = list(values) * 2 if len(values) == 1 else list(values)
        upper = [b + v for b, v in zip(base, points, strict=True)]
        edge = _points(upper, top)
        layers.append(Layer(name, f"M{edge} L{_points(base, top, backwards=True)}Z", f"M{edge}"))
        base = upper
    return layers


def _points(values: Sequence[float], top: float, *, backwards: bool = False) -> str:
    pairs = [(x, 100 - 100 * v / top) for x, v in zip(spread(len(values)), values, strict=True)]
    return " ".join(f"{fixed(x)},{fixed(y)}" for x, y in (reversed(pairs) if backwards else pairs))


def bars(values: Sequence[float], top: float | None = None, gap: float = 0.2) -> list[Bar]:
    """Bars of a histogram over the full width; `gap` is the share of a slot left free; `top`
    defaults to the largest value.
    """
    if not values:
        return []
    full = top if top is not None else max(values) or 1.0
    slot = 100 / len(values)
    heights = [100 * min(1.0, v / full) if full else 0.0 for v in values]
    return [
        Bar(
            round(k * slot + slot * gap / 2, 2),
            round(100 - h, 2),
            round(slot * (1 - gap), 2),
            round(h, 2),
            v,
        )
        for k, (v, h) in enumerate(zip(values, heights, strict=True))
    ]


def scale(value: float, low: float, high: float) -> Mark:
    """Where `value` stands on an axis from `low` to `high`; a value outside is drawn at the edge
    and says so.
    """
    share = 100 * (value - low) / ((high - low) or 1.0)
    return Mark(round(min(100.0, max(0.0, share)), 2), not 0 <= share <= 100)


def strip_plot(value: float, percentiles: Sequence[float]) -> StripPlot:
    """A value against its peers' p5, p25, p50, p75, p95, on an axis from 0 to 1.25 times the 95th
    percentile.
    """
    p5, p25, p50, p75, p95 = percentiles
    high = p95 * 1.25 or 1.0
    low = min(0.0, p5)
    at = [scale(p, low, high).at for p in (p5, p25, p50, p75, p95)]
    return StripPlot(at[0], at[1], at[2], at[3], at[4], scale(value, low, high))


def time_ticks(since: float, until: float, most: int = 6) -> list[Tick]:
    """Round UTC times (unix seconds) between two moments, with their place in percent."""
    room = until - since
    step = next(
        (
            s
            for s in (60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)
            if room / s <= most
        ),
        86_400,
    )
    first = math.ceil(since / step) * step
    return [
        Tick(round(100 * (t - since) / room, 2), clock(t, step))
        for t in range(first, math.floor(until) + 1, step)
    ]


def clock(at: float, step: float) -> str:
    """HH:MM, or the day for steps of a day."""
    minutes = int(at) // 60
    if step < 86_400:
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"
    return f"{(day := datetime.fromtimestamp(at, UTC)):%a} {day.day}"
