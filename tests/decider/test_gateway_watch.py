"""What the gateway's log and Envoy's statistics say of questions to deciders."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.store import GATEWAYS_KEY, GatewayStatus
from decider.node import feedback
from decider.node.feedback import Feedback, Tail
from decider.node.gateway_log import MOST_CHECK_MS, _Written, read_line
from decider.node.gateway_watch import (
    RECENT_S,
    EnvoyStatistics,
    GatewayWatch,
    count_errors,
)
from decider.node.recent import Recent
from tests.decider.test_feedback import line, of_caddy, of_nginx


def watch(*checks: tuple[float | None, bool], now: float = 100.0) -> GatewayWatch:
    made = GatewayWatch("edge", 0.015)
    for took_ms, unasked in checks:
        made.note(took_ms, unasked, now)
    return made


def test_the_p99_is_what_the_gateway_waited() -> None:
    told = watch(*[(1.0, False)] * 99, (9.0, False)).status(5.0, 100.0)
    assert (told.gateway, told.at, told.recent_asked, told.recent_unasked) == ("edge", 5.0, 100, 0)
    assert told.recent_p99_ms == pytest.approx(1.1)


def test_a_check_without_an_answer_counts_at_the_gateways_time_at_least() -> None:
    assert watch((0.4, True)).status(0.0, 100.0).recent_p99_ms == pytest.approx(15.1)
    assert watch((None, True)).status(0.0, 100.0).recent_p99_ms == pytest.approx(15.1)
    # a time that the gateway does not say is no short one
    assert watch((None, False)).status(0.0, 100.0).recent_p99_ms == 0.0
    assert watch(*[(None, False)] * 99, (3.0, False)).status(0.0, 100.0).recent_p99_ms == 3.1
    assert watch((31.0, True)).status(0.0, 100.0).recent_p99_ms == pytest.approx(31.1)


def test_only_the_last_minute_is_recent() -> None:
    made = watch((1.0, True))
    made.note(1.0, False, 100.0 + RECENT_S - 1)
    assert made.status(0.0, 100.0 + RECENT_S - 1).recent_asked == 2
    told = made.status(0.0, 100.0 + RECENT_S)
    assert (told.recent_asked, told.recent_unasked, told.asked, told.unasked) == (1, 0, 2, 1)
    quiet = made.status(0.0, 1_000.0)
    assert (quiet.recent_asked, quiet.recent_p99_ms) == (0, 0.0)


def test_what_only_the_statistics_saw_counts_too() -> None:
    made = watch((1.0, True), (1.0, False))
    made.note_reported(1, 100.0)
    assert made.status(0.0, 100.0).recent_unasked == 1
    made.note_reported(6, 100.5)
    told = made.status(0.0, 100.5)
    assert (told.recent_unasked, told.recent_asked, told.unasked, told.asked) == (7, 7, 7, 7)


@given(st.one_of(st.none(), st.text(), st.floats(), st.integers().map(float)))
def test_a_time_is_read_or_left_out(value: float | str | None) -> None:
    told = {"status": 200, "ended": 1.0, "duration_s": 1.0, "check_us": value}
    found = read_line(msgspec.json.encode(told)).check_ms
    assert found is None or 0.0 <= found <= MOST_CHECK_MS


@pytest.mark.parametrize(
    ("read", "asked", "unasked", "took_ms"),
    [
        (line(check_us="812"), 1, 0, 0.812),
        (line(check_us=812), 1, 0, 0.812),
        (line(check_us="15100", unasked="true"), 1, 1, 15.1),
        (line(check_us=None, unasked="true"), 1, 1, None),
        # refused by the route's own rule
        (line(check_us="15100", details="ext_authz_error", status=503, flags="UAEX"), 1, 1, 15.1),
        (line(check_us="700", details="ext_authz_denied", status=429, flags="UAEX"), 1, 0, 0.7),
        (line(unasked=None), 0, 0, None),
        *((line(check_us=text), 0, 0, None) for text in ("soon", "-", "-1", "nan", 1e12)),
        (of_nginx(check_s="0.003"), 1, 0, 3.0),
        # the second decider answered, and none did
        (of_nginx(check_s="0.015, 0.002", unasked=""), 1, 0, 17.0),
        (of_nginx(check_s="0.015, 0.015", unasked="true"), 1, 1, 30.0),
        (of_nginx(check_s="-", unasked="true"), 1, 1, None),
        # a preflight, which no decider is asked about
        (of_nginx(check_s="", unasked=""), 0, 0, None),
        (of_caddy(), 1, 0, None),
        (of_caddy(resp_headers={"Sluice-Decision": ["d"], "Sluice-Check-Ms": ["1.5"]}), 1, 0, 1.5),
        (of_caddy(resp_headers={"Sluice-Unasked": ["true"]}, status=503), 1, 1, None),
        (of_caddy(resp_headers={}, status=404), 0, 0, None),
    ],
)
def test_lines_of_the_log_are_counted(
    tmp_path: Path, read: bytes, asked: int, unasked: int, took_ms: float | None
) -> None:
    moving = Feedback(Tail(tmp_path / "log"), mock.Mock(), clock=lambda: 1.8e9)
    list(moving._outcomes([read]))
    assert (moving.watch.asked, moving.watch.unasked, moving.skipped) == (asked, unasked, 0)
    assert read_line(read).check_ms == pytest.approx(took_ms)


def test_the_counts_reach_the_store_once_a_second(valkey) -> None:
    moving = Feedback(Tail(Path("/nowhere")), valkey, watch=watch((2.0, True), now=1e9))
    moving.tell()
    assert valkey.hdel(GATEWAYS_KEY, "edge") == 1
    moving.tell()
    assert not valkey.exists(GATEWAYS_KEY)
    moving._told_at -= feedback.TELL_S
    moving.tell()
    told = msgspec.msgpack.decode(valkey.hget(GATEWAYS_KEY, "edge"), type=GatewayStatus)
    assert (told.asked, told.unasked) == (1, 1)
    assert valkey.ttl(GATEWAYS_KEY) > 0


PAGE = (
    "cluster.orders-read.ext_authz.error: 87\nhttp.gateway.ext_authz.error: 87\n"
    "http.other.ext_authz.error: 3\nhttp.gateway.ext_authz.shadow_error: 5\n"
)


def test_envoys_counter_is_that_of_its_filters_not_of_clusters() -> None:
    assert count_errors(PAGE) == 90
    assert count_errors("no such page") == 0


@contextmanager
def admin(pages: list[bytes]) -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(pages.pop(0))

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_what_envoy_counted_before_is_not_new_and_a_new_envoy_begins_at_0() -> None:
    pages = [f"http.gateway.ext_authz.error: {count}\n".encode() for count in (40, 47, 47, 2)]
    with admin(pages) as address:
        statistics = EnvoyStatistics(address)
        assert [statistics.more() for _ in range(4)] == [0, 7, 0, 2]
    assert statistics.more() == 0  # nobody answers now


def test_an_example_line_of_envoys_log_is_json_with_these_fields() -> None:
    text = (Path(__file__).parents[2] / "examples/gateway/envoy.yaml").read_text()
    for name in ("check_us", "unasked", "details"):
        assert f"                          {name}: " in text
        assert name in _Written.__struct_fields__


def test_recent_counts_forget_what_is_older_than_their_span() -> None:
    recent = Recent(60.0, 2.0)
    assert recent.since((10, 1), 0.0) == (10, 1)
    assert recent.since((30, 2), 30.0) == (30, 2)
    assert recent.since((50, 3), 61.0) == (40, 2)
    assert recent.since((50, 3), 93.0) == (20, 1)
    assert json.dumps(recent.since((50, 3), 200.0)) == "[0, 0]"
