"""What a decider tells of checks that it had no time for."""

from __future__ import annotations

import time

from decider.contracts.store import TimelyStatus
from decider.http.batcher import Stats
from decider.node.recent import Recent

# Seconds that count as recent, and between two notes. Chosen: a minute is long enough for a share
# of some thousandths, and a decider that keeps up again is soon seen to.
RECENT_S, NOTE_EVERY_S = 60.0, 2.0


class TimelyWatch:
    """The counts of one decider's server."""

    def __init__(self, stats: Stats) -> None:
        self._stats, self._recent = stats, Recent(RECENT_S, NOTE_EVERY_S)

    def status(self, now: float | None = None) -> TimelyStatus:
        """Return the counts for the heartbeat. `now`: seconds of a clock that is not set."""
        stats = self._stats
        counts = (stats.decided + stats.undecided, stats.late, stats.undecided)
        lately = self._recent.since(counts, time.monotonic() if now is None else now)
        return TimelyStatus(stats.late, stats.undecided, *lately)
