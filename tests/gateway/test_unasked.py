"""Checks that no decider answers, on a real Envoy: the client is told, and they are counted."""

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
from tests.gateway.running import Gateway, until
from tests.gateway.test_envoy import with_stubs

pytestmark = [pytest.mark.parts, pytest.mark.in_order]

# What a check may take here: a stub needs more than 15 ms now and then.
PATIENCE_S = 0.2
# Requests one after the other, so that neither outlier detection nor the local limit is reached.
EACH = 12


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("unasked")
    with with_stubs(folder, patience=f"{PATIENCE_S}s") as it:
        yield it


@pytest.fixture
def moving(gateway: Gateway, settings) -> Iterator[Feedback]:
    settings.VALKEY_URL = os.environ["VALKEY_URL"]
    client = redis.Redis.from_url(os.environ["VALKEY_URL"])
    client.flushdb()
    statistics = EnvoyStatistics(f"http://127.0.0.1:{gateway.ports['envoy-admin']}")
    made = Feedback(
        Tail(gateway.log), client, watch=GatewayWatch("edge", PATIENCE_S), statistics=statistics
    )
    yield made
    made.tail.close()
    client.close()


def read(moving: Feedback) -> tuple[int, int]:
    """Read what the log has, and return how many were asked and how many got no answer."""
    while moving.step():
        pass
    return moving.watch.asked, moving.watch.unasked


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

    time.sleep(1.0)  # what the fixtures asked is in the log
    before, asked = read(moving), 0
    moving.statistics.more()  # type: ignore[union-attr]
    marked = ask(gateway, "awake")
    stop(gateway, signal.SIGSTOP)
    try:
        halted = ask(gateway, "halted")
    finally:
        stop(gateway, signal.SIGCONT)
    ended = time.monotonic()
    marked += halted
    marked += ask(gateway, "again")
    asked = 3 * EACH
    until(counted, "the access log", 5.0)
    assert halted == EACH
    assert read(moving) == (before[0] + asked, before[1] + marked)
    moving.tell()
    assert moving.watch._reported == marked
    shown = fleet.read_fleet()
    assert time.monotonic() - ended < 60.0
    assert shown.unasked[0] == moving.watch.unasked
    assert shown.unasked_share is not None and shown.unasked_share > 0.001
    # an answer that did not come counts as the time that the gateway waited
    assert shown.added_p99_ms is not None and shown.added_p99_ms >= min(PATIENCE_S * 1e3, 100.0)


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
    answer = gateway.get("broken")
    assert (answer.status, answer.headers["sluice-unasked"]) == (200, "true")


def test_example_says_how_soon_envoy_writes_its_log() -> None:
    text = (Path(__file__).parents[2] / "examples/gateway/envoy.yaml").read_text()
    assert "--file-flush-interval-msec 500" in text
