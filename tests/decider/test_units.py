"""How lengths of time are written within sentences."""

from __future__ import annotations

import pytest

from decider.contracts.units import rounded_span, spoken_span


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
        (121, "3 minutes"),
        (900, "15 minutes"),
        (7_201, "3 hours"),
    ],
)
def test_a_spoken_span_is_rounded_up(seconds: int, text: str) -> None:
    assert spoken_span(seconds) == text
