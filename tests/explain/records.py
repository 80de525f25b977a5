"""Records of decisions of every kind: made by the policy function from odd figures, and by the
engine from simulated traffic.
"""

from __future__ import annotations

import functools
import itertools
import math
import uuid
from typing import NamedTuple

import numpy as np
from msgspec import structs
from numba import njit

from decider import policy
from decider.contracts.config import Config, ModelRef, Sampling
from decider.contracts.event import Event
from decider.contracts.features import INDEX
from decider.contracts.requests import Decision as Answered
from decider.contracts.signals import INDEX as S
from decider.contracts.vocabulary import Action, MlState, Reason
from decisions.models import Decision, utc
from learning.traffic import simulate
from learning.traffic.services import Slowdown
from learning.traffic.simulate import Scenario, Simulation
from learning.training import train
from tests.explain import world

ODD_TIERS = (
    {"rate": 0.75, "burst": 7.5, "quota_per_day": 1_234.0, "error_budget": 0.4},
    {"rate": 12.5, "burst": 40.0, "quota_per_day": 64_800.0, "error_budget": 0.003},
    {"rate": 1_234.5, "burst": 5_000.0, "quota_per_day": 10_000_000.0, "error_budget": 0.97},
    {"rate": 12_000.0, "burst": 123_456.0, "quota_per_day": 1e9, "error_budget": 0.0001},
)
"""Plans whose figures are not whole, and very large ones."""
OLDEST = S["lease_due"]
"""Signals of the first stored records."""


class Recorded(NamedTuple):
    """A decision as it was recorded, with the document it was made under."""

    event: Event
    config: Config

    @property
    def seen(self) -> dict[str, float]:
        """The signals by name; 0 for those that the record is too old to have."""
        values = np.frombuffer(self.event.signals, "<f8").tolist()
        return dict(itertools.zip_longest(S, values, fillvalue=0.0))

    @property
    def features(self) -> np.ndarray:
        return np.frombuffer(self.event.features, "<f4")

    @property
    def decision(self) -> Decision:
        return as_decision(self.event)

    @property
    def admitted(self) -> bool:
        """Whether its counters moved as for an admit."""
        return self.event.action == Action.ADMIT or self.event.observed

    @property
    def wait_s(self) -> int:
        """Retry-After, whole seconds."""
        return max(1, math.ceil(self.event.retry_after)) if self.event.retry_after > 0 else 0

    @property
    def headroom(self) -> float:
        return self.seen["bucket_burst"] - self.seen["headroom_withheld"]


def as_decision(event: Event) -> Decision:
    fields = {"id": uuid.UUID(bytes=event.id), "at": utc(event.at)}
    return Decision(**(structs.asdict(event) | fields))


_CHANGES: dict[tuple[object, ...], list[float]] = {}


def changes_of(one: Recorded, parts: int = 1_024) -> list[float]:
    """The risks at which the action changes, ascending, found by halving. Kept: several tests ask
    for those of the same records.
    """
    e = one.event
    key = (e.id, e.signals, e.features, e.value, one.config.version, parts)
    if key not in _CHANGES:
        _CHANGES[key] = _find_changes(one, parts)
    return _CHANGES[key]


# Compiled: thousands of records times a thousand calls from Python take ten seconds.
@njit(cache=True)
def _actions_at(
    risks: np.ndarray,
    signals: np.ndarray,
    features: np.ndarray,
    value: float,
    rules: policy.Rules,
) -> np.ndarray:
    actions = np.empty(len(risks), np.int64)
    for k in range(len(risks)):
        actions[k] = policy.decide(signals, features, risks[k], value, rules)[0]
    return actions


def _find_changes(one: Recorded, parts: int) -> list[float]:
    signals, rules = np.array([*one.seen.values()]), policy.rules_of(one.config)
    features, value = one.features, math.nan if one.event.value is None else one.event.value

    def action_at(risk: float) -> int:
        return int(policy.decide(signals, features, risk, value, rules)[0])

    found = []
    points = np.linspace(0.0, 1.0, parts + 1)
    actions = _actions_at(points, signals, features, value, rules)
    for k in range(parts):
        low, high = points[k], points[k + 1]
        if actions[k] != actions[k + 1]:
            for _ in range(50):
                middle = (low + high) / 2
                if action_at(middle) == actions[k]:
                    low = middle
                else:
                    high = middle
            found.append(high)
    return found


def document(version: int) -> Config:
    """Version 1: the plans of an installation. Version 2: odd ones."""
    base = world.config(version)
    if version == 1:
        return base
    tiers = [structs.replace(tier, **odd) for tier, odd in zip(base.tiers, ODD_TIERS, strict=True)]
    services = [structs.replace(s, target=0.85, capacity=0.75) for s in base.services]
    return structs.replace(base, tiers=tiers, services=services)


@functools.cache
def documents() -> dict[int, Config]:
    return {version: document(version) for version in (1, 2, 3)}


def made(count: int, seed: int = 1) -> list[Recorded]:
    """Records of the policy function: every stage and reason, and figures at the edges where
    rounding could turn them into others.
    """
    luck = np.random.default_rng(seed)
    rows = world.rows(count, seed=seed + 1)
    return [_made(luck, row, documents()[1 + n % 2]) for n, row in enumerate(rows)]


