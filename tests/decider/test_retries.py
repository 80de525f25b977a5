"""What counts as a retry: one repeat of a request that was refused, once for each refusal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.features import INDEX as F
from decider.contracts.requests import CheckRequest
from decider.contracts.vocabulary import Action
from decider.engine.engine import Engine
from decider.engine.memory import app_state, retries
from decider.engine.routing import READ
from tests.decider.test_engine import NOW, config, engine

SHARES = ("retry_share_60s", "early_retry_share_60s")


def features(made: Engine) -> np.ndarray:
    """Return the features of the request that was decided last."""
    return made.features[0].copy()


def sent(made: Engine, at: float, method: str = "GET", path: str = "/v2/orders/1", **more) -> int:
    return made.decide([CheckRequest("app_1", method, path, **more)], at)[0].action


def refused_until(made: Engine) -> float:
    """Spend the app's tokens at NOW, each on a path of its own; return when one is back."""
    for k in range(10_000):
        (answer,) = made.decide([CheckRequest("app_1", "GET", f"/v2/orders/a{k}")], NOW)
        if answer.action != Action.ADMIT:
            return answer.retry_after
    raise AssertionError("nothing was refused")


def test_one_refusal_does_not_make_an_hour_of_requests_retries() -> None:
    made = engine()
    refused_until(made)
    assert sent(made, NOW) == Action.DEFER
    shares = []
    for second in range(1, 3_601):
        assert sent(made, NOW + second) == Action.ADMIT
        shares.append(features(made)[F["retry_share_60s"]])
    assert shares[0] > 0.0  # the first one repeats what was refused
    assert max(shares[120:]) == 0.0


def test_a_new_credential_with_each_request_is_new_traffic() -> None:
    made = engine(ml=True)
    refused_until(made)
    for k in range(200):
        sent(made, NOW + k / 4.0, "POST", "/v2/login", token=f"guess{k}")
        assert all(features(made)[F[name]] == 0.0 for name in SHARES)


@pytest.mark.parametrize(
    ("again", "retry"),
    [
        ({}, True),
        ({"method": "POST"}, False),
        ({"path": "/v2/orders/2"}, False),
        ({"token": "another"}, False),
        ({"source": "203.0.113.9"}, True),
        ({"request_id": "r2"}, True),
    ],
)
def test_method_path_and_credential_tell_a_repeat(again: dict[str, str], retry: bool) -> None:
    made = engine()
    refused_until(made)
    first = {"token": "own", "source": "203.0.113.1", "request_id": "r1"}
    assert sent(made, NOW, **first) == Action.DEFER
    sent(made, NOW + 20.0, **(first | again))
    assert bool(features(made)[F["retry_share_60s"]] > 0.0) is retry


def state_with(wait: float) -> app_state.State:
    state = app_state.allocate(1)
    one = np.uint64(1)
    retries.note(state.refused, 0, NOW, one, one, one, wait)
    return state


def counts(state: app_state.State, at: float, path: int = 1, attempt: int = 0) -> bool:
    """Observe one request and return whether it counted as a retry."""
    app_state.roll(state, 0, at)
    before, one = state.counts[0, app_state.C_RETRIES], np.uint64(1)
    app_state.observe(state, 0, at, one, one, np.uint64(path), one, 1.0, 1.0, READ, attempt)
    return bool(state.counts[0, app_state.C_RETRIES] > before)


@pytest.mark.parametrize(
    ("wait", "after", "retry"),
    [
        *((0.0, 59.0, True), (0.0, 61.0, False), (20.0, 59.0, True), (20.0, 61.0, False)),
        *((100.0, 199.0, True), (100.0, 201.0, False), (86_400.0, 172_700.0, True)),
    ],
)
def test_a_repeat_counts_within_twice_the_wait_and_a_minute_at_least(wait, after, retry) -> None:
    assert counts(state_with(wait), NOW + after) is retry


def test_a_claim_changes_no_feature_unless_the_gateway_is_trusted() -> None:
    plain, claims = (engine(ml=True) for _ in range(2))
    for made in (plain, claims):
        refused_until(made)
    for k in range(100):
        at = NOW + k / 2.0
        sent(plain, at, path=f"/v2/orders/b{k}")
        sent(claims, at, path=f"/v2/orders/b{k}", attempt=1 + k)
        assert features(plain).tobytes() == features(claims).tobytes()


def test_a_trusted_gateway_tells_a_retry_of_another_path_once_for_each_refusal() -> None:
    made = engine(config(), trust_attempts=True)
    refused_until(made)  # one refusal
    found = []
    for k in range(3):
        sent(made, NOW + 10.0, path=f"/v2/orders/c{k}", attempt=1)
        slot = made.slot_of("app_1")
        found.append(float(made.state.counts[slot, app_state.C_RETRIES]))
    assert found == [1.0, 1.0, 1.0]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "refuse"]),
        st.integers(1, 12),
        st.floats(0.0, 90.0),
        st.sampled_from([0.0, 1.0, 45.0, 300.0]),
        st.integers(0, 1),
    ),
    max_size=120,
)


@given(STEPS)
def test_retries_are_never_more_than_refusals(steps) -> None:
    """Whatever is refused, repeated and claimed, at most the refusals before it count."""
    state, at, refusals, counted = app_state.allocate(1), NOW, 0, 0
    one = np.uint64(1)
    kept: dict[int, list[float]] = {}
    for step, path, gap, wait, attempt in steps:
        at += gap
        if step == "refuse":
            retries.note(state.refused, 0, at, np.uint64(path), one, one, wait)
            refusals += 1
            kept.setdefault(path, []).append(at + max(60.0, 2.0 * wait))
        else:
            found = counts(state, at, path, attempt)
            counted += found
            if found and not attempt:  # it repeats that very request, which was refused before
                assert kept.get(path), path
        assert counted <= refusals


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, retries.REFUSED), st.integers(0, 40)), max_size=80
    )
)
def test_up_to_a_row_of_different_requests_each_repeat_is_found(steps) -> None:
    state, at, one = app_state.allocate(1), NOW, np.uint64(1)
    open_: dict[int, list[float]] = {}
    for refuse, path, gap in steps:
        at += gap
        if not any(end > at for end in open_.get(path, ())):
            open_.pop(path, None)  # of like requests all count up to the longest time
        if refuse:
            retries.note(state.refused, 0, at, np.uint64(path), one, one, 0.0)
            open_.setdefault(path, []).append(at + retries.RETRY_WITHIN_S)
        else:
            assert counts(state, at, path) is bool(open_.get(path))
            if open_.get(path):
                open_[path].remove(min(open_[path]))
                if not open_[path]:
                    del open_[path]
