from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from console.display import charts

amounts = st.floats(min_value=0, max_value=1e9)


def coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path)]


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=60))
def test_stacked_layers_stay_in_the_plot_and_meet(columns: list[tuple[float, float]]) -> None:
    low, high = [a for a, _ in columns], [b for _, b in columns]
    top = charts.nice_ceiling(max(a + b for a, b in columns))
    first, second = charts.stacked([("defer", low), ("shed", high)], top)
    assert all(
        -0.01 <= v <= 100.01
        for layer in (first, second)
        for point in coordinates(layer.area)
        for v in point
    )
    assert coordinates(second.area)[len(coordinates(second.top)) :] == coordinates(first.top)[::-1]


@given(st.floats(min_value=1e-9, max_value=1e12))
def test_a_ceiling_is_above_its_figure_and_not_twice_as_high(value: float) -> None:
    assert value * (1 - 1e-9) <= charts.nice_ceiling(value) <= value * 2


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_an_axis_has_few_round_steps_up_to_its_top(value: float) -> None:
    marks = charts.ticks(charts.nice_ceiling(value))
    assert 2 <= len(marks) <= 5
    assert (marks[0].at, round(marks[-1].at, 6)) == (0, 100)


def test_one_value_is_a_level_line() -> None:
    assert charts.line([5], 10) == "M0,50 100,50"
    assert charts.line([], 10) == ""


def test_a_line_is_held_at_the_edge() -> None:
    assert charts.line([0, 20], 10) == "M0,100 100,0"


def test_bars_fill_the_width() -> None:
    first, second = charts.bars([1, 2], gap=0.2)
    assert (first.x, first.width, first.height, second.height) == (5, 40, 50, 100)
    assert charts.bars([]) == []
    assert charts.bars([0, 0])[0].height == 0


def test_a_value_off_the_scale_says_so() -> None:
    assert charts.scale(0.81, 0, 1) == charts.Mark(81, False)
    assert charts.scale(1.4, 0, 1) == charts.Mark(100, True)


def test_a_strip_plot_places_a_value_among_its_peers() -> None:
    plot = charts.strip_plot(3.4, [0.4, 0.8, 1.0, 1.4, 2.0])
    assert plot.value.beyond
    assert (plot.median, plot.range_width, plot.mid_width) == (40, 64, 24)


def test_times_on_the_axis_are_round() -> None:
    noon = 1_763_467_200
    labels = [tick.label for tick in charts.time_ticks(noon - 10_800, noon)]
    assert labels == ["09:00", "09:30", "10:00", "10:30", "11:00", "11:30", "12:00"]


def test_axis_figures_are_short() -> None:
    assert [charts.short(v) for v in (0, 250, 1_500, 70_000, 2_000_000)] == [
        "0",
        "250",
        "1.5 k",
        "70 k",
        "2 M",
    ]
