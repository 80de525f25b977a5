"""Several deciders in front of one service, in simulated time: requests of eight tenants, a service
that works off what it is given, outcomes, and reports between the deciders as the store passes them
on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from msgspec import structs

from decider.contracts import defaults
from decider.contracts.config import Config
from decider.contracts.requests import CheckRequest, Outcome
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Action, Tier
from decider.engine.engine import Engine
from decider.engine.shared.peers import REPORT_S
from decider.scoring.model import Model

NOW = 1_790_000_000.0  # any moment
SERVICE, PATH = "orders-read", "/v2/orders/17"
# Tenants, and apps of each. Chosen: so few that each one's share can be told from chance within
# twenty seconds.
TENANTS, APPS = 8, 16
# Requests a second that the service does, and those to which it is held when it is short of room.
CAPACITY = 200.0
TARGET = 0.85 * CAPACITY  # as the document says
# Latency of the service with little to do, seconds: below what the document calls usual.
USUAL_S = 0.008
# Seconds of one step of the world, and between two ticks of a decider.
STEP_S, TICK_S = 0.05, 0.2
# What all tenants send before the surge, as a share of the capacity, and for how many seconds.
BEFORE, BEFORE_S = 0.6, 20.0
# How much more the first tenant sends than each of the others.
HEAVY = 6.0


def config() -> Config:
    """Return the usual document, with a service of CAPACITY and plans that never bind."""
    found = defaults.config()
    services = [
        structs.replace(s, capacity=CAPACITY) if s.name == SERVICE else s for s in found.services
    ]
    tiers = [structs.replace(t, rate=1000.0, burst=5000.0) for t in found.tiers]
    return structs.replace(found, services=services, tiers=tiers)


@dataclass
class Result:
    """Requests asked for and admitted, by second and tenant, of those that a decider answered."""

    asked: np.ndarray
    admitted: np.ndarray

    def share(self, start: int, end: int) -> float:
        """Return what was admitted in these seconds, as a share of what may be."""
        asked = self.asked[start:end].sum() / (end - start)
        return float(self.admitted[start:end].sum() / (end - start) / min(asked, TARGET))

    def parts(self, start: int, end: int) -> np.ndarray:
        """Return what each tenant got in these seconds, as a share of its due."""
        asked, admitted = self.asked[start:end].mean(axis=0), self.admitted[start:end].mean(axis=0)
        found: np.ndarray = admitted / due(asked)
        return found

    def jain(self, start: int, end: int) -> float:
        """Return Jain's index over these shares (Jain, Chiu and Hawe, 1984)."""
        parts = self.parts(start, end)
        return float(parts.sum() ** 2 / (len(parts) * (parts**2).sum()))


def due(asked: np.ndarray) -> np.ndarray:
    """Return the max-min shares of the target, capped at what each asks for, by exact filling.
    `asked`: requests a second, float64 (tenants,).
    """
    if asked.sum() <= TARGET:
        return asked
    left, got = TARGET, np.zeros(len(asked))
    for rest, k in zip(range(len(asked), 0, -1), np.argsort(asked), strict=True):
        got[k] = min(asked[k], left / rest)
        left -= got[k]
    return got


@dataclass
class World:
    """A region. Before second 0 all tenants send alike, and far less than the service can do."""

    model: Model
    deciders: int
    load: float
    """Requests from second 0 on, as a multiple of the capacity. The first tenant sends HEAVY times
    what each of the others sends.
    """
    seconds: int
    seed: int = 1
    silent: tuple[float, float] = (1e9, 1e9)
    """From when to when the store passes no reports on."""
    away: Callable[[float], set[int]] = lambda _: set()
    """The deciders that are not running at a second; their requests are not decided."""
    home: Callable[[float, np.ndarray], np.ndarray] = lambda _, homes: homes
    """Which decider gets each app's requests at a second, from where they usually go."""
    reports: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.engines = [
            Engine(f"n{k}", "r", b"k" * 32, capacity=4_096) for k in range(self.deciders)
        ]
        self.apps = [f"app_{t}_{a}" for t in range(TENANTS) for a in range(APPS)]
        profiles = [
            Profile(
                app,
                tenant=f"tenant_{k // APPS}",
                tier=Tier.STANDARD,
                created_at=NOW - 4e7,
                verified=True,
            )
            for k, app in enumerate(self.apps)
        ]
        for engine in self.engines:
            engine.apply(config(), self.model)
            engine.know(profiles, NOW - 60.0)
            engine.sharing.peers.join(NOW - 60.0)
        self.homes = self.rng.integers(0, self.deciders, len(self.apps))
        self.backlog = 0.0
        self.pending: list[tuple[float, float]] = []

    def run(self) -> Result:
        """Play it, and return what was asked for and admitted."""
        shape = (self.seconds, TENANTS)
        result = Result(np.zeros(shape), np.zeros(shape))
        weights = np.ones(TENANTS)
        weights[0] = HEAVY
        for step in range(round(-BEFORE_S / STEP_S), round(self.seconds / STEP_S)):
            t = step * STEP_S
            rates = (
                np.full(TENANTS, BEFORE * CAPACITY / TENANTS)
                if t < 0.0
                else self.load * CAPACITY * weights / weights.sum()
            )
            running = [k for k in range(self.deciders) if k not in self.away(t)]
            self._serve(self._ask(t, rates, running, result), t, running)
            if step % round(TICK_S / STEP_S) == 0:
                for k in running:
                    self.engines[k].tick(NOW + t)
            if step % round(REPORT_S / STEP_S) == 0:
                self._exchange(t, running)
        return result

    def _ask(self, t: float, rates: np.ndarray, running: list[int], result: Result) -> int:
        """Send the requests of one step. Return how many the service gets."""
        homes, admitted = self.home(t, self.homes), 0
        apps = [
            tenant * APPS + int(self.rng.integers(APPS))
            for tenant, count in enumerate(self.rng.poisson(rates * STEP_S))
            for _ in range(count)
        ]
        self.rng.shuffle(apps)
        for k in running:
            mine = [app for app in apps if homes[app] == k]
            asked = [CheckRequest(self.apps[app], "GET", PATH) for app in mine]
            for app, decision in zip(
                mine, self.engines[k].decide(asked, NOW + t) if asked else [], strict=True
            ):
                admitted += decision.action == Action.ADMIT
                if t >= 0.0:
                    result.asked[int(t), app // APPS] += 1
                    result.admitted[int(t), app // APPS] += decision.action == Action.ADMIT
        return admitted

    def _serve(self, given: int, t: float, running: list[int]) -> None:
        """Work off what was given, and tell the deciders of answers."""
        self.backlog = max(0.0, self.backlog + given - CAPACITY * STEP_S)
        wait = USUAL_S + self.backlog / CAPACITY
        self.pending += [(t + wait, 1000.0 * wait)] * given
        done = [
            Outcome("app_0_0", SERVICE, NOW + at, 200, latency_ms)
            for at, latency_ms in self.pending
            if at <= t
        ]
        self.pending = [one for one in self.pending if one[0] > t]
        for k in running:
            self.engines[k].learn(done, NOW + t)

    def _exchange(self, t: float, running: list[int]) -> None:
        """Pass the reports on."""
        if self.silent[0] <= t < self.silent[1]:
            return
        for k in running:
            engine = self.engines[k]
            others = [data for node, data in self.reports.items() if node != engine.node]
            self.reports[engine.node] = engine.sharing.speak(NOW + t)
            engine.sharing.hear(others, NOW + t)
