"""The crowd of a web server: clients of several sites, each known by its address alone.

It has the interface of `crowd.Crowd`: `due` returns the requests of the next stretch of time, and
`react` tells a client how one of its requests was answered. No client has a credential or a
profile.

Browsers ignore Retry-After: people try again by hand or leave. Crawlers slow down, and scripts
retry at once. Attackers go on for a while; then they slow down, give up, or continue from another
address.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import count
from random import Random

from decider.contracts.normalise.paths import path_of
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from learning.traffic.behaviour import PlannedRequest, draw_address
from learning.traffic.web_clients import HABITS, Plan, WebHabit, WebKind, draw_log
from learning.traffic.web_sites import WebAsk, WebSite
from learning.traffic.world import App, Population

# The service of all paths that no prefix matches, as in `contracts.defaults`.
SERVICE = "orders-read"
# Worth of an attacker's request, 0 to 1.
HOSTILE_WORTH = 0.02
# Sites behind one gateway. Several, so that no site's statuses are the whole world's.
SITES = 16
# How many times slower each address of a crew is than an attacker alone, least and most.
CREW_SLOWER = (2.0, 60.0)
# Share of clients whose address another client has too.
SHARED_SOURCES = 0.04
# Share of the clients that the engine has seen within a day: guests and attackers come back.
RETURNING = 0.4
# Refusals after which an attacker reacts: the least number, and how many more on average. Chosen:
# attack tools go on for dozens of requests.
PATIENCE, MORE_PATIENCE = 4.0, 60.0
# Reaction -> share of the attackers: go on as before, slow down, give up, move to another address.
TEMPERS = {"stubborn": 0.3, "slower": 0.25, "gone": 0.15, "moves": 0.3}
# Share of the moves in which the requests keep their address, and only what names the client
# changes, such as a key.
MOVES_IN_NAME = 0.3
# Most tries of one request by a client that insists.
MOST_TRIES = 4
# Statuses that clients take for a refusal. A 403 counts too, unless the site itself gives it.
REFUSED_STATUSES = (429, 503)


@dataclass(frozen=True, slots=True)
class WebMix:
    """Which clients a web crowd has."""

    hostile: float = 0.15
    """Share of the addresses that attack, 0 to 1."""
    obeys: float = 0.3
    """Share of the honest clients that wait for Retry-After."""
    pace: float = 1.0
    """Pace of honest clients, as a multiple of the usual pace."""


@dataclass(slots=True)
class _WebClient:
    """State of one client."""

    kind: WebKind
    site: WebSite
    habit: WebHabit
    plan: Plan
    name: str
    """App id: the pseudonym of its address."""
    source: str
    temper: str
    patience: float
    insists: bool
    obeys: bool
    refused: float = 0.0
    pace: float = 1.0
    hold_until: float = 0.0
    gone: bool = False
    names_dropped: int = 0


@dataclass(frozen=True, slots=True)
class _Crew:
    """Attackers that work together on one site; most attackers are a crew of one."""

    kind: WebKind
    members: int
    slower: float
    """How many times slower each member is than an attacker alone."""


def draw_population(seed: int, apps: int, mix: WebMix) -> Population:
    """Draw `apps` clients; their profiles hold the app id and the defaults of an unknown app.

    Raises ValueError when `apps` is less than 1.
    """
    if apps < 1:
        raise ValueError(f"a population needs at least one client, not {apps}")
    rng = Random(f"web population {seed}")
    kinds = [kind for crew in _crews(rng, apps, mix) for kind in [crew.kind] * crew.members]
    return Population(
        seed,
        tuple(
            App(
                profile=Profile(f"anon_{rng.getrandbits(48):012x}"),
                kind=HABITS[kind].near,
                role="web",
                weight=1.0,
                cohort="web",
                # Whether the engine saw it before does not depend on the kind.
                born_late=rng.random() >= RETURNING,
                obeys=not kind.hostile and rng.random() < mix.obeys,
            )
            for kind in kinds
        ),
    )


def _crews(rng: Random, apps: int, mix: WebMix) -> list[_Crew]:
    """Draw `apps` clients: crews of attackers, and honest clients one by one."""
    attackers = round(apps * mix.hostile)
    crews: list[_Crew] = []
    # The number of each kind is drawn first, so that a large crew does not replace other attacks.
    for kind, many in _by_kind(rng, attackers, True).items():
        left, habit = many, HABITS[kind]
        while left:
            members, slower = 1, 1.0
            if rng.random() < habit.crew:
                members, slower = int(draw_log(rng, *habit.members)), draw_log(rng, *CREW_SLOWER)
            crews.append(_Crew(kind, min(members, left), slower))
            left -= crews[-1].members
    for kind, many in _by_kind(rng, apps - attackers, False).items():
        crews += [_Crew(kind, 1, 1.0)] * many
    return crews


def _by_kind(rng: Random, clients: int, hostile: bool) -> Counter[WebKind]:
    """Draw how many of the honest or hostile clients are of each kind."""
    kinds = [kind for kind in WebKind if kind.hostile is hostile]
    return Counter(rng.choices(kinds, [HABITS[kind].share for kind in kinds], k=clients))


class WebCrowd:
    """All clients of a population that `draw_population` drew for the same seed and mix.

    `start` is unix seconds; clients arrive within `seconds` of it. The same population, seed, mix
    and answers give the same requests.
    """

    def __init__(
        self, population: Population, seed: int, start: float, seconds: float, mix: WebMix
    ) -> None:
        crews = _crews(Random(f"web population {population.seed}"), len(population.apps), mix)
        self._rng = rng = Random(f"web crowd {population.seed} {seed}")
        self.start = self.now = start
        sites = [WebSite(rng) for _ in range(SITES)]
        self.clients: list[_WebClient] = []
        self._coming: list[tuple[float, int, int, WebAsk]] = []
        self._again: list[tuple[float, int, PlannedRequest]] = []
        self._ticket = count()
        for crew in crews:
            self._add(crew, rng.choice(sites), population, seconds, mix)

    def _add(
        self, crew: _Crew, site: WebSite, population: Population, seconds: float, mix: WebMix
    ) -> None:
        rng, habit = self._rng, HABITS[crew.kind]
        begins = 0.9 * seconds * rng.random() * (0.1 if habit.stays else 1.0)
        for _ in range(crew.members):
            index = len(self.clients)
            # A random stream for each plan, so that one client's answers do not change another
            # plan.
            own = Random(rng.getrandbits(48))
            pace = 1.0 / crew.slower if crew.kind.hostile else mix.pace
            source = draw_address(rng)
            if self.clients and rng.random() < SHARED_SOURCES:
                source = rng.choice(self.clients).source
            app = population.apps[index]
            self.clients.append(
                _WebClient(
                    kind=crew.kind,
                    site=site,
                    habit=habit,
                    plan=habit.plan(site, own, pace),
                    name=app.profile.app,
                    source=source,
                    temper=rng.choices(list(TEMPERS), list(TEMPERS.values()))[0],
                    patience=PATIENCE + rng.expovariate(1.0 / MORE_PATIENCE),
                    insists=rng.random() < habit.insists,
                    obeys=app.obeys,
                )
            )
            # A crew begins about the same time.
            late = begins + (rng.expovariate(1.0 / 30.0) if crew.members > 1 else 0.0)
            self._plan_next(index, self.start + late)

    def _plan_next(self, index: int, now: float) -> None:
        client = self.clients[index]
        found = None if client.gone else next(client.plan, None)
        if found is not None:
            wait, ask = found
            at = max(now + wait / client.pace, client.hold_until)
            heapq.heappush(self._coming, (at, next(self._ticket), index, ask))

    def due(self, upto: float) -> list[PlannedRequest]:
        """Return all requests from the last call until `upto` (unix seconds), in time order."""
        out = []
        while self._coming and self._coming[0][0] <= upto:
            at, _, index, ask = heapq.heappop(self._coming)
            client = self.clients[index]
            if client.gone:
                continue
            if at < client.hold_until:
                later = client.hold_until + self._rng.random()
                heapq.heappush(self._coming, (later, next(self._ticket), index, ask))
                continue
            out.append(self._planned(at, index, ask))
            self._plan_next(index, at)
        while self._again and self._again[0][0] <= upto:
            planned = heapq.heappop(self._again)[2]
            if not self.clients[planned.app].gone:
                out.append(planned)
        self.now = upto
        out.sort(key=lambda planned: planned.at)
        return out

    def _planned(self, at: float, index: int, ask: WebAsk) -> PlannedRequest:
        client = self.clients[index]
        return PlannedRequest(
            at,
            index,
            self._request(
                client, ask.method, ask.path, ask.bytes_in if client.site.sizes_known else 0
            ),
            "",
            SERVICE,
            HOSTILE_WORTH if client.kind.hostile else ask.worth,
            client.kind.hostile,
            answer=(ask.status, ask.bytes_out),
        )

    def _request(self, client: _WebClient, method: str, path: str, size: int) -> CheckRequest:
        number = f"req_{self._rng.getrandbits(64):016x}"
        # as a decider reads it: some clients end a path with a slash
        return CheckRequest(client.name, method, path_of(path), "", client.source, number, size)

    def react(self, sent: PlannedRequest, status: int, retry_after: float, now: float) -> None:
        """Let the client of `sent` act on its answer at `now` (unix seconds).

        `retry_after` is in seconds, 0 when the answer had none.
        """
        client = self.clients[sent.app]
        # A site may answer 403 itself. That is the planned answer, and no refusal.
        own = sent.answer is not None and status == sent.answer[0]
        refused = status in REFUSED_STATUSES or (status == 403 and not own)
        if client.kind.hostile:
            self._persist(client, sent, refused, now)
        elif refused:
            self._bear(client, sent, retry_after, now)
        elif client.pace < 1.0:
            client.pace = min(1.0, client.pace * 1.02)

    def _bear(
        self, client: _WebClient, sent: PlannedRequest, retry_after: float, now: float
    ) -> None:
        """Let an honest client wait, slow down, or try again, each in its own way."""
        rng = self._rng
        if client.obeys and retry_after:
            client.hold_until = max(client.hold_until, now + retry_after)
            self._try_again(client, sent, client.hold_until + rng.random(), 2)
        elif client.insists:
            self._try_again(client, sent, now + 0.05 + rng.random(), MOST_TRIES)
        elif client.kind == WebKind.CRAWLER:
            client.pace = max(0.1, 0.7 * client.pace)
        elif rng.random() < 0.25:
            # By hand: the person sees an error page, and reloads.
            self._try_again(client, sent, now + draw_log(rng, 1.0, 20.0), 2)

    def _persist(self, client: _WebClient, sent: PlannedRequest, refused: bool, now: float) -> None:
        """Count a refusal, and let the attacker react when its patience is spent."""
        if not refused:
            client.refused *= 0.95
            return
        if client.insists:
            self._try_again(client, sent, now + self._rng.random(), MOST_TRIES)
        # Late refusals of a name that the attacker has dropped do not count.
        if sent.request.app != client.name:
            return
        client.refused += 1.0
        if client.refused < client.patience or client.temper == "stubborn":
            return
        client.refused = 0.0
        if client.temper == "gone":
            client.gone = True
        elif client.temper == "moves":
            self._move(client)
        else:
            client.pace = max(0.02, client.pace * self._rng.uniform(0.2, 0.7))
            client.hold_until = now + self._rng.uniform(2.0, 60.0)

    def _move(self, client: _WebClient) -> None:
        """Let the client go on under a new name, mostly from another address."""
        client.names_dropped += 1
        client.name = f"anon_{self._rng.getrandbits(48):012x}"
        if self._rng.random() >= MOVES_IN_NAME:
            client.source = draw_address(self._rng)

    def _try_again(self, client: _WebClient, sent: PlannedRequest, at: float, most: int) -> None:
        """Plan the same request again at `at` (unix seconds), unless it was tried `most` times.

        The client does not claim to retry.
        """
        tried = sent.tried + 1
        if tried >= most:
            return
        asked = sent.request
        request = self._request(client, asked.method, asked.path, asked.payload_bytes)
        again = PlannedRequest(
            at, sent.app, request, "", SERVICE, 0.9 * sent.value, sent.abusive, tried, sent.answer
        )
        heapq.heappush(self._again, (at, next(self._ticket), again))
