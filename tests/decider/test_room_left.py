"""What the RateLimit fields promise: headroom to whom it belongs, and never more than there is."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider import policy
from decider.contracts import defaults
from decider.contracts.config import Override, Switch
from decider.contracts.requests import CheckRequest, Decision
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, Reason
from decider.engine.engine import Engine
from tests.decider.model import small_model
from tests.decider.test_engine import NOW, engine, with_model

DAY_S = 86_400.0
READ, WRITE, SIGN_IN = ("GET", "/v2/orders/1"), ("POST", "/v2/orders"), ("POST", "/login")
KINDS = (READ, WRITE, SIGN_IN)


class Mild:
    """A model that takes every request for harmless and useful, whatever its pace."""

    digest = small_model().digest

    def score_into(
        self, features: np.ndarray, rows: np.ndarray, count: int, scores: np.ndarray, _: object
    ) -> None:
        """Write raw risk and value, risk and value of the rows listed first."""
        scores[rows[:count]] = (-4.6, 2.2, 0.01, 0.9)


def made_for(
    burst: float,
    headroom: float,
    *,
    rate: float = 1.0,
    to: str = "proven",
    verified: bool = True,
    mild: bool = True,
    **more: object,
) -> Engine:
    """Make an engine with one app, on a plan of this burst and headroom."""
    tiers = [
        msgspec.structs.replace(t, rate=rate, burst=burst, headroom=headroom, headroom_to=to)
        for t in defaults.TIERS
    ]
    made = engine(with_model(tiers=tiers, **more), ml=True, capacity=64)
    made.know([Profile("app_1", "One", "t", 1, NOW - 400 * DAY_S, verified, 0.01)], NOW)
    if mild:
        made.model = Mild()  # type: ignore[assignment]
    return made


def send(made: Engine, kind: tuple[str, str], at: float) -> Decision:
    return made.decide([CheckRequest("app_1", *kind)], at)[0]


def plan_refuses(made: Engine) -> bool:
    """Return whether the last request found the plan's room ended."""
    sig = made.signals[0]
    if sig[policy.S_ML] != policy.ML_LIVE:
        return bool(sig[policy.S_TOKENS] < 1.0)
    return bool(policy.headroom_spent(sig))


bursts = st.sampled_from([1.0, 2.5, 4.0, 6.0, 7.3])
headrooms = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.97, 1.0])
# mostly at one instant, as nothing refills then
traffic = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.3, 1.7, 400.0]), st.sampled_from(KINDS)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(bursts, headrooms, st.sampled_from(["proven", "all"]), st.booleans(), st.booleans(), traffic)
def test_it_promises_no_request_that_the_plan_then_refuses_at_that_instant(
    burst: float, headroom: float, to: str, verified: bool, mild: bool, sent: list
) -> None:
    made, at = made_for(burst, headroom, to=to, verified=verified, mild=mild), NOW
    promised = 0
    for gap, kind in sent:
        at += gap
        promised = 0 if gap else promised
        answer = send(made, kind, at)
        refuses = plan_refuses(made)
        assert not (promised and refuses)
        if refuses or (answer.action != Action.ADMIT and answer.reason == Reason.BURST_EXHAUSTED):
            assert answer.remaining == 0
        assert 0 <= answer.remaining <= answer.limit
        promised = max(promised - 1, answer.remaining)


@settings(max_examples=60, deadline=None)
@given(bursts, headrooms, st.sampled_from(["proven", "all"]))
def test_it_is_nought_exactly_when_the_plan_refuses_the_next_one(
    burst: float, headroom: float, to: str
) -> None:
    """Of an app whose proof is out of question: it has read a lot."""
    made, at = made_for(burst, headroom, to=to), NOW
    for _ in range(100):
        at += burst
        send(made, READ, at)
    at += 2 * burst
    before = math.inf
    for _ in range(2 * math.ceil(burst) + 2):
        answer = send(made, READ, at)
        if before != math.inf:
            assert plan_refuses(made) == (before == 0)
        if answer.action == Action.ADMIT:
            assert answer.remaining == min(before, answer.limit) - 1
        before = answer.remaining


@settings(max_examples=40, deadline=None)
@given(bursts, headrooms, headrooms, traffic)
def test_what_an_app_without_headroom_is_told_does_not_depend_on_it(
    burst: float, one: float, other: float, sent: list
) -> None:
    first, second = (made_for(burst, share, verified=False) for share in (one, other))
    at = NOW
    for gap, kind in sent:
        at += gap
        told = [
            (a.limit, a.window, a.remaining, a.reset)
            for a in (send(made, kind, at) for made in (first, second))
        ]
        assert told[0] == told[1]
        tokens = first.state.clock[first.slot_of("app_1"), 3]
        assert told[0] == (
            int(burst),
            math.ceil(burst),
            int(max(0.0, tokens)),
            pytest.approx(burst - tokens),
        )


def steady(made: Engine, requests: int = 300) -> float:
    """Have the app read for some minutes; return when its bucket is full again."""
    for k in range(requests):
        send(made, READ, NOW + k)
    return NOW + requests + 200.0


