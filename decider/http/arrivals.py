"""When the checks of a turn came, at the earliest: they may have waited in the kernel for a loop
that was busy, or for a process that was halted.

Nothing here reads a clock; times are seconds of a clock that is not set.
"""

from __future__ import annotations

# Seconds between two signs of life. Chosen: a halt is noticed that takes a few milliseconds longer,
# and 250 timers a second cost some thousandth of a core.
BEAT_S = 0.004
# A loop that shows no sign of life for longer was held up. Chosen: half a beat more than one, as
# timers count whole milliseconds.
HALTED_S = 0.006
# A turn that begins within this time after another did not wait for its checks. Chosen: many times
# what a loop takes to look for the next ones.
AT_ONCE_S = 0.0005


class Arrivals:
    """The turns of one event loop."""

    __slots__ = ("_alive", "_bare", "_carried", "_carried_until", "_looked", "since")

    def __init__(self, now: float) -> None:
        self._alive = self._looked = now
        # All that came before `_looked` was read by the end of a turn, or of the time to `_alive`.
        self.since = self._bare = now
        """When the first check of this turn came, at the earliest."""
        self._carried = self._carried_until = now

    def begin(self, now: float) -> None:
        """Note the first read of a turn."""
        self.since = self._bare = self._bound(now)
        if now <= self._carried_until:
            self.since = min(self.since, self._carried)
        self._looked = now

    def _bound(self, now: float) -> float:
        """Return when something that is found now came, at the earliest."""
        gap = now - self._alive
        held_up = self._alive - self._looked > HALTED_S
        if gap <= AT_ONCE_S or (held_up and gap <= HALTED_S):
            return self._looked
        # the loop waited for it, unless it was halted
        return now if gap <= HALTED_S else self._alive

    def accept(self, now: float) -> None:
        """Note a new connection: what it sent waited with it, and is read in one of the next
        turns.
        """
        bound = self._bound(now)
        if now - self._looked <= HALTED_S:
            # Found in the turn that began then. Not `since`: connections that are accepted all the
            # time would hand on an age for ever.
            bound = min(bound, self._bare)
        # only after a halt: else the difference is small, and such turns would seem late
        if now - bound > HALTED_S:
            self._carried, self._carried_until = bound, now + HALTED_S

    def end(self, now: float) -> None:
        """Note the end of a turn."""
        self._alive = now

    def beat(self, now: float) -> None:
        """Note that the loop turns although nothing may have come."""
        # it has looked since the last sign of life, and has read all that had come
        self._looked = max(self._looked, self._alive)
        self._alive = now
