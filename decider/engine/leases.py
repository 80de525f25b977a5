"""Leases of daily quotas: what this node asks the store for, what it was given, and what it gives
back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from decider.engine.memory.app_state import (
    LEASED_OUT,
    QUOTA_DAY,
    QUOTA_LEFT,
    QUOTA_OWN,
    QUOTA_USED,
    State,
)

# Most apps whose leases are wanted at once, so that a silent store does not fill the memory. The
# next request of an app that found no room asks again.
MOST_WANTED = 20_000
# Most apps whose unused leases are given back when the node ends; those of further apps are lost
# for the day.
MOST_LESSEES = 100_000
# Seconds. Chosen: short enough that clients ask again soon after the store is back.
LONGEST_LEASE_WAIT_S = 300.0


class Leases:
    """Leases of the apps of one state."""

    def __init__(self, state: State, slot_of: Callable[[str], int]) -> None:
        """Keep leases for the apps of `state`; `slot_of` finds an app's slot, -1 for none."""
        self._clock, self._slot_of = state.clock, slot_of
        self.wanted: dict[str, tuple[float, int]] = {}
        """By app: its daily quota, and how many requests of it to lease."""
        self._lessees: dict[str, None] = {}
        self._silent_since = 0.0

    def want(self, app: str, of: float, requests: int) -> None:
        """Record that a lease of `requests` is wanted, from an app's daily quota of `of` requests.
        Do nothing while MOST_WANTED apps want one.
        """
        if len(self.wanted) < MOST_WANTED:
            self.wanted[app] = (of, requests)

    def heard(self, asked_at: float, answered: bool) -> None:
        """Record whether the store answered the requests of `asked_at` (unix seconds)."""
        self._silent_since = 0.0 if answered else self._silent_since or asked_at

    def wait(self, now: float) -> float:
        """Return the seconds after which an app that has spent its leases should ask again.

        That is 1 s while the store answers. While it is silent, it is as long as it has been silent
        already, as nobody knows when it will answer; at most LONGEST_LEASE_WAIT_S.
        """
        if not self._silent_since:
            return 1.0
        return min(LONGEST_LEASE_WAIT_S, max(1.0, now - self._silent_since))

    def grant(self, app: str, requests: float) -> None:
        """Add a lease of `requests` to an app, if the app is still tracked."""
        if (slot := self._slot_of(app)) < 0:
            return
        self._clock[slot, QUOTA_LEFT] += requests
        self._clock[slot, LEASED_OUT] = 0.0
        if len(self._lessees) < MOST_LESSEES:
            self._lessees[app] = None

    def leased_out(self, app: str, of: float) -> None:
        """Record that the store has no more of an app's daily quota of `of` requests today."""
        if (slot := self._slot_of(app)) >= 0:
            self._clock[slot, LEASED_OUT] = of

    def give_back(self, now: float) -> dict[str, int]:
        """Remove the unused parts of today's leases and return them, whole requests by app.

        The store can then lease them to other nodes.
        """
        slots = {app: self._slot_of(app) for app in self._lessees}
        unused = {app: self._take_out(slot, now) for app, slot in slots.items() if slot >= 0}
        self._lessees.clear()
        return {app: requests for app, requests in unused.items() if requests}

    def _take_out(self, slot: int, now: float) -> int:
        row = self._clock[slot]
        if row[QUOTA_DAY] != math.floor(now / 86_400.0):
            return 0
        leased = row[QUOTA_LEFT] + row[QUOTA_USED] - row[QUOTA_OWN]
        # the millionth makes up for the rounding errors of many subtractions
        unused = max(0, math.floor(float(min(row[QUOTA_LEFT], leased)) + 1e-6))
        row[QUOTA_LEFT] -= unused
        return unused
