"""Small logs that were read wrongly once, and what is right of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from decider.contracts import defaults
from decider.engine.engine import Engine
from learning.logs import playback
from learning.logs.access_log import LogEntry, ReadReport, pseudonym, read_entries
from learning.logs.playback import ReplaySummary
from tests.learning.logs import KEY

CASES = Path(__file__).parent / "cases"
END = 1_790_000_000.0


def read(path: Path) -> tuple[list[LogEntry], ReadReport]:
    report = ReadReport()
    return list(read_entries(path, KEY, report)), report


def play(path: Path) -> ReplaySummary:
    engine = Engine(node=playback.NODE, region="local", token_key=KEY, capacity=64, keep_all=True)
    engine.apply(defaults.config(), None)
    return playback.OfflineReplay(engine, lambda _: None, lambda _: []).run([path], KEY, end=END)


@pytest.mark.parametrize(
    ("name", "lines", "apps"),
    [
        ("vhost_combined.log", 606, 3),
        ("syslog_prefix.log", 30, 3),
        ("client_with_port.log", 30, 1),
        ("bom.log", 3, 1),
        ("clock_ok.log", 5, 1),
    ],
)
def test_every_line_is_read_for_the_client_that_sent_it(name: str, lines: int, apps: int) -> None:
    found, report = read(CASES / name)
    assert (len(found), len(report.requests)) == (lines, apps)
    assert not report.skipped


def test_a_log_decides_the_same_with_and_without_its_virtual_host(tmp_path: Path) -> None:
    with_host = CASES / "vhost_combined.log"
    without = tmp_path / "same.log"
    without.write_text(
        "".join(line.partition(" ")[2] for line in with_host.read_text().splitlines(keepends=True))
    )
    first, second = play(with_host), play(without)
    assert first.answers == second.answers
    counts = [{app: r.count for app, r in one.refused.items()} for one in (first, second)]
    assert counts[0] == counts[1]
    assert counts[0].keys() == {pseudonym(KEY, "192.0.2.66")}, "only the scraper is refused"


def test_strangers_without_an_address_are_not_one_client() -> None:
    found, report = read(CASES / "no_address.log")
    assert not found
    assert report.skipped == {"no client address": 30}
    assert report.first_skipped == {"no client address": ("no_address.log", 1)}


def test_the_line_of_an_unset_clock_is_skipped_and_the_others_keep_their_pace() -> None:
    found, report = read(CASES / "clock_1970.log")
    right, _ = read(CASES / "clock_ok.log")
    assert found == right
    assert report.skipped == {"time out of order": 1}
    summary = play(CASES / "clock_1970.log")
    assert (summary.requests, summary.last - summary.first) == (5, 4.0)
