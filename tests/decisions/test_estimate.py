"""Estimates from samples: unbiased, never below what was seen, and their intervals cover the truth
as often as they say.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisions.counts.estimate import NOTHING, Estimate, of_row, share_within, total

probabilities = st.floats(0.001, 1.0)


def drawn(rng: np.random.Generator, counts: list[int], ps: list[float]) -> Estimate:
    """What a sample of so many decisions of each kind, kept with these probabilities, estimates."""
    kept = [int(rng.binomial(n, p)) for n, p in zip(counts, ps, strict=True)]
    return total(Estimate(k / p, k / p / p, k) for k, p in zip(kept, ps, strict=True))


@given(st.lists(probabilities, min_size=1, max_size=30))
def test_an_estimate_of_sums_is_the_sum_of_estimates(ps) -> None:
    whole = total(of_row(p) for p in ps)
    half = len(ps) // 2
    parts = total(of_row(p) for p in ps[:half]) + total(of_row(p) for p in ps[half:])
    assert parts.count == pytest.approx(whole.count)
    assert parts.variance == pytest.approx(whole.variance, rel=1e-6, abs=1e-6)
    assert whole.variance == pytest.approx(sum((1 - p) / p**2 for p in ps), rel=1e-6, abs=1e-6)


@given(st.lists(probabilities, min_size=1, max_size=30))
def test_the_interval_holds_the_estimate_and_starts_no_lower_than_what_was_seen(ps) -> None:
    e = total(of_row(p) for p in ps)
    assert e.kept <= e.low <= e.count * (1 + 1e-12)
    assert e.count <= e.high * (1 + 1e-12)


def test_what_was_certain_to_be_kept_is_exact() -> None:
    e = total(of_row(1.0) for _ in range(7))
    assert (e.exact, e.low, e.high, e.rate) == (True, 7.0, 7.0, 1.0)
    assert not of_row(0.5).exact
    assert NOTHING.exact


@pytest.mark.parametrize(
    ("counts", "ps"),
    [
        ([400], [0.02]),
        ([120], [0.5]),
        ([5_000, 60, 4], [0.02, 0.5, 1.0]),
        ([90_000, 2_000, 300], [0.02, 0.5, 1.0]),
        ([40, 40], [0.3, 0.7]),
        ([2_000, 2_000], [0.01, 0.05]),
    ],
)
def test_intervals_cover_the_truth_nineteen_times_in_twenty(counts, ps) -> None:
    """4,000 samples of a known truth: the share covered is 95%, give or take what a skewed sum may
    cost; the mean is the truth.
    """
    rng, truth, rounds = np.random.default_rng(11), sum(counts), 4_000
    found = [drawn(rng, counts, ps) for _ in range(rounds)]
    covered = sum(e.low <= truth <= e.high for e in found) / rounds
    assert 0.93 <= covered <= 0.985
    spread = np.sqrt(sum(n * (1 - p) / p for n, p in zip(counts, ps, strict=True)))
    assert abs(np.mean([e.count for e in found]) - truth) <= 4 * spread / np.sqrt(rounds)


def test_a_narrower_interval_would_not_cover() -> None:
    """The check above can fail: half the interval covers far less often."""
    rng, found = np.random.default_rng(12), []
    for _ in range(2_000):
        e = drawn(rng, [5_000], [0.02])
        found.append(abs(e.count - 5_000) <= (e.high - e.low) / 4)
    assert sum(found) / len(found) < 0.8


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_the_interval_of_a_share_is_wilsons(hits, of, low, high) -> None:
    assert share_within(hits, of) == pytest.approx((low, high), abs=1e-4)
