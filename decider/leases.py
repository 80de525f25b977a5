"""Leases of daily quotas: what this node asks the store for, what it was given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable

from . import quota
from .state import State

MOST_WANTED = 20_000
"""Apps asked for at once; the next request of an app that found no room asks again."""
LONGEST_WAIT_S = 300.0
MOST_LESSEES = 100_000
"""Apps whose unused leases are given back when the node ends; those of more are lost for the day."""


class Leases:
    """Leases of the apps of one state."""

    def __init__(self, state: State, slot_of: Callable[[str], int]) -> None:
        """`slot_of`: where an app is tracked in the state, -1 where it is not."""
        self._state, self._slot_of = state, slot_of
        self.wanted: dict[str, tuple[float, int]] = {}
        """By app: its daily quota, and how many requests of it to lease."""
        self._lessees: dict[str, None] = {}
        self._silent_since = 0.0

    def want(self, app: str, slot: int, rate: float, burst: float, of: float) -> None:
        """Asks for a lease of an app's quota of so many requests a day; its plan lets `rate` a second and `burst` through."""
        if len(self.wanted) < MOST_WANTED:
            self.wanted[app] = (of, int(quota.lease_size(self._state, slot, rate, burst, of)))

    def heard(self, asked_at: float, answered: bool) -> None:
        """Takes in whether the store answered what it was asked at that time, unix seconds."""
        self._silent_since = 0.0 if answered else self._silent_since or asked_at

    def wait(self, now: float) -> float:
        """Seconds after which an app should ask again that has spent what is held for it: as long again as the store is silent
        already, as nothing else is known of when it answers."""
        return min(LONGEST_WAIT_S, max(1.0, now - self._silent_since)) if self._silent_since else 1.0

    def grant(self, app: str, requests: float) -> None:
        """Adds a lease of so many requests to an app that is still tracked."""
        if (slot := self._slot_of(app)) < 0:
            return
        quota.grant(self._state, slot, requests)
        if len(self._lessees) < MOST_LESSEES:
            self._lessees[app] = None

    def leased_out(self, app: str, of: float) -> None:
        """Takes in that of a daily quota of so many requests nothing is left to lease today."""
        if (slot := self._slot_of(app)) >= 0:
            quota.leased_out(self._state, slot, of)

    def give_back(self, now: float) -> dict[str, int]:
        """Takes out what is left of today's leases, in requests by app, for the store to lease to others."""
        slots = {app: self._slot_of(app) for app in self._lessees}
        unused = {app: quota.give_back(self._state, slot, now) for app, slot in slots.items() if slot >= 0}
        self._lessees.clear()
        return {app: requests for app, requests in unused.items() if requests}
