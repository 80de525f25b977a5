"""How lengths of time and figures are written within sentences."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.units import (
    bucket_left,
    digits,
    one_in,
    plan_figure,
    rounded_span,
    spoken_span,
    told_apart,
    wait_span,
    whole_left,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.042, "42 ms"),
        (8.0, "8 s"),
        (45.4, "45 s"),
        (90.0, "1.5 min"),
        (19_080.0, "5.3 h"),
        (1_036_800.0, "12 d"),
    ],
)
def test_a_rounded_span_has_one_unit_and_two_digits(seconds: float, text: str) -> None:
    assert rounded_span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 second"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (121, "2 minutes 1 second"),
        (900, "15 minutes"),
        (7_200, "2 hours"),
        (7_201, "2 hours 1 minute"),
        (90_000, "1 day 1 hour"),
    ],
)
def test_a_spoken_span_is_rounded_up(seconds: int, text: str) -> None:
    assert spoken_span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (0.4, "1 s"),
        (59.2, "1 m"),
        (122.4, "2 m 3 s"),
        (3_600.0, "1 h"),
        (40_000.3, "11 h 7 m"),
        (90_000.0, "1 d 1 h"),
        (math.inf, "–"),
    ],
)
def test_a_wait_is_never_written_shorter_than_it_is(seconds: float, text: str) -> None:
    assert wait_span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.75, "0.75"),
        (12.5, "12.5"),
        (999.96, "1,000"),
        (12_000.0, "12,000"),
        (1e9, "1,000,000,000"),
    ],
)
def test_a_figure_of_a_plan_keeps_what_was_set_and_has_no_exponent(value, text: str) -> None:
    assert plan_figure(value) == text
    assert digits(0.00001234, 2) == "0.000012"


@given(st.floats(-1e6, 1e6))
def test_no_token_is_shown_where_a_request_would_be_refused(tokens: float) -> None:
    assert (whole_left(tokens) == "0") == (tokens < 1.0)
    assert ("headroom" in bucket_left(tokens)) == (tokens < 0.0)


@given(st.floats(0, 1), st.floats(0, 1))
def test_figures_that_differ_do_not_read_alike(one: float, other: float) -> None:
    first, second = told_apart(one, other)
    if abs(one - other) > 1e-6:
        assert (float(first) < float(second)) == (one < other) and first != second


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "1 in 1"), (0.98, "1 in 1.02"), (0.999, "1 in 1.001"), (0.4, "1 in 2.5")],
)
def test_only_all_of_them_is_one_in_one(share: float, text: str) -> None:
    assert one_in(share) == text
    assert one_in(0.0001) == "1 in 10,000"
