"""Who may go on when the burst is used up: apps with proof of honesty, by their tier."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from decider import policy
from decider.contracts import defaults
from decider.contracts.features import INDEX as F
from decider.contracts.features import N_FEATURES
from decider.contracts.requests import CheckRequest
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import N_SIGNALS
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, Reason
from decider.engine.engine import Engine
from tests.decider.test_engine import NOW, config, engine

DAY_S = 86_400.0


def honest(**more: float) -> np.ndarray:
    """Features of an app with proof of honesty, some of them changed."""
    row = np.zeros(N_FEATURES, np.float32)
    usual = {"verified": 1.0, "app_age": 400.0, "write_share_600s": 0.3, "sign_in_share_600s": 0.1}
    for name, value in (usual | more).items():
        row[F[name]] = value
    return row


@pytest.mark.parametrize(
    ("changed", "proven"),
    [
        ({}, True),
        ({"verified": 0.0}, False),
        ({"app_age": 29.0}, False),
        ({"abuse_history": 1.0}, False),
        ({"sign_in_share_600s": 0.6}, False),
        ({"write_share_600s": 0.95}, False),
    ],
)
def test_what_is_proof_of_honesty(changed: dict[str, float], proven: bool) -> None:
    rules = policy.rules_of(defaults.config())
    assert policy.is_proven(honest(**changed)) == proven
    assert policy.withheld(50.0, 0, honest(**changed), rules) == (0.0 if proven else 50.0)


def test_the_headroom_is_the_tiers_share_of_the_burst() -> None:
    tiers = [msgspec.structs.replace(t, headroom=0.25) for t in defaults.TIERS]
    rules = policy.rules_of(config(tiers=tiers))
    assert policy.withheld(100.0, 2, honest(), rules) == 75.0
    open_to_all = [msgspec.structs.replace(t, headroom_to="all") for t in defaults.TIERS]
    rules = policy.rules_of(config(tiers=open_to_all))
    assert policy.withheld(100.0, 2, honest(verified=0.0), rules) == 0.0


def admitted(made: Engine, count: int) -> int:
    answers = [made.decide([CheckRequest("app_1", "GET", "/v2/orders/1")], NOW)[0].action]
    answers += [
        made.decide([CheckRequest("app_1", "GET", f"/v2/orders/{k}")], NOW)[0].action
        for k in range(count - 1)
    ]
    return answers.count(Action.ADMIT)


def of_age(made: Engine, days: float, verified: bool) -> None:
    made.know([Profile("app_1", "One", "t", 1, NOW - days * DAY_S, verified, 0.01)], NOW)


def test_a_stranger_gets_what_the_plan_promises_and_no_more() -> None:
    """The fallback limiter admits as many: the model widens no plan for whoever is unknown."""
    unknown, plain = engine(ml=True), engine()
    burst = defaults.TIERS[0].burst
    assert admitted(unknown, 200) <= admitted(plain, 200) == burst
    last = unknown.batch.answer[0]
    if last["stage"] == policy.TRIAGE:
        assert last["reason"] == Reason.BURST_EXHAUSTED


@pytest.mark.parametrize(
    ("tokens", "withheld", "admits"),
    [
        (1.0, 300.0, True),
        (0.99, 300.0, False),
        (0.99, 0.0, True),
        (-250.0, 0.0, True),
        (-299.0, 0.0, False),
        (-60.0, 225.0, True),
        (-75.0, 225.0, False),
    ],
)
def test_below_an_empty_bucket_only_the_headroom_admits(
    tokens: float, withheld: float, admits: bool
) -> None:
    signals = np.zeros(N_SIGNALS)
    signals[S["tier"]], signals[S["ml_state"]] = 1.0, policy.ML_LIVE
    signals[S["bucket_burst"]], signals[S["bucket_rate"]] = 300.0, 15.0
    signals[S["quota_left"]], signals[S["override_action"]] = 1e6, -1.0
    signals[S["tenant_fair_share"]], signals[S["error_budget_left"]] = np.inf, 10.0
    signals[S["tokens"]], signals[S["headroom_withheld"]] = tokens, withheld
    action = policy.decide(signals, honest(), 0.01, 0.9, policy.rules_of(defaults.config()))[0]
    assert (action == policy.ADMIT) == admits


def test_the_engine_withholds_by_what_it_knows_of_the_app() -> None:
    burst = defaults.TIERS[1].burst
    for days, verified, withheld in ((400.0, True, 0.0), (2.0, True, burst), (400.0, False, burst)):
        made = engine(ml=True)
        of_age(made, days, verified)
        admitted(made, 1)
        assert made.signals[0, S["headroom_withheld"]] == withheld
