"""Simulation of the closed loop: crowd -> engine -> services -> outcomes -> features, and answers
-> crowd.

The engine runs as it would behind a gateway: requests come in small batches, outcomes some time
later, and its controllers step five times a second. The hidden truth is collected beside the
features for training.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

import numpy as np
from msgspec import structs

from decider.contracts import defaults
from decider.contracts.config import Config, Sampling, Switch
from decider.contracts.features import N_FEATURES
from decider.contracts.requests import CheckRequest, Decision, Outcome
from decider.contracts.signals import INDEX as SIGNAL
from decider.contracts.vocabulary import HTTP_STATUS, Action
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.scoring.model import Model
from learning.traffic import services, web_crowd, world
from learning.traffic.behaviour import SIGN_IN, PlannedRequest
from learning.traffic.conduct import ORDINARY, Conduct, PlannedIncident
from learning.traffic.crowd import Crowd
from learning.traffic.web_crowd import WebCrowd, WebMix

# First tries a second for which the default capacities leave the usual headroom.
USUAL_RATE = 300.0
# Seconds of simulated time for which the crowd is asked at once. Small, because the rates of apps
# are constant within a step.
STEP_S = 0.2
# Seconds. Requests within it are decided together, with one clock reading.
BATCH_S = 0.025
# Seconds between two steps of the controllers, as in a decider.
TICK_S = 0.2
# Seconds between two batches of outcomes, as from an access log that the feedback process reads.
LEARN_S = 0.5
# Share of apps whose profile never reaches the engine. It must judge them by what they do, and the
# model must learn that profiles can be missing. The engine still knows tier and tenant of the
# paying ones (`Scenario.known_table`), as in production.
UNKNOWN_SHARE = 0.1
# Whether an app is abusive -> least and most days until that is known. Reports and chargebacks
# trickle in; good conduct is assumed after 30 days.
LABEL_DELAY_DAYS = {True: (1.0, 45.0), False: (30.0, 30.0)}
# Apps in one batch while the engine gets its memory: few, so that their times stay close to what
# was drawn.
REMEMBER_BATCH = 16
# Slots of the engine for each app. Two are enough that nothing is evicted, so the memory does not
# depend on the order of apps. Where abusers take new ids, a loud one needs dozens of slots.
SLOTS_PER_APP, SLOTS_WHERE_IDS_ROTATE = 2, 16

# The seed of a population times this is added to its app numbers, so that they stay unique when
# runs are joined.
APPS_PER_SEED = 1_000_000

_ADMIT = int(Action.ADMIT)
_STATUS = [HTTP_STATUS[a] for a in Action]
_COST = SIGNAL["cost"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Settings of one run. `start` is in unix seconds, the other times in simulated seconds."""

    seed: int
    start: float
    seconds: float = 300.0
    warm_up: float = 40.0
    """Time at the beginning whose requests are decided but not kept."""
    apps: int = 3000
    rate: float = 300.0
    observe_only: bool = False
    """Admit everything, so that refusals censor nothing of the data."""
    fresh: bool = False
    """The engine's memory begins empty, as after an installation; otherwise it has seen the
    established apps before.
    """
    slowdowns: tuple[services.Slowdown, ...] = ()
    most_per_app: int = 200
    """Rows kept of one app: a reservoir, so that a few loud apps are not the whole data set."""
    abusive_apps: float | None = None
    """Mean share of the apps that is abusive, 0 to 1; None: as the cohorts have it."""
    flat_prior: float | None = None
    """The cohort prior of all profiles, whose other fields then do not hint at abuse either; None:
    profiles as they are. See `world.flatten_profiles`.
    """
    conduct: Conduct = ORDINARY
    incidents: tuple[PlannedIncident, ...] = ()
    shuffled_profiles: bool = False
    """Apps get the profile fields of others, which then do not tell who abuses; see
    `world.shuffle_profiles`.
    """
    late_work: float = 0.0
    """Share of the work of failed requests that services still do, 0 to 1."""
    explore: float = 0.0
    """Probability with which a request that the engine refuses is admitted all the same. Above 0,
    the rows of refused requests are left out, because their outcome is unknown. The requests
    admitted this way stand for them by their weight.
    """
    known_table: bool = True
    """The engine holds the table of known apps: the tier and tenant of every paying app, also of
    those whose profile never reaches it. False: as in a decider that has not received a table yet.
    """
    calls: services.Calls | None = None
    """Which endpoints call further services (`services.CHAIN`, say), whatever the config document
    knows of it; None: no endpoint does.
    """
    web: WebMix | None = None
    """Play the clients of web sites instead of apps with tokens and profiles. `rate` then only says
    how much the services can do. None: the crowd of apps.
    """


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rows of features with the truth about each; n rows."""

    features: np.ndarray
    """float32 (n, N_FEATURES), as the engine served them."""
    abusive: np.ndarray
    """bool (n,): the app turned out abusive."""
    value: np.ndarray
    """float32 (n,): worth of the request, 0 to 1."""
    app: np.ndarray
    """int64 (n,): number of the app, unique over populations."""
    kind: np.ndarray
    """int8 (n,): `world.AppKind`; hidden truth, for evaluation only."""
    tier: np.ndarray
    """int8 (n,)."""
    action: np.ndarray
    """int8 (n,): what the engine answered."""
    at: np.ndarray
    """float64 (n,): unix seconds of the decision."""
    matured_at: np.ndarray
    """float64 (n,): unix seconds from which the label is known."""
    web: np.ndarray
    """bool (n,): from a client of a web site, which has no credential and no profile."""
    weight: np.ndarray
    """float64 (n,): requests this row stands for, the inverse of the probability with which it was
    kept.
    """


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """A finished run: kept rows and exact totals."""

    traffic: Traffic
    requests: int
    by_action: tuple[int, ...]
    """Answers in `Action` order."""
    served: int
    """Requests a service answered itself, whatever its status."""
    failed: int
    """Requests a service could not serve."""
    wall_s: float


# Features, worth, action, unix seconds, and requests the row stands for among those offered.
_KeptRow = tuple[np.ndarray, float, int, float, float]


class _RowReservoir:
    """A reservoir of rows for each app, so that each of its requests is kept with the same
    probability. Vitter (1985), Random Sampling with a Reservoir, algorithm R.
    """

    def __init__(self, most_per_app: int, rng: Random) -> None:
        self._most, self._rng = most_per_app, rng
        self._seen: dict[int, int] = {}
        self._kept: dict[tuple[int, int], _KeptRow] = {}

    def offer(
        self, planned: PlannedRequest, row: np.ndarray, action: int, at: float, weight: float
    ) -> None:
        seen = self._seen.get(planned.app, 0)
        self._seen[planned.app] = seen + 1
        place = seen if seen < self._most else int(self._rng.random() * (seen + 1))
        if place < self._most:
            # A copy: the engine writes its next batch over these rows.
            self._kept[planned.app, place] = (row.copy(), planned.value, action, at, weight)

    def traffic(self, population: world.Population, delay: Random, web: bool) -> Traffic:
        keys = list(self._kept)
        kept = [self._kept[k] for k in keys]
        apps = [population.apps[i] for i, _ in keys]
        wait = {
            i: delay.uniform(*LABEL_DELAY_DAYS[a.abusive]) * world.DAY_S
            for (i, _), a in zip(keys, apps, strict=True)
        }
        at = np.array([k[3] for k in kept], dtype=np.float64)
        share = {i: max(1.0, seen / self._most) for i, seen in self._seen.items()}
        weight = [k[4] * share[i] for (i, _), k in zip(keys, kept, strict=True)]
        return Traffic(
            features=np.array([k[0] for k in kept], dtype=np.float32).reshape(-1, N_FEATURES),
            abusive=np.array([a.abusive for a in apps], dtype=bool),
            value=np.array([k[1] for k in kept], dtype=np.float32),
            app=np.array([population.seed * APPS_PER_SEED + i for i, _ in keys], dtype=np.int64),
            kind=np.array([a.kind for a in apps], dtype=np.int8),
            tier=np.array([a.profile.tier for a in apps], dtype=np.int8),
            action=np.array([k[2] for k in kept], dtype=np.int8),
            at=at,
            matured_at=at + np.array([wait[i] for i, _ in keys], dtype=np.float64),
            web=np.full(len(kept), web, dtype=bool),
            weight=np.array(weight, dtype=np.float64),
        )


class Simulation:
    """One run in progress. By default it has the starting config and no model, so the fallback
    limiter decides. Its engine holds the table of the population's paying apps unless the scenario
    says otherwise. A subclass may change the answers (`answer`) and count requests (`note`).
    """

    def __init__(
        self, scenario: Scenario, config: Config | None = None, model: Model | None = None
    ) -> None:
        self.scenario = scenario
        self.population = draw_people(scenario)
        self.crowd = gather_crowd(scenario, self.population)
        self._incidents = sorted(scenario.incidents, key=lambda planned: -planned.first)
        self.config = config or starting_config(scenario)
        self.services = services.build_models(
            self.config.services, scenario.start, scenario.slowdowns, scenario.late_work
        )
        rotating = scenario.conduct.rotate_after or scenario.web
        slots = SLOTS_WHERE_IDS_ROTATE if rotating else SLOTS_PER_APP
        capacity = slots * scenario.apps + 1024
        self.engine = Engine("simulation", "local", token_key=bytes(32), capacity=capacity)
        self.engine.apply(self.config, model)
        self._rng = Random(scenario.seed + 1)
        # Streams of their own: a run without exploration is the same whatever is drawn here.
        self._sizes, self._exploring = Random(scenario.seed + 3), Random(scenario.seed + 4)
        self._rows = _RowReservoir(scenario.most_per_app, self._rng)
        self._answers: list[tuple[float, int, PlannedRequest, Outcome]] = []
        self._outcomes: list[Outcome] = []
        self._ticket = count()
        self._ticked = self._learned = scenario.start
        self.by_action = [0] * len(Action)
        self.served = self.failed = 0

    def run(self, progress: Callable[[float], object] | None = None) -> SimulationResult:
        """Play the scenario to its end and return what came of it.

        `progress` is called with the simulated seconds of each step.
        """
        began = time.perf_counter()
        unknown = 1.0 if self.scenario.web else UNKNOWN_SHARE
        known = [p for p in self.population.profiles() if self._rng.random() >= unknown]
        self.engine.know(known, now=self.scenario.start - world.DAY_S)
        if self.scenario.known_table and not self.scenario.web:
            self.engine.hold_known(
                known_apps.of_profiles(self.population.profiles(), self.engine.text_hash)
            )
        if not self.scenario.fresh:
            self._remember()
        steps = math.ceil(self.scenario.seconds / STEP_S)
        for step in range(1, steps + 1):
            self._step(self.scenario.start + step * STEP_S)
            if progress is not None:
                progress(STEP_S)
        traffic = self._rows.traffic(
            self.population, Random(self.scenario.seed + 2), self.scenario.web is not None
        )
        wall = time.perf_counter() - began
        return SimulationResult(
            traffic, sum(self.by_action), tuple(self.by_action), self.served, self.failed, wall
        )

    def _remember(self) -> None:
        """Let the engine see each established app once within the last day, oldest first.

        The times of web clients are spread evenly by their logarithm: a visit or an attack may have
        begun minutes or hours ago.
        """
        apps = [a for a in self.population.apps if not a.born_late]
        draw = self._rng.uniform
        web = self.scenario.web is not None
        drawn = [60 * (86_000 / 60) ** draw(0, 1) if web else draw(60, 86_000) for _ in apps]
        ago = sorted(((seconds, i) for i, seconds in enumerate(drawn)), reverse=True)
        for k in range(0, len(ago), REMEMBER_BATCH):
            requests = [
                CheckRequest(apps[i].profile.app, "GET", "/v2/auth/session")
                for _, i in ago[k : k + REMEMBER_BATCH]
            ]
            self.engine.decide(requests, now=self.scenario.start - ago[k][0])

    def answer(
        self, planned: PlannedRequest, decision: Decision, cost: float, now: float
    ) -> tuple[int, float]:
        """Return the action that the client of `planned` meets, and the seconds it is told to wait.

        `decision` is the engine's, and `cost` is the request's cost in cost units.
        """
        return decision.action, decision.retry_after

    def note(self, planned: PlannedRequest, action: int, served: bool) -> None:
        """Do nothing; a subclass may count a request here. Called for each one after the warm-up,
        with the action its client met and whether its service could serve it.
        """

    def _step(self, upto: float) -> None:
        while self._incidents and upto > self.scenario.start + self._incidents[-1].first:
            due = self._incidents.pop()
            # Only apps have planned incidents.
            if isinstance(self.crowd, Crowd):
                self.crowd.incident(due.kind, due.apps, upto, due.lasts)
        self._deliver(upto)
        planned = self.crowd.due(upto)
        begin = 0
        for end in range(1, len(planned) + 1):
            if end == len(planned) or planned[end].at > planned[begin].at + BATCH_S:
                self._decide(planned[begin:end], max(planned[end - 1].at, upto - STEP_S))
                begin = end
        if upto >= self._ticked + TICK_S:
            self._ticked = upto
            self.engine.tick(now=upto)

    def _decide(self, batch: list[PlannedRequest], now: float) -> None:
        decisions = self.engine.decide([p.request for p in batch], now=now)
        # Features of the first seconds show an empty memory that no running decider has.
        keep = now >= self.scenario.start + self.scenario.warm_up
        costs = self.engine.signals[: len(batch), _COST].tolist()
        rows = self.engine.features
        for k, (planned, decision) in enumerate(zip(batch, decisions, strict=True)):
            action, wait = self.answer(planned, decision, costs[k], now)
            action, wait, weight = self._explore(action, wait)
            self.by_action[action] += 1
            if keep and weight:
                self._rows.offer(planned, rows[k], action, now, weight)
            served = action == _ADMIT and self._serve(planned, costs[k], now)
            if action != _ADMIT:
                self.crowd.react(planned, _STATUS[action], wait, now)
            if keep:
                self.note(planned, action, served)

    def _explore(self, action: int, wait: float) -> tuple[int, float, float]:
        """Return the action and the wait that the client meets, and the number of requests that
        this one stands for: 0 when its row is left out.
        """
        chance = self.scenario.explore
        if action == _ADMIT or not chance:
            return action, wait, 1.0
        if self._exploring.random() < chance:
            return _ADMIT, 0.0, 1.0 / chance
        return action, wait, 0.0

    def _serve(self, planned: PlannedRequest, cost: float, now: float) -> bool:
        """Let the service answer after its latency; only then do client and access log see the
        answer.

        Return whether the service could serve the request.
        """
        costs = {planned.service: cost}
        if self.scenario.calls:
            request = planned.request
            route = self.engine.router.route(request.method, request.path)
            further = self.scenario.calls.get(f"{route.method} {route.endpoint}", {})
            costs = {planned.service: route.cost, **further}
        ok, latency = services.offer_along(self.services, costs, now, self._rng.random)
        self.served += ok
        self.failed += not ok
        at = now + latency / 1000
        outcome = self._outcome(planned, ok, at, latency)
        # The ticket orders answers of the same time; planned requests cannot be compared.
        heapq.heappush(self._answers, (at, next(self._ticket), planned, outcome))
        return ok

    def _outcome(self, planned: PlannedRequest, ok: bool, at: float, latency: float) -> Outcome:
        """Return all that the gateway's access log tells of a request that ended at `at` (unix
        seconds) after `latency` ms.
        """
        request = planned.request
        status, size = self._answered(planned) if ok else self._overloaded(planned)
        route = self.engine.router.route(request.method, request.path)
        return Outcome(
            request.app,
            planned.service,
            at,
            status,
            latency,
            request.request_id,
            bytes_out=size,
            endpoint=f"{route.method} {route.endpoint}",
        )

    def _overloaded(self, planned: PlannedRequest) -> tuple[int, int]:
        return 503, services.answer_bytes(planned.service, 503, self._sizes.random())

    def _answered(self, planned: PlannedRequest) -> tuple[int, int]:
        """Return the status and the body's size in bytes of a service that has room."""
        if planned.answer is not None:
            return planned.answer
        request = planned.request
        status = services.answer_status(request.method, request.path, planned.query, request.token)
        # The size follows the status before the change below: a failed sign-in shows another page.
        endpoint = services.endpoint_of(request.method, request.path)
        size = services.answer_bytes(endpoint, status, self._sizes.random())
        if status == 401 and request.path == SIGN_IN.path:
            status = self.scenario.conduct.failed_sign_in
        return status, size

    def _deliver(self, upto: float) -> None:
        """Give clients their answers until `upto`, and the engine its outcomes in batches."""
        while self._answers and self._answers[0][0] <= upto:
            at, _, planned, outcome = heapq.heappop(self._answers)
            self.crowd.react(planned, outcome.status, 0.0, at)
            self._outcomes.append(outcome)
        if upto >= self._learned + LEARN_S:
            self._learned = upto
            self.engine.learn(self._outcomes, now=upto)
            self._outcomes = []


