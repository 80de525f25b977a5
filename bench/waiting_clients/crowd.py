"""The crowd that `waiting_clients` plays, live and simulated: honest and abusive apps of the
simulator, half of which wait in silence when they are refused.

Who waits, and who asks for more than its plan, follows from the seed before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from bench.waiting_clients.ledger import WaitingClients
from decider.contracts.vocabulary import Tier
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.conduct import ORDINARY, Conduct, PlannedIncident, Surge
from learning.traffic.crowd import Crowd
from learning.traffic.services import Slowdown
from learning.traffic.world import AppKind, Population

# Share of the apps that wait. Chosen: half of them give enough trials, and the other half keeps
# loading the services, like clients that never wait.
WAITING_SHARE = 0.5
# Waiting apps of the free tier that send more than its 5 requests a second: how many, requests a
# second of each, for how many seconds, and seconds between two starts. They keep emptying buckets.
HUNGRY, HUNGRY_RATE, HUNGRY_S, HUNGRY_EVERY_S = 30, 12.0, 40.0, 5.0
# Seconds before the first of them.
HUNGRY_FROM_S = 10.0


@dataclass(frozen=True, slots=True)
class Hardship:
    """What makes a run hard: times are seconds after the start."""

    surges: tuple[Surge, ...]
    slowdowns: tuple[Slowdown, ...]
    incidents: tuple[PlannedIncident, ...]

    @property
    def conduct(self) -> Conduct:
        return replace(ORDINARY, surges=self.surges)


# Seconds between two bad times of one service: longer than a run, so each comes once.
_ONCE_S = 1e6
# Twice the usual traffic for a minute and a half, then two services at a third of their capacity,
# and abuse all the time: each kind of refusal comes often, and waits of a minute end in time.
HARD = Hardship(
    surges=(Surge(30.0, 90.0, 2.0),),
    slowdowns=(
        Slowdown("search", 140.0, _ONCE_S, 40.0, 0.35),
        Slowdown("orders-read", 150.0, _ONCE_S, 30.0, 0.4),
    ),
    incidents=(
        PlannedIncident(AppKind.SCRAPER, 8, 15.0, 60.0),
        PlannedIncident(AppKind.STORM, 6, 40.0, 40.0),
        PlannedIncident(AppKind.STUFFER, 6, 90.0, 60.0),
        PlannedIncident(AppKind.CARD_TESTER, 6, 150.0, 60.0),
    ),
)


class WaitingCrowd:
    """A crowd in which some apps wait as long as Retry-After says. Call `due` with small steps, as
    in `Crowd`. Times are unix seconds.
    """

    def __init__(self, crowd: Crowd, people: Population, hardship: Hardship, seed: int) -> None:
        draw = Random(f"who waits {seed}")
        apps = [k for k in range(len(people.apps)) if draw.random() < WAITING_SHARE]
        self.crowd, self.clients = crowd, WaitingClients(apps)
        free = [
            k
            for k in apps
            if people.apps[k].profile.tier == Tier.FREE
            and not people.apps[k].abusive
            and not people.apps[k].born_late
        ]
        self._hungry = draw.sample(free, min(HUNGRY, len(free)))
        self._incidents = sorted(hardship.incidents, key=lambda planned: -planned.first)
        self._asked = [0] * len(self._hungry)

    def due(self, upto: float) -> list[PlannedRequest]:
        """Return all that clients want to send until `upto`, in time order. Call `may_send` for
        each when its time has come, because a waiting client may not send it.
        """
        start = self.crowd.start
        while self._incidents and upto >= start + self._incidents[-1].first:
            planned = self._incidents.pop()
            self.crowd.incident(planned.kind, planned.apps, upto, planned.lasts)
        found = [*self.crowd.due(upto), *self._more(upto), *self.clients.due(upto)]
        found.sort(key=lambda p: p.at)
        return found

    def _more(self, upto: float) -> Iterator[PlannedRequest]:
        """Yield the additional requests of the hungry apps until `upto`."""
        for k, app in enumerate(self._hungry):
            first = self.crowd.start + HUNGRY_FROM_S + k * HUNGRY_EVERY_S
            passed = min(HUNGRY_S, upto - first)
            while self._asked[k] < passed * HUNGRY_RATE:
                at = first + self._asked[k] / HUNGRY_RATE
                self._asked[k] += 1
                yield self.crowd.clients[app].next_request(at, False)

    def may_send(self, planned: PlannedRequest, now: float) -> bool:
        """Return whether the client of `planned` sends it now."""
        return planned.app not in self.clients or self.clients.may_send(planned, now)
