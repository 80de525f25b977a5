from __future__ import annotations

import re

import pytest
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


def test_a_value_off_the_scale_stands_at_its_edge() -> None:
    assert charts.scale(0.81, 0, 1) == 81
    assert charts.scale(1.4, 0, 1) == 100
    assert charts.scale(-0.4, 0, 1) == 0


def test_times_on_the_axis_are_round() -> None:
    noon = 1_763_467_200
    labels = [tick.label for tick in charts.time_ticks(noon - 10_800, noon)]
    # none at either edge, where its text would be cut
    assert labels == ["09:30", "10:00", "10:30", "11:00", "11:30"]


@pytest.mark.parametrize(
    ("length_s", "label"), [(20, "12:00:05"), (6 * 3_600, "14:00"), (5 * 86_400, "Wed 19")]
)
def test_times_on_the_axis_are_as_exact_as_their_steps(length_s: int, label: str) -> None:
    noon = 1_763_467_200
    assert charts.time_ticks(noon, noon + length_s, most=5)[0].label == label


def test_axis_figures_are_short() -> None:
    assert [charts.short(v) for v in (0, 250, 1_500, 70_000, 2_000_000)] == [
        "0",
        "250",
        "1.5 k",
        "70 k",
        "2 M",
    ]
