"""Checks that no decider answers, on real gateways: the client is told, they are counted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from decider.node.feedback import Feedback, Tail
from decider.node.gateway_watch import EnvoyStatistics, GatewayWatch
from monitoring import fleet
from tests.gateway import running
from tests.gateway.running import CADDY, NGINX, Gateway, until, with_stubs

pytestmark = [pytest.mark.parts, pytest.mark.in_order]

# What a check may take in these tests.
PATIENCE_S = 0.5
# Requests one after the other, so that neither outlier detection nor the local limit is reached.
EACH = 12


KINDS = [
    pytest.param(running.envoy, id="envoy"),
    pytest.param(
        running.nginx,
        id="nginx",
        marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    ),
    pytest.param(
        running.caddy,
        id="caddy",
        marks=pytest.mark.skipif(CADDY is None, reason="caddy is not installed"),
    ),
]


@pytest.fixture(scope="module", params=KINDS)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with with_stubs(request.param(tmp_path_factory.mktemp("unasked"))) as it:
        yield it


def is_envoy(gateway: Gateway) -> bool:
    return "envoy" in gateway.processes


@pytest.fixture
def moving(gateway: Gateway, settings) -> Iterator[Feedback]:
    settings.VALKEY_URL = os.environ["VALKEY_URL"]
    client = redis.Redis.from_url(os.environ["VALKEY_URL"])
    client.flushdb()
    made = Feedback(
        Tail(gateway.log),
        client,
        watch=GatewayWatch("edge", PATIENCE_S),
        statistics=EnvoyStatistics(f"unix:{gateway.sockets['envoy-admin']}")
        if is_envoy(gateway)
        else None,
    )
    yield made
    made.tail.close()
    client.close()


def read(moving: Feedback) -> tuple[int, int]:
    """Read what the log has, and return how many were asked and how many got no answer."""
    while moving.step():
        pass
    return moving.watch.asked, moving.watch.unasked


def settled(moving: Feedback) -> tuple[int, int]:
    """The same once the log has all that was asked before."""
    time.sleep(1.0)  # twice what Envoy keeps lines back
    return read(moving)


def stop(gateway: Gateway, how: signal.Signals) -> None:
    for node in ("d01", "d02"):
        gateway.processes[node].send_signal(how)


def ask(gateway: Gateway, app: str, count: int = EACH) -> int:
    """Return how many of `count` answers say that no decider was behind them."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda k: gateway.get(f"{app}-{k}"), range(count)))
    return sum(answer.headers.get("sluice-unasked") == "true" for answer in answers)


def test_what_clients_see_marked_is_what_is_counted_and_shown(
    gateway: Gateway, moving: Feedback
) -> None:
    def counted() -> bool:
        return read(moving)[0] >= before[0] + asked

    before, asked = settled(moving), 0
    if moving.statistics is not None:
        moving.statistics.more()
    marked = ask(gateway, "awake")
    stop(gateway, signal.SIGSTOP)
    try:
        halted = ask(gateway, "halted")
    finally:
        stop(gateway, signal.SIGCONT)
    marked += halted
    marked += ask(gateway, "again")
    asked = 3 * EACH
    until(counted, "the access log", 5.0)
    assert halted == EACH
    assert read(moving) == (before[0] + asked, before[1] + marked)
    moving.tell()
    if moving.statistics is not None:
        assert moving.watch._reported == marked
    shown = fleet.read_fleet()
    assert shown.unasked[0] == moving.watch.unasked
    assert shown.unasked_share is not None and shown.unasked_share > 0.001
    # an answer that did not come counts as the time that the gateway waited
    assert shown.added_p99_ms is not None and shown.added_p99_ms >= 100.0


@pytest.mark.parametrize("path", ["/v2/payments/charges", "/v2/search", "/v2/orders/1"])
def test_whatever_the_gateway_does_without_an_answer_it_is_marked_and_counted(
    gateway: Gateway, moving: Feedback, path: str
) -> None:
    """A route refuses, serves or limits then."""
    before = settled(moving)
    answer = gateway.get("broken", path)
    assert answer.headers["sluice-unasked"] == "true"
    until(lambda: read(moving) == (before[0] + 1, before[1] + 1), "the access log", 5.0)


def test_how_long_a_decider_was_asked_is_told(gateway: Gateway, moving: Feedback) -> None:
    before = settled(moving)[0]
    assert gateway.get("good").status == 200
    until(lambda: read(moving)[0] == before + 1, "the access log", 5.0)
    told = moving.watch.status(0.0, time.monotonic())
    assert 0.0 < told.recent_p99_ms <= PATIENCE_S * 1e3


def test_a_client_cannot_make_itself_look_unasked_nor_hide_it(
    gateway: Gateway, moving: Feedback
) -> None:
    forged = {"sluice_unasked": "true", "x_envoy_auth_failure_mode_allowed": "true"}
    answer = gateway.get("honest", **forged)
    assert "sluice-unasked" not in answer.headers
    answer = gateway.get("broken", sluice_unasked="false")
    assert answer.headers["sluice-unasked"] == "true"


def test_a_503_of_the_decider_itself_is_no_refusal(gateway: Gateway, moving: Feedback) -> None:
    # the stub answers "broken" with a 500, as a decider does that came too late
    answer = gateway.get("broken", "/v2/search")
    assert (answer.status, answer.headers["sluice-unasked"]) == (200, "true")


def test_example_says_how_soon_envoy_writes_its_log() -> None:
    text = (Path(__file__).parents[2] / "examples/gateway/envoy.yaml").read_text()
    assert "--file-flush-interval-msec 500" in text
