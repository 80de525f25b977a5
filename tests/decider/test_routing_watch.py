"""A decider tells when requests go elsewhere than it thought."""

from __future__ import annotations

import logging

import pytest

from decider.contracts import defaults
from decider.contracts.requests import CheckRequest, Outcome
from decider.engine.engine import Engine
from decider.node.routing_watch import RECENT_S, RoutingWatch

NOW = 1_790_000_000.0


@pytest.fixture
def engine() -> Engine:
    made = Engine("d01", "local", b"k" * 32, capacity=1024)
    made.apply(defaults.config(), None)
    return made


def outcome(service: str, endpoint: str = "POST /v2/payments/charges", named: str = "") -> Outcome:
    return Outcome("app_1", service, NOW, 200, 5.0, endpoint=endpoint, named=named)


def test_an_outcome_of_another_service_is_counted_logged_and_shown(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    watch = RoutingWatch(engine)
    with caplog.at_level(logging.WARNING):
        watch.look([outcome("orders-read"), outcome("payments")], 10.0)
    told = watch.status(11.0)
    assert (told.misrouted, told.recent_misrouted) == (1, 1)
    assert told.example == (
        "POST /v2/payments/charges was decided for payments and served by orders-read"
    )
    assert told.example in caplog.text


@pytest.mark.parametrize(
    ("one", "wrong"),
    [
        (outcome("payments", "POST /v2/paymentsX/charges"), True),
        (outcome("payments", "POST /v2/paymentsX/charges", named="payments"), False),
        (outcome("search", named="payments"), True),
        (outcome("nobody", named="nobody"), True),
        (outcome("payments", named="nobody"), False),
        (outcome("payments", endpoint=""), False),
    ],
)
def test_what_the_gateway_named_counts_before_what_the_path_tells(
    engine: Engine, one: Outcome, wrong: bool
) -> None:
    watch = RoutingWatch(engine)
    watch.look([one], 0.0)
    assert watch.status(0.0).misrouted == wrong


def test_a_wrong_route_is_logged_ever_more_rarely(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    RoutingWatch(engine).look([outcome("search")] * 1_000, 0.0)
    assert len(caplog.records) == 10


def test_unknown_paths_are_recent_for_some_minutes(engine: Engine) -> None:
    watch = RoutingWatch(engine)
    watch.status(0.0)
    paths = ["/elsewhere", "", "/v2/orders/1", "/v2/orders/2"]
    engine.decide([CheckRequest("app_1", "GET", path) for path in paths], NOW)
    engine.decide([CheckRequest("app_1", "GET", "/v2/orders/3", service="nobody")], NOW)
    told = watch.status(100.0)
    assert (told.unknown_paths, told.unknown_services) == (2, 1)
    assert (told.recent_decisions, told.recent_unknown_paths) == (5, 2)
    for second in range(110, 110 + int(RECENT_S), 10):
        told = watch.status(float(second))
    assert (told.recent_decisions, told.recent_unknown_paths, told.unknown_paths) == (0, 0, 2)


def test_a_decider_without_a_config_looks_at_nothing() -> None:
    watch = RoutingWatch(Engine("d01", "local", b"k" * 32, capacity=64))
    watch.look([outcome("search")], 0.0)
    assert watch.status(0.0).misrouted == 0
