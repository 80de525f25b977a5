"""Every limit is shown, before and after, and the one that fired is marked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from decider import policy
from decider.contracts import defaults
from decider.contracts.features import INDEX
from decider.contracts.vocabulary import REASONS, Action, MlState, Reason
from decider.engine.routing import Router
from decider.engine.text_hash import TextHash
from explain.comparison import effective_config, limits
from tests.decisions.factory import signal_vector
from tests.explain import world

ROW = min(world.rows(60, seed=3, missing=False), key=lambda row: row[INDEX["rate_10s"]])
"""A quiet app."""


def by_key(**seen) -> dict[str, limits.Limit]:
    event = world.decided(ROW, **seen)
    return {one.key: one for one in limits.evaluate_limits(event, world.config())}


@pytest.mark.parametrize(
    ("seen", "fired", "word"),
    [
        ({"seen_quota_left": 0.0}, "quota", "spent"),
        ({"seen_quota_left": 0.0, "seen_lease_due": 1.0}, "quota", "spent"),
        ({"seen_list_verdict": 2.0}, "lists", "over"),
        ({"seen_override_action": 3.0}, "override", "over"),
        ({"ml_state": MlState.SWITCHED_OFF}, "bucket", "spent"),
        ({"seen_tokens": -299.5}, "bucket", "spent"),
    ],
)
def test_the_limit_that_fired_is_marked_and_all_others_are_there(seen, fired, word) -> None:
    found = by_key(**seen)
    assert len(found) == 11
    assert [key for key, one in found.items() if one.fired] == [fired]
    assert found[fired].word == word


def test_an_admit_takes_a_token_a_request_of_the_quota_and_nothing_of_the_error_budget() -> None:
    found = by_key(seen_tokens=100.0, seen_quota_left=50.0)
    assert (found["bucket"].before, found["bucket"].after) == ("100", "99")
    assert (found["quota"].before, found["quota"].after) == ("50", "49")
    assert found["budget"].before == found["budget"].after


def test_a_part_of_a_request_is_none() -> None:
    assert by_key(seen_quota_left=0.8, seen_lease_due=1.0)["quota"].before == "0"


def test_a_refusal_takes_no_token_but_its_chance_to_be_wrong_from_the_error_budget() -> None:
    refused = next(
        e
        for e in (world.decided(r) for r in world.rows(60, seed=2, missing=False))
        if e.reason == Reason.RISK_HIGH
    )
    found = {one.key: one for one in limits.evaluate_limits(refused, world.config(), cut=0.4)}
    assert found["bucket"].before == found["bucket"].after
    assert found["risk"].limit == "changes at 0.40"
    assert (found["budget"].before, found["budget"].word) == ("5.00", "within")
    wrong = f"{1.0 - refused.risk:.2f}, its chance of being wrong"
    assert found["budget"].limit == f"1 in 20 of its requests; this refusal takes {wrong}"
    big = structs.replace(refused, tier=3, signals=budget_signals(error_budget_rate=0.0001))
    after = budget_row(big)
    assert after.before == "5.00"
    assert after.limit.startswith("1 in 10,000 of its requests; this refusal takes ")
    assert float(after.after) == pytest.approx(5.0 - (1.0 - refused.risk), abs=0.006)
    # at the bottom of the headroom ML had no choice
    end = budget_signals(error_budget_rate=0.0001, tokens=-300.0)
    spared = budget_row(structs.replace(big, signals=end))
    assert spared.after == "5.00"
    assert spared.limit.endswith("; this refusal takes none: the plan was used up")


def test_a_record_of_before_the_rate_shows_its_hourly_budget() -> None:
    old = structs.replace(world.decided(ROW), signals=budget_signals())
    assert budget_row(old).limit.startswith("10 an hour")


def budget_signals(**seen: float) -> bytes:
    return signal_vector(tier=1, bucket_burst=300.0, error_budget_left=5.0, **seen)


def budget_row(event) -> limits.Limit:
    return next(one for one in limits.evaluate_limits(event, world.config()) if one.key == "budget")


ADMITS = {Reason.ALLOW_LISTED, Reason.OVERRIDE_ADMIT, Reason.HARMLESS, Reason.TOKENS_LEFT}
"""Reasons that can only admit."""
REFUSALS = sorted(set(Reason) - ADMITS - {Reason.NONE})


@pytest.mark.parametrize("reason", REFUSALS, ids=lambda r: r.name)
def test_every_reason_a_refusal_can_have_marks_exactly_one_limit(reason) -> None:
    event = structs.replace(
        world.decided(ROW),
        action=int(Action.DEFER),
        reason=int(reason),
        stage=int(REASONS[reason].stage),
    )
    assert sum(one.fired for one in limits.evaluate_limits(event, world.config())) == 1


def test_a_shed_for_risk_marks_the_risk_and_the_service_that_was_short_of_room() -> None:
    event = structs.replace(
        world.decided(ROW),
        action=int(Action.SHED),
        reason=int(Reason.RISK_HIGH),
        stage=int(REASONS[Reason.RISK_HIGH].stage),
    )
    found = limits.evaluate_limits(event, world.config())
    assert [one.key for one in found if one.fired] == ["risk", "service"]


@given(
    tokens=st.floats(-320, 300),
    price=st.floats(0, 3),
    usage=st.floats(0, 40),
    fair=st.sampled_from([10.0, np.inf]),
    budget=st.floats(0, 10),
    quota=st.sampled_from([0.0, 50.0]),
    listed=st.sampled_from([0.0, 1.0, 2.0]),
    risk=st.floats(0, 1),
    value=st.floats(0, 1),
    prior=st.floats(0, 1),
    forced=st.sampled_from([-1, -1, *Action]),
    ml=st.sampled_from(MlState),
)
def test_no_refusal_is_decided_for_a_reason_without_a_limit(
    tokens, price, usage, fair, budget, quota, listed, risk, value, prior, forced, ml
) -> None:
    seen = signal_vector(
        tier=1,
        tokens=tokens,
        bucket_rate=15.0,
        bucket_burst=300.0,
        service_price=price,
        tenant_usage=usage,
        tenant_fair_share=fair,
        error_budget_left=budget,
        quota_left=quota,
        list_verdict=listed,
        prior_risk=prior,
        prior_value=prior,
        ml_state=float(ml),
        override_action=float(forced),
        cost=2.0,
    )
    action, _, reason, _ = policy.decide(
        np.frombuffer(seen, np.float64), ROW, risk, value, policy.rules_of(world.config())
    )
    assert action == Action.ADMIT or Reason(reason) in REFUSALS
    assert Reason(reason) in limits.FIRED


@pytest.mark.parametrize(
    ("seen", "limit", "word"),
    [
        ({"value": 0.2}, "1.00 is usual, serving it costs nothing now", "within"),
        ({"value": 0.2, "price": 0.1}, "1.00 is usual, serving it costs 0.10 now", "below"),
        ({"value": 0.7}, "1.00 is usual, serving it costs nothing now", "within"),
        ({"value": 0.7, "price": 1.5}, "1.00 is usual, serving it costs 1.50 now", "below"),
        ({"value": None}, "no model was asked", "not asked"),
    ],
)
def test_what_a_request_is_worth_stands_beside_the_usual_and_the_price(seen, limit, word) -> None:
    signals = signal_vector(
        tier=1,
        prior_value=0.5,
        service_price=seen.get("price", 0.0),
        cost=1.0,
        tenant_usage=5.0,
        tenant_fair_share=5.0,
    )
    event = structs.replace(
        world.decided(ROW),
        value=seen["value"],
        reason=int(Reason.VALUE_LOW),
        action=1,
        signals=signals,
    )
    found = next(one for one in limits.evaluate_limits(event, world.config()) if one.key == "value")
    assert (found.fired, found.limit, found.word) == (True, limit, word)


def test_every_machine_reason_that_names_a_limit_names_one_that_is_shown() -> None:
    assert set(limits.FIRED.values()) <= set(by_key())


def test_a_request_costs_what_the_engine_counted_whatever_its_path_was() -> None:
    """Another document is tried with the same rule: an unreadable path is never the cheapest."""
    config = structs.replace(world.config(), services=defaults.SERVICES)
    for method, path, batchable in (
        ("POST", "/v2/payments/charges", 0.0),
        ("POST", "", 0.0),
        ("GET", "/v2/payments/17", 0.0),
        ("GET", "/v2/orders/17", 1.0),
    ):
        router = Router(config, TextHash(b"k" * 32))
        route = router.route(method, path, "" if "orders" in path else "payments")
        service = router.names[route.service]
        event = structs.replace(
            world.decided(ROW), method=method, endpoint=route.endpoint, service=service
        )
        assert effective_config.find_endpoint(config, event) == (route.cost, batchable)


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        ({"tenant_fair_share": math.inf}, "as all demand of its tier and those above fits"),
        ({"tenant_fair_share": 2.0, "waited": 1.0}, "which had waited as told"),
        ({"tenant_fair_share": 2.0}, ""),
    ],
)
def test_a_price_that_does_not_count_for_a_request_says_why(seen, says) -> None:
    signals = signal_vector(tier=1, service_price=4.0, service_utilisation=3.65, cost=1.0, **seen)
    event = structs.replace(world.decided(ROW), signals=signals)
    row = next(o for o in limits.evaluate_limits(event, world.config()) if o.key == "service")
    assert (row.word == "within") == bool(says)
    assert ("not for this one" in row.limit) == bool(says) and says in row.limit