def _made(luck: np.random.Generator, row: np.ndarray, config: Config) -> Recorded:
    def one(*values: float) -> float:
        return float(luck.choice(np.array(values, float)))

    def rarely(value: float, otherwise: float, chance: float = 0.05) -> float:
        return value if luck.random() < chance else otherwise

    tier = int(luck.integers(4))
    times = rarely(one(0.5, 1 / 3, 3.25, 0.01), 1.0, 0.15)
    burst = config.tiers[tier].burst * times
    headroom = one(0.0, 0.4, burst / 2, burst, burst)
    edges = (burst, burst * 0.6, 1.6, 1.0, 0.97, 0.5, 0.0, -0.4, -1.5)
    below = (-headroom * 0.37, 1.2 - headroom, 1.0 - headroom, 0.5 - headroom)
    tokens = max(-burst, min(burst, one(*edges, *below, luck.uniform(-headroom, burst))))
    fair = one(10.0, 10.0, 0.04, math.inf, math.inf, 0.0, 37.9)
    usage = one(0.3, 0.97, 1.0, 1.004, 1.04, 3.6) * (fair if 0 < fair < math.inf else 10.0)
    price = one(0.0, 0.0, 0.004, 0.31, 1.7)
    rate = one(1.0, 0.0, config.tiers[tier].error_budget or 0.0001)
    observed = luck.random() < 0.1
    seen = {
        "tokens": tokens,
        "bucket_burst": burst,
        "bucket_rate": config.tiers[tier].rate * times,
        "headroom_withheld": burst - headroom,
        "override_multiplier": times,
        "override_action": rarely(float(luck.integers(5)), -1.0),
        "quota_limit": config.tiers[tier].quota_per_day,
        "quota_left": rarely(one(0.0, 0.97), one(1.0, 1.6, 5.7, 1_234.5)),
        "quota_reset": one(0.6, 86.0, 3_599.2, 40_000.3, 86_399.9),
        "lease_due": one(0.0, 0.4, 1.0, 17.2),
        "list_verdict": rarely(one(1.0, 2.0), 0.0),
        "compliance": rarely(1.0, 0.0, 0.02),
        "unknown_wait": rarely(one(0.4, 3.2, 130.7, 4_000.0), 0.0),
        "service_price": price,
        "service_utilisation": one(0.2, 0.796, 0.996, 1.0, 1.204),
        "tenant_fair_share": fair,
        "tenant_usage": usage,
        "error_budget_rate": rate,
        "error_budget_left": math.inf if rate == 1.0 else one(5.0, 0.35, 0.004, 0.0),
        "prior_risk": one(0.05, 0.4),
        "prior_value": one(0.5, 0.3, 0.9),
        "cost": one(1.0, 0.25, 4.0),
        "batchable": one(0.0, 1.0),
        "retry_hint": one(0.0, 1.0, 4.2, 59.0, 119.6, 123.4, 1_200.0),
        "observe_only": float(observed),
    }
    luckily = luck.random() < 0.2
    event = world.decided(
        row,
        tier=tier,
        ml_state=int(luck.integers(1, 5)) if luckily else int(MlState.LIVE),
        document=config,
        observed=observed,
        endpoint="/v2/orders/{id}",
        inclusion_probability=one(1.0, 0.98, 0.5, 0.4, 0.02, 0.0996),
        **{f"seen_{name}": value for name, value in seen.items()},
    )
    if luck.random() < 0.05 and seen["lease_due"] == 0.0 and headroom == burst and rate == 0.0:
        event = structs.replace(event, signals=event.signals[: 8 * OLDEST])
    return Recorded(event, config)


class _Recording(Simulation):
    """A run that notes the ids of the decisions it asked for."""

    def __init__(self, scenario: Scenario, config: Config) -> None:
        super().__init__(scenario, config, world.model())
        self.asked: set[bytes] = set()

    def answer(self, planned, decision: Answered, cost: float, now: float):
        self.asked.add(decision.id)
        return super().answer(planned, decision, cost, now)


@functools.cache
def played(seconds: float = 20.0) -> tuple[Recorded, ...]:
    """Records of the engine, of a crowd that services fail: admits and refusals, of known apps and
    unknown ones.
    """
    scenario = Scenario(
        seed=5,
        start=train.MONDAY + 8 * 3_600.0,
        seconds=seconds,
        warm_up=1.0,
        apps=300,
        rate=80.0,
        abusive_apps=0.3,
        slowdowns=tuple(Slowdown(n, 5.0, 100.0, 20.0, 0.1) for n in ("orders", "search")),
    )
    start = simulate.starting_config(scenario)
    config = structs.replace(
        start,
        version=3,
        tiers=[structs.replace(t, harm=t.harm * 3.0) for t in start.tiers],
        sampling=Sampling(admit=1, refuse=1, block=1, enterprise_refuse=1, budget_per_s=1e6),
        model=ModelRef(name="risk", version=1, digest=world.model().digest),
    )
    documents()[3] = config
    run = _Recording(scenario, config)
    run.run()
    return tuple(Recorded(e, config) for e in run.engine.take_events() if e.id in run.asked)


@functools.cache
def every() -> tuple[Recorded, ...]:
    """Records of both, among them each reason that there is."""
    found = (*made(1_500), *played())
    reasons = {Reason(one.event.reason) for one in found}
    assert reasons >= set(Reason) - {Reason.NONE}, set(Reason) - reasons
    return found


def pace_of(one: Recorded) -> float:
    return float(one.features[INDEX["rate_10s"]])