def draw_people(scenario: Scenario) -> world.Population:
    """Return the population of a scenario."""
    if scenario.web is not None:
        return web_crowd.draw_population(scenario.seed, scenario.apps, scenario.web)
    people = world.draw_population(
        scenario.seed, scenario.apps, now=scenario.start, abusive=scenario.abusive_apps
    )
    if scenario.shuffled_profiles:
        people = world.shuffle_profiles(people)
    if scenario.flat_prior is None:
        return people
    return world.flatten_profiles(people, scenario.flat_prior)


def gather_crowd(scenario: Scenario, people: world.Population) -> Crowd | WebCrowd:
    """Return the clients of a scenario, whose population is `people`."""
    if scenario.web is not None:
        return WebCrowd(people, scenario.seed, scenario.start, scenario.seconds, scenario.web)
    return Crowd(people, scenario.seed, scenario.start, scenario.rate, scenario.conduct)


def starting_config(scenario: Scenario) -> Config:
    """Return the starting config with capacities scaled to the scenario's rate, so that a crowd of
    any size finds the same headroom.
    """
    start = defaults.config(version=1, issued_at=scenario.start)
    scale = scenario.rate / USUAL_RATE
    return structs.replace(
        start,
        services=[structs.replace(s, capacity=s.capacity * scale) for s in start.services],
        switches=[Switch("observe_only")] if scenario.observe_only else [],
        # The rows are kept here; sampled events would only fill the engine's buffer.
        sampling=Sampling(admit=0, refuse=0, block=0, enterprise_refuse=0),
    )


def join_traffic(runs: list[Traffic]) -> Traffic:
    """Return the rows of several runs, one after another."""
    return Traffic(
        *(np.concatenate([getattr(r, name) for r in runs]) for name in Traffic.__slots__)
    )
