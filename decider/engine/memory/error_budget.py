"""The false-throttle error budget of an app: what ML's refusals spent, and what is left; compiled.

It holds over an hour and a day (`app_state.BUDGET_WINDOWS`), as a share of the app's requests.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider.engine.memory.app_state import BUDGET_SPANS, BUDGET_WINDOWS, State
from decider.engine.memory.windows import EPOCH, WINDOWS

# The most refusals that a bucket counts: 16 bits would start again at 0.
MOST_REFUSALS = 65_535


@njit(cache=True, inline="always")
def note_asked(state: State, slot: int) -> None:
    """Count one request for the error budget. Roll the slot's windows to its time first."""
    for k in range(len(BUDGET_WINDOWS)):
        state.asked[slot, 2 * k] += 1


@njit(cache=True)
def note_ml_refused(state: State, slot: int, risk: float) -> None:
    """Spend what one refusal by ML costs of the error budget: the chance that it is wrong."""
    for k in range(len(BUDGET_WINDOWS)):
        state.spent[slot, 2 * k] += 1.0 - risk
        if state.ml_refused[slot, 2 * k] < MOST_REFUSALS:
            state.ml_refused[slot, 2 * k] += 1


@njit(cache=True, inline="always")
def position_in(state: State, slot: int, k: int, now: float) -> tuple[float, int]:
    """Return the share of window `k`'s previous bucket still inside at `now`, and buckets since
    the roll.
    """
    position = (now - EPOCH) / WINDOWS[3]
    number = np.int64(math.floor(position)) // BUDGET_SPANS[k]
    moved = number - state.window[slot, 3] // BUDGET_SPANS[k]
    # when time runs backwards, the answer is that for the start of the bucket
    if moved < 0:
        return 1.0, 0
    return 1.0 - (position / BUDGET_SPANS[k] - number), moved


@njit(cache=True, inline="always")
def in_window(column: np.ndarray, slot: int, k: int, keep: float, moved: int) -> float:
    """Return what window `k` holds of `asked`, `ml_refused` or `spent`.

    `keep` and `moved` as `position_in` returns them; with a `keep` of 0 only the running bucket
    counts.
    """
    if moved == 0:
        return float(column[slot, 2 * k] + keep * column[slot, 2 * k + 1])
    return float(keep * column[slot, 2 * k]) if moved == 1 else 0.0


@njit(cache=True, inline="always")
def window_left(state: State, slot: int, k: int, now: float, rate: float) -> float:
    """Return the expected false throttles that window `k` still allows an app, at least 0.

    `rate`: share of its requests that ML may refuse wrongly. The running bucket must keep the rate
    by itself, too: requests of the previous bucket leave the window before the refusals that they
    allow now, and then the window would hold too many refusals.
    """
    keep, moved = position_in(state, slot, k, now)
    left = np.inf
    for share in (0.0, keep):
        allowed = rate * in_window(state.asked, slot, k, share, moved)
        left = min(left, allowed - in_window(state.spent, slot, k, share, moved))
    return max(0.0, left)


@njit(cache=True, inline="always")
def left(state: State, slot: int, now: float, rate: float) -> float:
    """Return how many expected false throttles an app may still suffer in the hour and the day.

    `rate`: share of its requests that the budget is; at 1 it is infinite.
    """
    if rate >= 1.0:
        return np.inf
    return min(window_left(state, slot, 0, now, rate), window_left(state, slot, 1, now, rate))
