"""Access logs, friendly and hostile."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.logs import access_log, order
from learning.logs.access_log import LineError, LogError, ReadReport, parse_line, read_entries
from tests.learning import logs
from tests.learning.logs import KEY, combined

ENVOY = {
    "ts": "2026-03-01T12:00:00.250Z",
    "method": "POST",
    "path": "/v2/ledger/entries",
    "status": 201,
    "duration_ms": 31,
    "app": "app_x",
    "request_id": "r-1",
    "decision": None,
    "service": "ledger-write",
    "source": "203.0.113.9",
    "bytes_in": 420,
    "bytes_out": 17,
}


def read(path: Path, *lines: bytes) -> tuple[list[access_log.LogEntry], ReadReport]:
    path.write_bytes(b"\n".join(lines))
    report = ReadReport()
    return list(read_entries(path, KEY, report)), report


def test_a_combined_line_gives_time_path_and_status() -> None:
    entry = parse_line(combined(5).encode(), KEY)
    assert (entry.method, entry.path, entry.status, entry.bytes_out) == (
        "GET",
        "/v2/orders/17",
        200,
        512,
    )
    assert entry.at == 1_548_116_765.0  # 2019-01-22 00:26:05 UTC


def test_a_common_line_without_referrer_and_agent_is_read_too() -> None:
    line = (
        '198.51.100.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326'
    )
    assert parse_line(line.encode(), KEY).at == 971_211_336.0


def test_the_gateways_json_line_keeps_its_app_and_hides_its_address() -> None:
    entry = parse_line(json.dumps(ENVOY).encode(), KEY)
    assert (entry.app, entry.status, entry.duration_ms, entry.bytes_in, entry.served) == (
        "app_x",
        201,
        31.0,
        420,
        True,
    )
    assert entry.at == pytest.approx(1_772_366_400.25)
    assert "203.0.113.9" not in repr(entry)
    assert not parse_line(json.dumps({**ENVOY, "service": None}).encode(), KEY).served


def test_an_address_becomes_the_same_pseudonym_each_time_and_is_nowhere_else() -> None:
    one, two = parse_line(combined(1).encode(), KEY), parse_line(combined(2).encode(), KEY)
    assert one.app == two.app
    assert one.app.startswith("anon_")
    assert len(one.app) == 17
    assert parse_line(combined(1).encode(), bytes(32)).app != one.app
    assert "198.51.100.7" not in repr(one)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (combined(request="GET http://shop.example/a/b?x=1 HTTP/1.1"), "/a/b"),
        (combined(request="OPTIONS * HTTP/1.0"), "/"),
        (combined(request=r"GET /say\"hi\" HTTP/1.1"), r"/say\"hi\""),
        (combined(request="GET /größe HTTP/1.1"), "/gr%C3%B6%C3%9Fe"),
        ('"' + combined() + '"', "/v2/orders/17"),
    ],
)
def test_odd_lines_are_read(line: str, path: str) -> None:
    assert parse_line(line.encode(), KEY).path == path


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"\x16\x03\x01", "known format"),
        (combined(request="-").encode(), "no request"),
        (combined(request="\\x16\\x03 HTTP/1.1").encode(), "no request"),
        (combined(request="GET nowhere HTTP/1.1").encode(), "no path"),
        (combined().replace("Jan", "Foo").encode(), "no time"),
        (combined().replace("22/Jan", "31/Feb").encode(), "does not exist"),
        (combined(status=999).encode(), "no status"),
        (combined()[:40].encode(), "known format"),
        (b'{"ts": 1}', "known format"),
        (json.dumps({**ENVOY, "ts": 1e300}).encode(), "after 5138"),
        (json.dumps({**ENVOY, "app": None, "source": None}).encode(), "no client address"),
        (b"[" * 70_000, "longer than"),
        (b'{"ts": ' + b"[" * 50_000, "known format"),
    ],
)
def test_lines_that_cannot_be_read_say_why(raw: bytes, reason: str) -> None:
    with pytest.raises(LineError, match=reason):
        parse_line(raw, KEY)


def test_an_absurd_size_is_read_as_unknown() -> None:
    assert parse_line(combined().replace("512", "9" * 500).encode(), KEY).bytes_out == 0
    assert (
        parse_line(json.dumps({**ENVOY, "bytes_in": -5, "duration_ms": -1}).encode(), KEY).bytes_in
        == 0
    )


def test_latin_1_is_read_as_such() -> None:
    raw = combined(request="GET /caf HTTP/1.1").encode().replace(b"caf", b"caf\xe9")
    assert parse_line(raw, KEY).path == "/caf%C3%A9"


@given(st.binary(max_size=300))
def test_no_line_of_bytes_can_do_more_than_be_skipped(raw: bytes) -> None:
    with contextlib.suppress(LineError):
        parse_line(raw, KEY)


@given(st.integers(0, 200), st.binary(max_size=20), st.booleans())
def test_no_damage_to_a_good_line_can_do_more_than_skip_it(
    place: int, noise: bytes, as_json: bool
) -> None:
    good = json.dumps(ENVOY).encode() if as_json else combined().encode()
    try:
        entry = parse_line(good[:place] + noise + good[place + len(noise) :], KEY)
    except LineError:
        return
    assert entry.path.startswith("/")
    assert entry.path.isascii()
    assert 100 <= entry.status <= 599


def test_time_running_backwards_is_put_in_order_and_counted(tmp_path: Path) -> None:
    found, report = read(tmp_path / "a.log", *(combined(s).encode() for s in (3, 1, 2, 5, 4)))
    assert [e.at for e in found] == sorted(e.at for e in found)
    assert report.noticed["time runs backwards"] == 3


def test_the_sort_is_bounded_and_says_when_that_was_not_enough() -> None:
    noticed: Counter[str] = Counter()
    tangled = [parse_line(combined(s).encode(), KEY) for s in (50, 51, 52, 1)]
    found = list(order.in_order(iter(tangled), noticed, most=2))
    assert len(found) == 4
    assert noticed["too far out of order to sort"] == 1


def test_skipped_lines_are_counted_by_reason(tmp_path: Path) -> None:
    found, report = read(
        tmp_path / "a.log",
        combined().encode(),
        b"",
        b"nonsense",
        b"nonsense",
        b"x" * 200_000,
        combined().encode(),
    )
    assert len(found) == report.read == 2
    assert report.skipped == {
        "empty": 1,
        "not a line of the combined format": 2,
        "longer than 64 kB": 1,
    }
    assert report.first_skipped["not a line of the combined format"] == ("a.log", 3)


def test_a_gzip_cut_short_gives_what_it_holds(tmp_path: Path) -> None:
    whole = gzip.compress(
        "\n".join(combined(k % 60) for k in range(5000)).encode(), compresslevel=0
    )
    (tmp_path / "a.log.gz").write_bytes(whole[: len(whole) // 2])
    report = ReadReport()
    assert 1000 < len(list(read_entries(tmp_path / "a.log.gz", KEY, report))) < 5000
    assert any("cut short" in reason for reason in report.skipped)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no file"),
        (b"\x00\x01\x02" * 50, "not a text file"),
        (b"\x1f\x8bgarbage", "damaged gzip"),
    ],
)
def test_a_log_that_cannot_be_read_says_so_in_a_sentence(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "a.log"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogError, match=words):
        list(read_entries(path, KEY, ReadReport()))
    with pytest.raises(LogError, match="folder"):
        list(read_entries(tmp_path, KEY, ReadReport()))


def test_addresses_with_many_user_agents_are_told_apart(tmp_path: Path) -> None:
    lines = [combined(k % 60, agent=f"browser/{k}").encode() for k in range(20)]
    lines += [combined(k, address="198.51.100.8").encode() for k in range(20)]
    _, report = read(tmp_path / "a.log", *lines)
    assert report.shared() == [parse_line(combined().encode(), KEY).app]


def test_the_production_log_is_mostly_from_a_cdns_addresses() -> None:
    report = ReadReport()
    found = list(read_entries(logs.real("rootly_apache_access_2025-01-29.log.gz"), KEY, report))
    assert len(found) == report.read > 4_700
    assert 0.6 < report.via_cdn / report.read < 0.8
    assert report.noticed["time runs backwards"] >= 199
    assert [e.at for e in found] == sorted(e.at for e in found)


def test_the_quoted_scanner_log_is_read_and_sorted() -> None:
    report = ReadReport()
    found = list(read_entries(logs.real("scanner_acunetix_apache_2016.log.gz"), KEY, report))
    assert len(found) > 6_500
    assert [e.at for e in found] == sorted(e.at for e in found)
