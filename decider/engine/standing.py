"""Compiled passes that bring tracked apps in line with the table of known apps, when it comes or
changes after them."""

from __future__ import annotations

import numpy as np
from numba import njit

from decider import policy as p
from decider.engine import address_table, known_apps
from decider.engine import app_state as apps


@njit(cache=True)
def _review(
    state: apps.State,
    known: known_apps.KnownApps,
    unknown: np.ndarray,
    rules: p.Rules,
    slot: int,
) -> None:
    """Give the app in a slot what the table says of it.

    A bucket that becomes larger is as full as if it had had that size from the start: what was
    used stays used.
    """
    tier, tenant = known_apps.look_up(known, state.key[slot])
    mark, before = state.profile[slot, apps.P_KNOWN], int(state.profile[slot, apps.P_TIER])
    if tier < 0:
        # what only the table knew is forgotten with its entry
        if mark == apps.LISTED or mark == apps.LISTED_ASKED:
            state.profile[slot, :] = unknown
            state.profile[slot, apps.P_KNOWN] = apps.ASKED if mark == apps.LISTED_ASKED else 0.0
            state.tenant[slot] = 0
            state.tenant_key[slot] = 0
        return
    if mark >= apps.KNOWN and tier == before and tenant == state.tenant_key[slot]:
        return
    if mark == apps.KNOWN:
        # One of both is out of date. The profile store says which; until then the profile holds.
        state.profile[slot, apps.P_KNOWN] = apps.LISTED
        return
    apps.list_as(state, slot, tier, tenant)
    clock, burst = state.clock, rules.tiers[tier, p.T_BURST]
    if clock[slot, apps.BUCKET_AT] >= 0.0:
        more = max(0.0, burst - rules.tiers[before, p.T_BURST])
        clock[slot, apps.TOKENS] = min(burst, clock[slot, apps.TOKENS] + more)


@njit(cache=True)
def review_slots(table: np.ndarray, first: int, last: int) -> None:
    """Bring the apps in the slots from `first` to before `last` in line with the table."""
    state, known = address_table.state_in(table), address_table.known_in(table)
    unknown, rules = address_table.unknown_in(table), address_table.rules_in(table)
    for slot in range(first, last):
        _review(state, known, unknown, rules, slot)


@njit(cache=True)
def review_apps(table: np.ndarray, keys: np.ndarray) -> None:
    """Bring those of some apps that are tracked in line with the table. `keys`: uint64 (n,)."""
    state, known = address_table.state_in(table), address_table.known_in(table)
    unknown, rules = address_table.unknown_in(table), address_table.rules_in(table)
    for k in range(keys.shape[0]):
        slot = apps.find(state, keys[k])
        if slot >= 0:
            _review(state, known, unknown, rules, slot)