def test_an_app_with_proof_sees_burst_and_headroom_and_counts_down_through_both() -> None:
    made = made_for(50.0, 1.0)
    at = steady(made)
    told = [send(made, READ, at) for _ in range(100)]
    assert [d.remaining for d in told[:99]] == list(range(98, -1, -1))
    assert {(d.limit, d.window) for d in told} == {(99, 100)}
    assert [d.action for d in told[:99]] == [Action.ADMIT] * 99
    assert (told[99].action != Action.ADMIT, told[99].remaining) == (True, 0)
    assert told[99].reason == Reason.BURST_EXHAUSTED


def test_a_headroom_of_a_quarter_is_shown_as_a_quarter() -> None:
    made = made_for(100.0, 0.25)
    first = send(made, READ, steady(made))
    assert (first.limit, first.window, first.remaining) == (124, 125, 123)


def test_an_app_that_has_just_begun_is_promised_what_its_proof_outlasts() -> None:
    """It may sign in from now on, and lose the proof: half of its requests may be sign-ins."""
    made = made_for(50.0, 1.0)
    told = [send(made, READ, NOW).remaining for _ in range(60)]
    assert told[:2] == [49, 48]
    # after n reads as many sign-ins are within the half
    assert told[24] == 25
    assert told[39] == 40
    assert told[59] == 39


def test_sign_ins_take_the_headroom_and_the_fields_say_so() -> None:
    made = made_for(50.0, 1.0)
    for k in range(40):
        last = send(made, (READ, SIGN_IN)[k % 2], NOW)
    assert (last.limit, last.remaining) == (99, 10)
    told = [send(made, SIGN_IN, NOW).remaining for _ in range(10)]
    assert told == list(range(9, -1, -1))
    refused = send(made, SIGN_IN, NOW)
    assert (refused.action != Action.ADMIT, refused.limit, refused.remaining) == (True, 50, 0)


def test_without_ml_no_headroom_is_shown() -> None:
    made = made_for(50.0, 1.0, switches=[Switch("all_ml", until=NOW + 1_000)])
    at = steady(made)
    assert at < NOW + 1_000
    told = [send(made, READ, at) for _ in range(51)]
    assert {d.limit for d in told} == {50}
    assert [d.remaining for d in told] == [*range(49, -1, -1), 0]
    assert [d.action for d in told] == [Action.ADMIT] * 50 + [Action.DEFER]


def test_an_override_stretches_the_headroom_with_the_burst() -> None:
    wider = Override(id="o1", kind="app", subject="app_1", until=NOW + 1_000, multiplier=2.0)
    made = made_for(50.0, 1.0, overrides=[wider])
    assert send(made, READ, steady(made)).limit == 199


def test_a_batch_is_told_what_is_left_when_all_of_it_is_decided() -> None:
    made = made_for(50.0, 1.0)
    at = steady(made)
    told = made.decide([CheckRequest("app_1", *READ)] * 60, at)
    assert {(d.limit, d.remaining) for d in told} == {(99, 39)}


@pytest.mark.parametrize(
    ("tokens", "headroom", "lasts", "room"),
    [
        (49.0, 0.0, 0.0, 49),
        (49.9, 0.0, 0.0, 49),
        (-3.0, 0.0, 0.0, 0),
        (49.0, 50.0, np.inf, 98),
        (49.0, 50.0, 60.5, 60),
        (49.0, 50.0, 3.0, 49),
        (49.0, 50.0, -8.0, 49),
        (-48.0, 50.0, np.inf, 1),
        (-48.5, 50.0, np.inf, 1),
        (-49.0, 50.0, np.inf, 0),
        (-50.0, 50.0, np.inf, 0),
        (0.0, 0.5, np.inf, 0),
        (0.6, 0.5, np.inf, 1),
    ],
)
def test_the_room_left(tokens: float, headroom: float, lasts: float, room: int) -> None:
    assert policy.room_left(tokens, headroom, lasts) == room


@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 400), st.lists(st.booleans()))
def test_a_proof_lasts_as_long_as_is_said_whatever_comes(
    requests: int, writes: int, sign_ins: int, coming: list[bool]
) -> None:
    writes = min(writes, requests)
    sign_ins = min(sign_ins, writes)
    lasts = math.floor(policy.proof_lasts(requests, writes, sign_ins))
    for k in range(1, lasts + 1):
        is_sign_in = coming[k % len(coming)] if coming else True
        writes, requests, sign_ins = writes + 1, requests + 1, sign_ins + is_sign_in
        assert np.float32(writes / requests) <= policy.PROVEN_WRITES
        assert np.float32(sign_ins / requests) <= policy.PROVEN_SIGN_INS


def test_the_model_of_these_tests_is_live() -> None:
    made = made_for(50.0, 1.0)
    send(made, READ, NOW)
    assert made.signals[0, policy.S_ML] == policy.ML_LIVE
    assert small_model().digest
