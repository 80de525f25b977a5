from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.template import Context, Template, TemplateSyntaxError

from console.display import format as fmt
from decisions.counts.estimate import of_row, total

AT = datetime(2025, 11, 18, 14, 21, 36, 412_900, tzinfo=UTC)


def test_figures_have_thousands_and_a_true_minus() -> None:
    assert fmt.number(62708.4) == "62,708"
    assert fmt.number(-0.49, 2) == "−0.49"
    assert fmt.number(-0.001, 2) == "0.00"


def test_an_interval_is_low_to_high_and_nothing_for_what_was_counted_whole() -> None:
    assert fmt.low_to_high(total([of_row(0.01)] * 20)) == "1,298 to 3,083"
    assert fmt.low_to_high(of_row(1.0)) == ""


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_what_is_not_known_is_a_dash(nothing: float | None) -> None:
    assert {
        fmt.number(nothing),
        fmt.percent(nothing),
        fmt.risk2(nothing),
        fmt.duration_ms(nothing),
    } == {"–"}


def test_shares_are_percent() -> None:
    assert fmt.percent(0.0608) == "6.08%"
    assert fmt.percent(0.88, 0) == "88%"


def test_times_are_utc_whatever_the_zone_they_come_in() -> None:
    east = AT.astimezone(datetime.strptime("+0300", "%z").tzinfo)
    assert fmt.utc_time(east) == "14:21:36"
    assert fmt.utc_ms(AT) == "14:21:36.412"
    assert fmt.utc_datetime(AT.timestamp()) == "Tue 18 Nov 2025, 14:21:36 UTC"
    assert fmt.iso(AT) == "2025-11-18T14:21:36.412Z"
    assert fmt.utc_time(None) == "–"


def test_a_moment_of_another_day_has_its_day() -> None:
    now = datetime.now(UTC)
    assert fmt.utc_moment(now) == f"{now:%H:%M:%S}"
    assert fmt.utc_moment(AT) == "18 Nov 14:21"
    assert fmt.utc_moment(None) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.84, "1.8 s"),
        (9.96, "10 s"),
        (477, "7 m 57 s"),
        (6_720, "1 h 52 m"),
        (3_600, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_lengths_of_time_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert fmt.span(seconds) == text
    assert fmt.span(timedelta(seconds=seconds)) == text


def test_milliseconds_have_the_precision_that_matters() -> None:
    assert [fmt.duration_ms(v) for v in (0.0421, 3.81, 412.4, 1840)] == [
        "0.042 ms",
        "3.8 ms",
        "412 ms",
        "1,840 ms",
    ]


def test_decision_ids_are_written_from_bytes_and_uuids() -> None:
    raw = bytes.fromhex("0199d0c2a4d57a31b6d1a4f62c90be7f")
    assert (
        fmt.decision_id(raw)
        == fmt.decision_id(uuid.UUID(bytes=raw))
        == "dec_0199d0c2a4d57a31b6d1a4f62c90be7f"
    )


def render(source: str, **values: object) -> str:
    return Template("{% load sluice %}" + source).render(Context(values))


def test_an_action_is_colour_glyph_and_word() -> None:
    chip = render("{% action_chip 1 'big' %}")
    assert 'class="act act-defer big"' in chip
    assert 'href="#i-defer"' in chip
    assert chip.endswith("Defer</span>")


def test_marks_escape_what_they_are_given() -> None:
    hostile = "<script>alert(1)</script>"
    assert "<script>" not in render(
        "{% state 'ok' text %}{% tag text %}{% action_chip 4 '' text %}", text=hostile
    )


def test_a_state_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TemplateSyntaxError, match="ok, warn, bad, off"):
        render("{% state 'fine' 'Fine' %}")
