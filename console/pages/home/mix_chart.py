"""The chart of home: above, what was not admitted, drawn large; below, all decisions, drawn small.
Both share one time axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from console.display import charts
from console.display import format as fmt
from console.pages.home import mix
from console.pages.home.mix import Mix
from decider.contracts.vocabulary import Action, Stage
from decisions.counts import aggregate

# Order in the chart, bottom to top: from the mildest.
_REFUSALS = (Action.DEFER, Action.BATCH, Action.SHED, Action.BLOCK)
# Chosen: a screen reader reads the table aloud, and seven rows show the course.
_TABLE_ROWS = 7
# Where the template draws the plot, px.
_PLOT_TOP, _PLOT_HEIGHT = 34, 264
# Baselines of the labels above the plot, px. They differ so that neighbours do not overlap.
_MARK_LINES = (12, 26, 50)


@dataclass(frozen=True)
class Mark:
    """Something that happened, at unix seconds."""

    at: float
    text: str


@dataclass(frozen=True)
class PlacedMark:
    """A mark with its place: x in percent, y of its text and top of its line in px."""

    x: float
    text: str
    y: int
    end: bool
    """The label stands left of the line."""

    @property
    def dx(self) -> int:
        return -4 if self.end else 4

    @property
    def top(self) -> int:
        return self.y - 8


@dataclass(frozen=True)
class Level:
    """A labelled height: y of the line in px."""

    y: float
    label: str

    @property
    def text_y(self) -> float:
        return self.y + 4


@dataclass(frozen=True)
class Now:
    """One action over the last minute: decisions a minute, and share of all."""

    action: Action
    rate: float
    share: float


@dataclass(frozen=True)
class TableRow:
    """One line of the chart as a table: decisions a minute."""

    at: float
    defer: float
    batch: float
    shed: float
    block: float
    admit: float


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws."""

    refused: tuple[charts.Layer, ...]
    every: tuple[charts.Layer, ...]
    levels: tuple[Level, ...]
    every_top: str
    times: tuple[charts.Tick, ...]
    marks: tuple[PlacedMark, ...]
    now: tuple[Now, ...]
    decided_by: tuple[tuple[str, float], ...]
    refused_rate: float
    refused_share: float | None
    kept: int
    finding: str
    rows: tuple[TableRow, ...]


def draw_chart(history: Mix, lately: Mix, marks: list[Mark]) -> Chart:
    """Draw `history`, with the figures of the last minute beside it."""
    refused = [(action.word, history.series(action)) for action in _REFUSALS]
    every = [(Action.ADMIT.word, history.series(Action.ADMIT)), *refused]
    sums = [sum(column) for column in zip(*(values for _, values in refused), strict=True)]
    top = charts.nice_ceiling(max(sums))
    all_top = charts.nice_ceiling(
        max(sum(column) for column in zip(*(values for _, values in every), strict=True))
    )
    share = lately.share(mix.refused, mix.every)
    return Chart(
        refused=tuple(charts.stacked(refused, top)),
        every=tuple(charts.stacked(every, all_top)),
        levels=tuple(
            Level(round(_PLOT_TOP + _PLOT_HEIGHT * (1 - t.at / 100), 1), t.label)
            for t in charts.ticks(top)
        ),
        every_top=charts.short(all_top),
        times=tuple(charts.time_ticks(history.since, history.until)),
        marks=tuple(_place(mark, history, k) for k, mark in enumerate(marks)),
        now=tuple(_now(lately, action) for action in reversed(Action)),
        decided_by=_decided_by(lately),
        refused_rate=(share or 0.0) * lately.total / lately.minutes,
        refused_share=share,
        kept=history.kept,
        finding=_finding(history, sums),
        rows=_rows(history),
    )


def _place(mark: Mark, history: Mix, k: int) -> PlacedMark:
    """Place the `k`th mark: neighbours get labels at different heights."""
    x = charts.scale(mark.at, history.since, history.until)
    return PlacedMark(x, mark.text, _MARK_LINES[::-1][k % 3], x > 50)


def _now(lately: Mix, action: Action) -> Now:
    """Return one action over the last minute."""
    count = lately.count(lambda cell: cell.action == action)
    return Now(action, count / lately.minutes, count / lately.total if lately.total else 0.0)


def _decided_by(lately: Mix) -> tuple[tuple[str, float], ...]:
    """Return the refusals a minute by the stage that decided, most first."""
    refused = [cell for cell in lately.cells if mix.refused(cell)]
    sums = aggregate.totals(refused, lambda cell: Stage(cell.stage).label)
    return tuple(
        sorted(
            ((label, count / lately.minutes) for label, count in sums.items()),
            key=lambda pair: -pair[1],
        )
    )


def _finding(history: Mix, sums: list[float]) -> str:
    """Describe the chart for readers who cannot see it."""
    peak = max(range(len(sums)), key=sums.__getitem__)
    return (
        f"Decisions a minute by action, {fmt.utc_minute(history.since)} to"
        f" {fmt.utc_minute(history.until)} UTC. Not admitted went from about"
        f" {fmt.number(sums[0])} to {fmt.number(sums[-1])} a minute, with a peak of"
        f" {fmt.number(sums[peak])} at {fmt.utc_minute(history.starts[peak])}."
    )


def _rows(history: Mix) -> tuple[TableRow, ...]:
    """Return at most `_TABLE_ROWS` buckets, evenly spread, the last one always among them."""
    series = {action: history.series(action) for action in Action}
    starts = history.starts
    step = max(1, round((len(starts) - 1) / (_TABLE_ROWS - 1)))
    picked = sorted(range(len(starts) - 1, -1, -step)[:_TABLE_ROWS])
    order = (*_REFUSALS, Action.ADMIT)
    return tuple(TableRow(starts[k], *(series[action][k] for action in order)) for k in picked)
