"""What a decider tells of requests that went another way than it thought.

Counted are unknown paths, services that the gateway named and the config document does not have,
and outcomes of another service than the request was decided for. In each case limits protect the
wrong service.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from decider.contracts.requests import Outcome
from decider.contracts.store import RoutingStatus
from decider.engine.engine import Engine
from decider.node.recent import Recent

# Seconds that count as recent. Chosen: long enough that a share of 1% rests on many requests, short
# enough that a mended gateway is soon seen to be mended.
RECENT_S = 300.0
# Seconds between two notes of the counts, from which the recent ones follow.
NOTE_EVERY_S = 10.0
# Characters of an endpoint that is shown; one that a client made up may be longer.
_MOST_SHOWN = 120

log = logging.getLogger("sluice.routing")


class RoutingWatch:
    """The counts of one decider. `now`: seconds of a clock that is not set."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.misrouted = 0
        """Outcomes of another service than the one decided for, since the start."""
        self._example = ""
        self._misrouted_at = float("-inf")
        self._recent = Recent(RECENT_S, NOTE_EVERY_S)

    def look(self, outcomes: Sequence[Outcome], now: float) -> None:
        """Compare the service of each outcome with the one that its request was decided for."""
        if self._engine.config is None:
            return
        router = self._engine.router
        for outcome in outcomes:
            named = outcome.named in router.index
            decided = outcome.named if named else router.service_of(outcome.endpoint)
            if decided is not None and decided != outcome.service:
                self._note_misrouted(outcome, decided, now)

    def _note_misrouted(self, outcome: Outcome, decided: str, now: float) -> None:
        self.misrouted += 1
        self._misrouted_at = now
        endpoint = outcome.endpoint[:_MOST_SHOWN] or "a request"
        self._example = f"{endpoint} was decided for {decided} and served by {outcome.service}"
        # The 1st, 2nd, 4th, 8th, ... only: a wrong route concerns every request that takes it.
        if self.misrouted & (self.misrouted - 1) == 0:
            log.warning(
                "%d requests so far were served by another service than the one they were decided"
                " for; the last: %s",
                self.misrouted,
                self._example,
            )

    def status(self, now: float) -> RoutingStatus:
        """Return the counts for the heartbeat."""
        strays, decisions = self._engine.strays, int(self._engine.sample.counts.sum())
        counts = (decisions, strays.paths, self.misrouted)
        lately = self._recent.since(counts, now)
        recent = now - self._misrouted_at < RECENT_S
        return RoutingStatus(
            unknown_paths=strays.paths,
            unknown_services=strays.services,
            misrouted=self.misrouted,
            recent_decisions=lately[0],
            recent_unknown_paths=lately[1],
            recent_misrouted=lately[2],
            example=self._example if recent else "",
        )
