"""Times that cannot be right, and lines out of order."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.logs import order, playback
from learning.logs.access_log import ReadReport, parse_line
from learning.logs.playback import ReplaySummary
from learning.traffic.client import GatewayAnswer
from tests.learning.logs import KEY, combined

DAY_S = 86_400.0
NOW = 1_728_000_000.0
ENTRY = parse_line(combined().encode(), KEY)


def kept(times: list[float]) -> tuple[list[float], list[int]]:
    """Return the times that are believed, and the places of the others, counted from 1."""
    wrong: list[int] = []
    numbered = ((n, replace(ENTRY, at=at)) for n, at in enumerate(times, 1))
    return [entry.at for entry in order.believable(numbered, wrong.append)], wrong


@pytest.mark.parametrize(
    "absurd", [NOW - 20 * 365 * DAY_S, NOW + 2 * DAY_S, NOW + 80 * 365 * DAY_S]
)
@pytest.mark.parametrize("place", [0, 1, 7, 50, 98, 99])
def test_a_time_far_from_its_neighbours_is_skipped_wherever_it_stands(
    absurd: float, place: int
) -> None:
    times = [NOW + n for n in range(99)]
    assert kept([*times[:place], absurd, *times[place:]]) == (times, [place + 1])


def test_several_lines_of_a_wrong_clock_are_skipped() -> None:
    times = [NOW + n for n in range(40)]
    assert kept([*times[:20], *[1e9] * 8, *times[20:]]) == (times, list(range(21, 29)))


@given(st.lists(st.floats(0, 40 * DAY_S), max_size=60))
def test_where_times_only_grow_gaps_cost_no_line_in_the_middle(gaps: list[float]) -> None:
    at, times = NOW, []
    for gap in gaps:
        times.append(at := at + gap)
    _, wrong = kept(times)
    inner = range(order.NEIGHBOURS + 1, len(times) - order.NEIGHBOURS + 1)
    assert not set(wrong) & set(inner)


@pytest.mark.parametrize("step", [3_600.0, DAY_S, 30 * DAY_S])
def test_a_log_with_few_lines_keeps_all_of_them(step: float) -> None:
    times = [NOW + n * step for n in range(30)]
    assert kept(times) == (times, [])


def test_lines_a_few_seconds_out_of_order_are_sorted() -> None:
    times = [NOW + n + (5 if n % 3 else 0) for n in range(60)]
    noticed: Counter[str] = Counter()
    entries = (replace(ENTRY, at=at) for at in times)
    found = [entry.at for entry in order.in_order(entries, noticed)]
    assert found == sorted(times)
    assert noticed["time runs backwards"] > 0


class Gateway:
    """A gateway that admits, and notes when it was asked."""

    async def send(self, _: object) -> GatewayAnswer:
        return GatewayAnswer(200, 0.0, "")


def test_a_gap_of_years_is_not_slept_through(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = [0.0]

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(playback.asyncio, "sleep", sleep)
    monkeypatch.setattr(playback.time, "perf_counter", lambda: now[0])
    times = [NOW, NOW + 1, NOW + 3_650 * DAY_S, NOW + 3_650 * DAY_S + 2]
    summary = ReplaySummary(ReadReport())
    entries = [replace(ENTRY, at=at) for at in times]
    asyncio.run(playback._send_all(entries, Gateway(), 1.0, summary, None))
    assert slept == [0.0, 1.0, playback.LONGEST_QUIET_S, 2.0]
    assert summary.report.noticed.total() == 1
    assert all(first <= second for first, second in pairwise(times))


def test_years_of_1970_at_the_beginning_are_skipped_whole(tmp_path: Path) -> None:
    unset = [combined(n).replace("2019", "1970") for n in range(40)]
    (tmp_path / "a.log").write_text("\n".join([*unset, *(combined(n) for n in range(59))]))
    report = ReadReport()
    found = list(playback.read_entries(tmp_path / "a.log", KEY, report))
    assert len(found) == 59
    assert report.skipped == {"time out of order": 40}
