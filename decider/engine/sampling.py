"""Which decisions are kept, each with a probability that is recorded with it."""

from __future__ import annotations

from numba import njit

from decider import policy as p
from decider.engine.buffers import (
    K_ADMIT,
    K_BLOCK,
    K_BUDGET,
    K_DEMAND,
    K_ENTERPRISE,
    K_KEPT,
    K_LAST_DEMAND,
    K_REFUSE,
    K_SECOND,
    Sample,
)


@njit(cache=True)
def inclusion(sample: Sample, action: int, tier: int, now: float) -> float:
    """Return the probability of keeping a decision.

    Besides the action and tier it depends only on earlier decisions, so that weighing by its
    inverse stays unbiased.
    """
    # A new second begins: the demand of the last one is taken as its demand, 0 (unknown) after a
    # pause.
    state, rate = sample.state, sample.rate
    if now // 1.0 != state[K_SECOND]:
        state[K_LAST_DEMAND] = state[K_DEMAND] if now // 1.0 == state[K_SECOND] + 1.0 else 0.0
        state[K_SECOND], state[K_KEPT], state[K_DEMAND] = now // 1.0, 0.0, 0.0
    if action == p.BLOCK:
        base = rate[K_BLOCK]
    elif action == p.ADMIT:
        base = rate[K_ADMIT]
    else:
        base = rate[K_ENTERPRISE] if tier == p.ENTERPRISE else rate[K_REFUSE]
    state[K_DEMAND] += base
    scale = min(1.0, rate[K_BUDGET] / max(state[K_LAST_DEMAND], 1e-9))
    # never 0: a decision that cannot be kept is missing from every weighted count
    return float(base * scale * min(1.0, max(0.001, 2.0 * (1.0 - state[K_KEPT] / rate[K_BUDGET]))))
