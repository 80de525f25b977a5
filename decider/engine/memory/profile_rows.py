"""Profiles of apps in the arrays of `app_state`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decider.contracts.store import Profile
from decider.engine.memory import app_state
from decider.engine.memory.app_state import State


def hold(
    state: State, slots: np.ndarray, profiles: Sequence[Profile]
) -> tuple[list[Profile], np.ndarray]:
    """Write profiles into their apps' slots, int64 (n,), except those that are older than what is
    there. Return the written ones, oldest first, and their slots.
    """
    at = np.array([p.sealed_at for p in profiles])
    # oldest first, so that of two profiles of one app the newer one stays
    order = np.argsort(at, kind="stable")
    # an older one that was put back into the store must not undo what was said since
    order = order[at[order] >= state.clock[slots[order], app_state.PROFILE_AT]]
    written, slots = [profiles[k] for k in order], slots[order]
    if written:
        state.profile[slots] = [_row(p) for p in written]
        state.clock[slots, app_state.PROFILE_AT] = at[order]
    return written, slots


def _row(p: Profile) -> tuple[float, ...]:
    """Return a profile as a row of `State.profile`."""
    history = (p.abuse_history, p.chargeback_history, p.false_throttle_history)
    about = (p.tier, p.created_at / 86_400.0, p.verified, p.cohort_prior)
    return (*about, *history, app_state.KNOWN)
