"""A client that waits as it was told and repeats its request finds the place kept for it, though
the service is still short of room.
"""

from __future__ import annotations

import copy

import msgspec
import numpy as np
import pytest

from decider import policy
from decider.contracts import defaults
from decider.contracts.features import N_FEATURES
from decider.contracts.requests import CheckRequest, Decision
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import N_SIGNALS, unpack
from decider.contracts.vocabulary import Action, MlState, Reason, Stage, Tier
from decider.engine.answers import waits
from decider.engine.engine import Engine
from decider.engine.memory import app_state
from decider.engine.shared import service_control
from decider.engine.shared import state as shared_state
from decider.whatif.replay import decide_again
from tests.decider.model import small_model
from tests.decider.test_engine import NOW, engine, of_tier, with_model

SERVICE = 0
PATH = "/v2/orders/1"


def crowded(*apps: str) -> Engine:
    """Return an engine whose first service has no room for free apps, and stays so."""
    made = engine(ml=True)
    for app in apps:
        of_tier(made, Tier.FREE, app)
    row = made.shared.service[SERVICE]
    row[shared_state.PRICE] = service_control.PRICE_MAX
    row[shared_state.ROOM] = row[shared_state.CAPACITY] * row[shared_state.TARGET]
    row[shared_state.LEVEL :] = 0.0
    return made


def ask(made: Engine, now: float, app: str = "app_1", path: str = PATH) -> Decision:
    return made.decide([CheckRequest(app, "GET", path)], now)[0]


def test_a_repeat_after_the_wait_is_admitted_though_the_overload_goes_on() -> None:
    made = crowded("app_1", "app_2")
    refused = ask(made, NOW)
    assert refused.action != Action.ADMIT
    assert ask(made, NOW + refused.retry_after, "app_2").action != Action.ADMIT
    again = ask(made, NOW + refused.retry_after)
    assert (again.action, again.stage, again.reason) == (
        Action.ADMIT,
        Stage.RERANK,
        Reason.WAITED,
    )


def test_only_the_request_that_was_refused_has_a_place_and_only_once() -> None:
    made = crowded("app_1")
    due = NOW + ask(made, NOW).retry_after
    assert ask(made, due, path="/v2/orders/2").action != Action.ADMIT
    made = crowded("app_1")
    due = NOW + ask(made, NOW).retry_after
    assert ask(made, due).action == Action.ADMIT
    assert ask(made, due + 0.1).action != Action.ADMIT


def test_who_comes_back_too_soon_has_no_place_yet_and_gets_no_second_one() -> None:
    made = crowded("app_1")
    first = ask(made, NOW)
    slot, booked = made.slot_of("app_1"), made.shared.service[SERVICE, shared_state.BOOKED]
    for step in range(5):
        early = ask(made, NOW + 0.01 * (step + 1))
        assert early.action != Action.ADMIT
    assert made.state.clock[slot, app_state.PLACES] == 1.0
    if first.retry_after >= 2.0:
        assert made.shared.service[SERVICE, shared_state.BOOKED] == booked
    due = made.state.clock[slot, app_state.RETRY_UNTIL]
    assert ask(made, due).action == Action.ADMIT


def test_places_follow_one_another_at_the_share_of_the_room_that_is_kept() -> None:
    apps = [f"app_{k}" for k in range(400)]
    made = crowded(*apps)
    told = [ask(made, NOW, app).retry_after for app in apps]
    kept = service_control.KEPT_SHARE * made.shared.service[SERVICE, shared_state.ROOM]
    last = len(apps) / kept
    assert made.shared.service[SERVICE, shared_state.BOOKED] - NOW == pytest.approx(last, abs=1e-3)
    assert last <= max(told) <= 1.2 * last + 2.0
    assert told[0] <= 2.0


def test_a_flood_of_different_requests_books_few_places() -> None:
    made = crowded("app_1")
    for k in range(200):
        ask(made, NOW + k / 1e3, path=f"/v2/orders/{k}")
    assert made.state.clock[made.slot_of("app_1"), app_state.PLACES] <= app_state.MOST_PLACES
    kept = service_control.KEPT_SHARE * made.shared.service[SERVICE, shared_state.ROOM]
    booked = (made.shared.service[SERVICE, shared_state.BOOKED] - NOW) * kept
    assert booked <= app_state.MOST_PLACES + 1


