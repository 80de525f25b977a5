"""One match: a world of the referee, played with one seed and decided by one arm."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from decider.contracts.requests import Decision
from decider.contracts.vocabulary import Action, Tier
from decider.scoring.model import Model
from learning.evaluation.arms import EvaluationArm
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.referee import RefereeWorld
from learning.traffic.services import IMPATIENT_AFTER_S
from learning.traffic.simulate import Scenario, Simulation, Traffic
from learning.training import metrics

# Seconds that the oracle tells a client to wait. Chosen: a service that works off its queue has
# room again within a second.
ORACLE_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class TierCounts:
    """Requests of one tier's apps after the warm-up."""

    honest: int
    """First tries of honest apps."""
    honest_refused: int
    """Of the honest first tries, those that were not admitted: false throttles."""
    honest_failed: int
    """Of the honest first tries, those that were admitted but not served by their service."""
    abuse: int
    """Tries of abusive apps."""
    abuse_admitted: int


@dataclass(frozen=True, slots=True)
class RankingResult:
    """How well risk tells abuse from honest requests, each request counted once."""

    auc: float
    false_throttle: float
    """Share of honest requests at or above the risk that catches `metrics.CATCH` of the abuse."""


@dataclass(frozen=True, slots=True)
class MatchResult:
    """The counts of one match."""

    world: str
    arm: str
    seed: int
    tiers: tuple[TierCounts, ...]
    """In `Tier` order."""
    ranking: RankingResult | None = None
    """How well the model ranks. Measured only where nothing is refused, because refusals hide what
    requests would have done; None for every other arm.
    """

    def total(self) -> TierCounts:
        """Return the counts of all tiers together."""
        columns = TierCounts.__slots__
        return TierCounts(*(sum(getattr(t, name) for t in self.tiers) for name in columns))


class Match(Simulation):
    """A simulation that counts what its arm did."""

    def __init__(self, arm: EvaluationArm, scenario: Scenario, model: Model | None) -> None:
        super().__init__(scenario, arm.config(scenario), model if arm.model else None)
        self._tier = [app.profile.tier for app in self.population.apps]
        self._counted: Counter[tuple[int, str]] = Counter()

    def note(self, planned: PlannedRequest, action: int, served: bool) -> None:
        """Count abusers' tries and honest first tries. Honest retries are left out, because they
        would count one refusal several times.
        """
        tier, admitted = self._tier[planned.app], action == Action.ADMIT
        if planned.abusive:
            self._counted[tier, "abuse"] += 1
            self._counted[tier, "abuse_admitted"] += admitted
        elif planned.tried == 0:
            self._counted[tier, "honest"] += 1
            self._counted[tier, "honest_refused"] += not admitted
            self._counted[tier, "honest_failed"] += admitted and not served

    def tiers(self) -> tuple[TierCounts, ...]:
        """Return the counts so far, in `Tier` order."""
        return tuple(
            TierCounts(*(self._counted[tier, name] for name in TierCounts.__slots__))
            for tier in Tier
        )


class OracleMatch(Match):
    """A match whose answers come from the hidden truth instead of the engine."""

    def answer(
        self, planned: PlannedRequest, decision: Decision, cost: float, now: float
    ) -> tuple[int, float]:
        """Return the action and the seconds to wait: block abusers, and shed requests that would
        wait longer for their service than clients do.
        """
        if planned.abusive:
            return int(Action.BLOCK), 0.0
        if self.services[planned.service].wait(now) > IMPATIENT_AFTER_S:
            return int(Action.SHED), ORACLE_WAIT_S
        return int(Action.ADMIT), 0.0


def play(world: RefereeWorld, arm: EvaluationArm, seed: int, model: Model | None) -> MatchResult:
    """Play one match to its end and return its counts. `model` may be None; then the ranking is not
    measured.
    """
    match = (OracleMatch if arm.oracle else Match)(arm, world.scenario(seed), model)
    traffic = match.run().traffic
    ranked = model is not None and arm.observe_only and not arm.oracle
    ranking = rank_traffic(traffic, model) if ranked and model is not None else None
    return MatchResult(world.name, arm.name, seed, match.tiers(), ranking)


def rank_traffic(traffic: Traffic, model: Model) -> RankingResult:
    """Return how well the model's risk ranks the kept rows of a run; rows count by their weight.

    Raises ValueError when all rows are honest or all abusive.
    """
    risk, honest = model.score(traffic.features).risk, ~traffic.abusive
    found = metrics.risk_metrics(traffic.abusive, risk, traffic.weight, traffic.tier)
    above = risk >= found["risk_threshold_at_80_caught"]
    false = np.average(above[honest], weights=traffic.weight[honest])
    return RankingResult(found["risk_auc"], float(false))
