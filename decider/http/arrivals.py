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

    __slots__ = ("_alive", "_looked", "since")

    def __init__(self, now: float) -> None:
        self._alive = self._looked = now
        # All that came before `_looked` was read by the end of a turn, or of the time to `_alive`.
        self.since = now
        """When the first check of this turn came, at the earliest."""

    def begin(self, now: float) -> None:
        """Note the first read of a turn."""
        gap = now - self._alive
        held_up = self._alive - self._looked > HALTED_S
        if gap <= AT_ONCE_S or (held_up and gap <= HALTED_S):
            self.since = self._looked
        else:
            # the loop waited for this check, unless it was halted
            self.since = now if gap <= HALTED_S else self._alive
        self._looked = now

    def end(self, now: float) -> None:
        """Note the end of a turn."""
        self._alive = now

    def beat(self, now: float) -> None:
        """Note that the loop turns although nothing may have come."""
        # it has looked since the last sign of life, and has read all that had come
        self._looked = max(self._looked, self._alive)
        self._alive = now
