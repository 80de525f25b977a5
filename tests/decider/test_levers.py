"""A wait is reckoned as the decider's own counters will have it, and never more kindly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts.features import INDEX as F
from decider.contracts.features import N_FEATURES
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import N_SIGNALS
from decider.engine import features_of
from decider.engine.memory import app_state as counters
from decider.engine.memory import retries
from decider.engine.routing import READ
from decider.whatif import moves
from decider.whatif.levers import BY_NAME
from decider.whatif.moves import PACES, Ground

NOW = 1_763_476_327.0
PATH = np.uint64(77)


def ground(told: float, at: float = NOW) -> Ground:
    return Ground(
        quota=1e6, budget_per_hour=10.0, batch_cost=1.0, batch_writes=False, at=at, told=told
    )


def asked(state: counters.State, now: float, path: np.uint64 = PATH) -> np.ndarray:
    """Counts one request as the engine does. Its features."""
    one, out = np.uint64(1), np.zeros(N_FEATURES, np.float32)
    counters.observe(state, 0, now, one, one, path, one, 1.0, 1.0, READ, 0)
    service, address = np.array([0.5, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])
    features_of.features_of(
        state, 0, now, now, 1.0, 1.0, 0.1, service, 0.1, address, np.zeros(2), out
    )
    state.clock[0, counters.LAST] = now
    return out


def refused(gaps: list[float], told: float) -> tuple[counters.State, np.ndarray]:
    """An app whose last request, at NOW, is refused and told to wait. Its state and that request's
    features.
    """
    state, at = counters.allocate(1), NOW - sum(gaps)
    for k, gap in enumerate(gaps):
        asked(state, at, np.uint64(1000 + k))
        at += gap
    row = asked(state, NOW)
    state.counts[0, counters.C_REFUSED] += 1.0
    retries.note(state.refused, 0, NOW, PATH, np.uint64(1), np.uint64(1), told)
    state.clock[0, counters.RETRY_UNTIL] = NOW + told
    return state, row


def waited(row: np.ndarray, level: float, told: float) -> np.ndarray:
    x, s = row.astype(np.float64)[None, :].copy(), np.zeros((1, N_SIGNALS))
    s[0, S["cost"]], s[0, S["quota_reset"]] = 1.0, 40_000.0
    BY_NAME["wait"].move(x, s, np.array([level]), ground(told))
    return x[0]


GAPS = st.lists(st.floats(0.001, 40.0), min_size=1, max_size=60)


@given(gaps=GAPS, level=st.floats(0.5, 600.0), told=st.floats(1.0, 300.0))
def test_a_wait_leaves_at_least_what_the_counters_will_show(gaps, level, told) -> None:
    state, row = refused(gaps, told)
    found, truth = waited(row, level, told), asked(state, NOW + level)
    for name in (*PACES, "cost_rate_60s"):
        assert found[F[name]] >= truth[F[name]] * (1 - 1e-5) - 1e-6, name


@pytest.mark.parametrize(
    ("level", "told", "early"),
    [(10.0, 290.0, True), (290.0, 290.0, False), (75.0, 290.0, True), (5, 0, False)],
)
def test_who_comes_back_before_the_retry_after_counts_as_early(level, told, early) -> None:
    """As the decider counts it: within twice the wait, and sooner than told."""
    state, row = refused([0.5] * 20, told)
    found, truth = waited(row, level, told), asked(state, NOW + level)
    assert bool(truth[F["early_retry_share_60s"]] > 0.0) is early
    assert bool(found[F["early_retry_share_60s"]] > row[F["early_retry_share_60s"]]) is early


def test_without_silence_nothing_moves() -> None:
    _, row = refused([0.5] * 20, 10.0)
    assert waited(row, 0.0, 10.0) == pytest.approx(row.astype(np.float64), rel=1e-6)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1300.0), st.sampled_from(list(moves.WINDOWS_S.values())))
def test_a_window_empties_within_twice_its_length(offset, level, window) -> None:
    left = moves.most_left(NOW + offset, np.array([level]), window)[0]
    assert 0.0 <= left <= 1.0
    assert level < 2.0 * window or left == 0.0


@given(
    client=st.floats(0.0, 1.0),
    server=st.floats(0.0, 1.0),
    level=st.floats(0.0, 1.0),
)
def test_fewer_client_errors_leave_those_of_the_service(
    client: float, server: float, level: float
) -> None:
    """The owner's part falls to the level, each kind of it by the same factor."""
    client = min(client, 1.0 - server)
    x, s = np.zeros((1, N_FEATURES)), np.zeros((1, N_SIGNALS))
    x[0, F["client_error_share_60s"]], x[0, F["server_error_share_60s"]] = client, server
    x[0, F["error_share_60s"]] = client + server
    x[0, F["auth_error_share_60s"]] = client / 2
    BY_NAME["errors"].move(x, s, np.array([level]), ground(0.0))
    left = min(client, level)
    assert x[0, F["client_error_share_60s"]] == pytest.approx(left, abs=1e-9)
    assert x[0, F["auth_error_share_60s"]] == pytest.approx(left / 2, abs=1e-9)
    assert x[0, F["server_error_share_60s"]] == server
    assert x[0, F["error_share_60s"]] == pytest.approx(left + server, abs=1e-9)
