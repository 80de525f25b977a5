"""The engine's time, which the wall clock cannot stop or turn back.

Buckets, windows and budgets count in engine time. It goes on with CLOCK_BOOTTIME, so a step of the
wall clock neither freezes nor refills them, and time asleep counts. What people and other machines
compare with their own clocks (ids, times of events, days of quotas, ends of rules) is in wall time:
engine time plus `skew`.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

# A change of the wall clock against engine time that counts as a step, seconds. Chosen: slewing
# (adjtime corrects half a millisecond a second) never comes near it between two readings.
STEP_S = 0.5
# Seconds by which a caller's own time may go back: engine time then stands still, and beyond it the
# change counts as a step. Chosen: lines of a log and parts of a simulation may be out of order by
# so much.
BACK_S = 5.0


class Clock:
    """A clock that reads engine time and knows its distance from wall time."""

    def __init__(self) -> None:
        self.skew = 0.0
        """Wall time minus engine time, seconds."""
        self.steps = 0
        """Steps of the wall clock that were noticed."""
        self._base = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._latest = 0.0

    def read(self, told: float | None = None) -> float:
        """Return the engine time now: unix seconds, counted on from what the wall clock showed at
        the start.

        `told`: the time now by a caller's own clock (simulations, replays). When `told` goes back
        by at most BACK_S, engine time stands still until `told` catches up; when by more, engine
        time goes on from its latest value.
        """
        if told is not None:
            return self._follow(told)
        now = time.clock_gettime(time.CLOCK_BOOTTIME) + self._base
        skew = time.time() - now
        if not -STEP_S < skew - self.skew < STEP_S:
            self.steps += 1
            log.warning("the wall clock jumped by %+.1f s", skew - self.skew)
        self.skew = skew
        return now

    def at(self, told: float | None = None) -> float:
        """Return the engine time of wall time `told` (None: now), for an outcome, a look or a tick.
        It does not count as the latest time that was read.
        """
        return self.read() if told is None else told - self.skew

    def _follow(self, told: float) -> float:
        now = told - self.skew
        if now < self._latest - BACK_S:
            self.steps += 1
            self.skew = told - self._latest
        self._latest = max(now, self._latest)
        return self._latest