def test_requests_refused_together_all_have_a_place() -> None:
    made = crowded("app_1")
    paths = [f"/v2/orders/{k}" for k in range(app_state.MOST_PLACES)]
    told = [ask(made, NOW + k / 1e3, path=path) for k, path in enumerate(paths)]
    assert Action.ADMIT not in {each.action for each in told}
    due = NOW + max(each.retry_after for each in told) + 0.1
    assert [ask(made, due, path=path).action for path in paths] == [Action.ADMIT] * len(paths)


def risky() -> Engine:
    """Return an engine that refuses a free app for its risk while nothing is short."""
    model = copy.copy(small_model())

    def score_into(_, rows, count, scores, *__) -> None:
        scores[rows[:count]] = (0.0, 0.0, 0.7, 0.5)

    model.score_into = score_into
    tiers = [msgspec.structs.replace(each, error_budget=1.0) for each in defaults.TIERS]
    made = Engine("d01", "local", b"k" * 32, capacity=64)
    made.apply(with_model(tiers=tiers), model)
    of_tier(made, Tier.FREE, cohort_prior=0.9)
    return made


def test_a_refusal_for_risk_waits_long_enough_and_has_one_place() -> None:
    made = risky()
    told = [ask(made, NOW + k / 10, path=f"/v2/orders/{k}") for k in range(8)]
    assert {each.reason for each in told} == {Reason.RISK_HIGH}
    assert told[0].retry_after >= waits.RISK_WAIT_S
    due = NOW + max(k / 10 + each.retry_after for k, each in enumerate(told))
    again = [ask(made, due + k / 10, path=f"/v2/orders/{k}") for k in range(8)]
    assert [each.action for each in again].count(Action.ADMIT) == 1


def test_an_abuser_that_waits_gets_few_requests_a_minute() -> None:
    made, admitted, due = risky(), 0, NOW
    for _ in range(200):
        answer = ask(made, due)
        admitted += answer.action == Action.ADMIT
        due += answer.retry_after if answer.action != Action.ADMIT else 0.05
    assert 0 < admitted <= (due - NOW) / waits.RISK_WAIT_S + 1


FIGURES = {
    "ml_state": int(MlState.LIVE),
    "quota_left": 1e5,
    "override_action": -1.0,
    "tokens": 50.0,
    "bucket_rate": 5.0,
    "bucket_burst": 50.0,
    "headroom_withheld": 50.0,
    "cost": 1.0,
    "service_price": 3.0,
    "prior_risk": 0.05,
    "prior_value": 0.5,
    "error_budget_left": np.inf,
    "error_budget_rate": 1.0,
}


def decide(risk: float, **figures: float) -> int:
    """Decide a request of a free app at a service that is short of room."""
    signals = np.zeros(N_SIGNALS)
    for name, figure in {**FIGURES, **figures}.items():
        signals[S[name]] = figure
    features, rules = np.zeros(N_FEATURES, np.float32), policy.rules_of(defaults.config())
    return policy.decide(signals, features, risk, 0.1, rules)[0]


def test_who_waited_is_not_told_to_wait_again_but_may_be_blocked() -> None:
    waiting = [risk / 100 for risk in range(100) if decide(risk / 100) not in policy.NO_WAIT]
    assert min(waiting) <= 0.05
    assert {decide(risk, waited=1.0) for risk in waiting if risk < 0.5} == {Action.ADMIT}
    assert decide(0.99, waited=1.0) == Action.BLOCK


def test_who_waited_still_needs_a_token() -> None:
    assert decide(0.05, waited=1.0, tokens=0.5) == Action.DEFER


def test_the_records_of_refusal_and_repeat_decide_again_to_the_bit() -> None:
    made = crowded("app_1")
    refused = ask(made, NOW)
    ask(made, NOW + refused.retry_after)
    first, second = made.take_events()
    assert first.retry_after == refused.retry_after
    assert (unpack(first.signals)[S["waited"]], unpack(second.signals)[S["waited"]]) == (0.0, 1.0)
    for event in (first, second):
        assert decide_again(event, with_model(), small_model()).identical


def test_a_record_of_before_reads_as_one_that_had_not_waited() -> None:
    made = crowded("app_1")
    ask(made, NOW)
    (event,) = made.take_events()
    assert unpack(event.signals[:-8])[S["waited"]] == 0.0
