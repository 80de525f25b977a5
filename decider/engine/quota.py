"""An app's daily quota on one node: what the node holds of it, and what it asks the store for.

Every node owns a small share of each quota; the rest is leased from the store
(`resources/lease.lua`), which never leases more than the pool. So all nodes together cannot admit
more than the quota, whichever of them lose the store. What a node holds when it is killed is lost
for the day, so leases begin small and grow with what the app really uses.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider.engine.memory.app_state import (
    LEASED_OUT,
    QUOTA_DAY,
    QUOTA_LEFT,
    QUOTA_OWN,
    QUOTA_USED,
    State,
)

# Share of a daily quota that is leased; the rest is split evenly into the nodes' own shares, for
# times when they cannot ask. One node serves an app, so the app gets hardly anything of that rest:
# this is what a strict quota costs it (docs/adr/0016).
POOL_SHARE = 0.95
# The most one lease holds, as a share of the quota. Chosen: it bounds what a killed node loses.
LEASE_SHARE = 0.05
# The least one lease holds: one burst, and what the plan's rate lets through in these seconds.
# Chosen: an app at full pace asks four times a minute, as half of a lease is left when it asks.
LEASE_S = 30.0


@njit(cache=True, inline="always")
def left(state: State, slot: int, now: float, own_share: float) -> float:
    """Return the requests that this node may still admit for the app today (UTC).

    A new day begins with the node's own share, `own_share` requests. When that share changes
    (another tier or config document), the difference is added or taken away, so the result may be
    negative. `now`: wall time.
    """
    clock, day = state.clock, float(math.floor(now / 86_400.0))
    if clock[slot, QUOTA_DAY] > day:
        # the wall clock came back from another day: what was used stays used
        clock[slot, QUOTA_DAY] = day
    elif clock[slot, QUOTA_DAY] < day:
        clock[slot, QUOTA_DAY] = day
        clock[slot, QUOTA_USED] = clock[slot, LEASED_OUT] = 0.0
        clock[slot, QUOTA_LEFT] = clock[slot, QUOTA_OWN] = own_share
    if clock[slot, QUOTA_OWN] != own_share:
        clock[slot, QUOTA_LEFT] += own_share - clock[slot, QUOTA_OWN]
        clock[slot, QUOTA_OWN] = own_share
    return float(clock[slot, QUOTA_LEFT])


@njit(cache=True)
def lease_size(state: State, slot: int, rate: float, burst: float, quota: float) -> float:
    """Return how many requests to lease at once.

    That is what the plan (`rate` a second, `burst`) lets through in LEASE_S, or what the app has
    used on this node today if that is more, up to LEASE_SHARE of the quota. So each time a node is
    killed, no more is lost than the app has used, or than the least lease.
    """
    used = float(state.clock[slot, QUOTA_USED])
    return max(1.0, min(LEASE_SHARE * quota, max(LEASE_S * rate + burst, used)))


@njit(cache=True, inline="always")
def may_lease(state: State, slot: int, quota: float) -> bool:
    """Return whether the store may still lease more today: it has not said that nothing is left."""
    return bool(state.clock[slot, LEASED_OUT] < quota)


@njit(cache=True)
def wants_lease(state: State, slot: int, size: float, quota: float) -> bool:
    """Return whether to ask for a lease of `size` now: less than half of that, or less than one
    request, is left, and the store may still lease more.
    """
    return bool(state.clock[slot, QUOTA_LEFT] < max(1.0, 0.5 * size)) and may_lease(
        state, slot, quota
    )


def seen(clock: np.ndarray | list[float], now: float, own_share: float) -> float:
    """Return what `left` would return, without a change. `clock`: a row of `State.clock`."""
    today = clock[QUOTA_DAY] >= math.floor(now / 86_400.0)
    return float(clock[QUOTA_LEFT] + own_share - clock[QUOTA_OWN] if today else own_share)
