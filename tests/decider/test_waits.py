"""The wait that a refused client is told: one number in field, body and record, with jitter."""

from __future__ import annotations

import json
import math

import pytest

from decider.contracts.requests import CheckRequest, Decision
from decider.contracts.vocabulary import Action, Reason
from decider.engine.answers import waits
from decider.engine.engine import Engine
from decider.engine.memory import app_state
from decider.http import ratelimit_fields
from decider.http.responses import Answers
from decider.refusal.client import Teller
from tests.decider.test_engine import NOW, engine


def refused(made: Engine, app: str, at: float = NOW) -> Decision:
    """Spend an app's tokens and return its first refusal."""
    for _ in range(10_000):
        (answer,) = made.decide([CheckRequest(app, "GET", "/v2/orders/1")], at)
        if answer.action != Action.ADMIT:
            return answer
    raise AssertionError("nothing was refused")


def test_waits_of_clients_refused_together_differ_in_whole_seconds() -> None:
    """As Retry-After says them: a fraction would be rounded away. Half wait a second longer."""
    made = engine()
    told = [refused(made, f"app-{k}").retry_after for k in range(200)]
    assert set(told) == {1.0, 2.0}
    assert 70 <= told.count(2.0) <= 130


@pytest.mark.parametrize(
    ("wait", "most"), [(1.0, 2.0), (4.3, 6.0), (15.0, 18.0), (300.0, 359.0), (1200.0, 1259.0)]
)
def test_jitter_adds_up_to_a_fifth_a_second_at_least_and_a_minute_at_most(wait, most) -> None:
    told = [waits.with_jitter(wait, k / 1000) for k in range(1000)]
    assert (min(told), max(told)) == (math.ceil(wait), most)
    counts = [told.count(second) for second in sorted(set(told))]
    assert len(counts) == most - math.ceil(wait) + 1
    # spread evenly, not gathered at one end
    assert max(counts) - min(counts) <= 1


def test_the_same_traffic_is_told_the_same_waits() -> None:
    first, second = ([refused(made, "app-1").retry_after] for made in (engine(), engine()))
    assert first == second


def test_who_asks_again_early_is_told_the_deadline_that_stands() -> None:
    made = engine(ml=True)
    answer = refused(made, "app_1")
    slot = made.slot_of("app_1")
    until = made.state.clock[slot, app_state.RETRY_UNTIL]
    if made.batch.answer[0]["ranked"]:
        (again,) = made.decide([CheckRequest("app_1", "GET", "/v2/orders/1")], NOW + 0.001)
        assert again.action != Action.ADMIT
        if answer.retry_after > 1.001:
            assert again.retry_after == until - (NOW + 0.001)
            assert made.state.clock[slot, app_state.RETRY_UNTIL] == until


@pytest.mark.parametrize("status", [429, 503])
def test_every_refusal_with_a_wait_has_a_policy_that_is_used_up_no_longer_than_it(status) -> None:
    """Load and risk refuse while the bucket still holds tokens: `r=50;t=0` alone would mislead."""
    action = {429: Action.DEFER, 503: Action.SHED}[status]
    decision = Decision(bytes(16), action, 3, int(Reason.RISK_HIGH), 15.2, 50, 10, 50, 0.0)
    text = Answers(NOW).check(decision, 0)
    fields = dict(line.split(": ", 1) for line in text.split("\r\n\r\n")[0].split("\r\n")[1:])
    wait = int(fields["retry-after"])
    assert wait == math.ceil(15.2)
    state = ratelimit_fields.parse(fields["ratelimit"])
    assert any(p["r"] == 0 and p["t"] <= wait for p in state.values())
    assert state["burst"] == {"r": 50, "t": 0}
    assert set(state) == set(ratelimit_fields.parse(fields["ratelimit-policy"]))


def test_the_body_carries_the_receipt_of_the_field() -> None:
    made = engine()
    made.teller = Teller(bytes(32))
    decision = refused(made, "app_1")
    text = Answers(NOW).check(decision, 0)
    head, body = text.split("\r\n\r\n", 1)
    assert json.loads(body)["receipt"] == decision.receipt != ""
    assert f"sluice-receipt: {decision.receipt}" in head
