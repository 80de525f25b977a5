"""The table of known apps that an engine holds, and the compiled passes that bring tracked apps in
line with a new or changed table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

from decider import policy as p
from decider.engine import address_table
from decider.engine.known_apps import table as known_apps
from decider.engine.memory import app_state as apps
from decider.engine.shared.state import SHARED_ROWS

# Tracked apps that one step brings in line with a new table; requests are decided between steps.
# Chosen: a step takes a third of a millisecond. Counted and not timed, so that a step does the same
# work on a busy machine.
REVIEW_APPS = 512


@njit(cache=True)
def _list(state: apps.State, slot: int, tier: int, tenant: int) -> None:
    """Write what the table says of a tracked app, as `app_state.place` does for a new one."""
    mark = state.profile[slot, apps.P_KNOWN]
    asked = mark in (apps.ASKED, apps.LISTED_ASKED)
    state.profile[slot, apps.P_KNOWN] = apps.LISTED_ASKED if asked else apps.LISTED
    state.profile[slot, apps.P_TIER] = tier
    # a tenant's own row is found by its id, which comes only with the profile
    state.tenant[slot] = SHARED_ROWS + tier
    state.tenant_key[slot] = tenant


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
        # Profile and table disagree. LISTED makes the engine fetch the profile again; until it
        # comes, the old profile holds.
        state.profile[slot, apps.P_KNOWN] = apps.LISTED
        return
    _list(state, slot, tier, tenant)
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
    """Bring the tracked ones among some apps in line with the table. `keys`: their hashes, uint64
    (n,).
    """
    state, known = address_table.state_in(table), address_table.known_in(table)
    unknown, rules = address_table.unknown_in(table), address_table.rules_in(table)
    for k in range(keys.shape[0]):
        slot = apps.find(state, keys[k])
        if slot >= 0:
            _review(state, known, unknown, rules, slot)


class KnownTable:
    """The table of known apps that an engine holds. It is swapped between two batches."""

    def __init__(self, arena: address_table.Arena, state: apps.State) -> None:
        """Put an empty table into the arena, which holds `state` too."""
        self._arena, self._state = arena, state
        self.table = known_apps.empty()
        arena.hold(known=self.table)

    def hold(self, table: known_apps.KnownApps) -> None:
        """Hold another table from now on, and bring all tracked apps in line with it."""
        for _ in self.hold_in_parts(table):
            pass

    def hold_in_parts(self, table: known_apps.KnownApps) -> Iterator[None]:
        """Do what `hold` does in parts of REVIEW_APPS, between which requests may be decided.

        New apps go by the new table at once, tracked ones after the last part.
        """
        self._swap(table)
        used = int(self._state.meta[apps.M_USED])
        for first in range(0, used, REVIEW_APPS):
            review_slots(self._arena.table, first, min(first + REVIEW_APPS, used))
            yield

    def change(self, table: known_apps.KnownApps, keys: np.ndarray) -> None:
        """Hold a table that differs from the one before in these apps only. `keys`: uint64 (n,)."""
        for _ in self.change_in_parts(table, keys):
            pass

    def change_in_parts(self, table: known_apps.KnownApps, keys: np.ndarray) -> Iterator[None]:
        """Do what `change` does in parts, as `hold_in_parts` does."""
        self._swap(table)
        for first in range(0, len(keys), REVIEW_APPS):
            review_apps(self._arena.table, keys[first : first + REVIEW_APPS])
            yield

    def _swap(self, table: known_apps.KnownApps) -> None:
        self.table = table
        self._arena.hold(known=table)
