"""The arms of an evaluation: the ways to decide that are compared. Each arm runs the real engine
with a config of its own; only the oracle replaces the engine's answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product

from msgspec import structs

from decider.contracts.config import Config
from learning.traffic import simulate
from learning.traffic.simulate import Scenario

# Milliseconds that scoring a batch may take. A decider's 5 ms would hand requests to the fallback
# limiter whenever other work on this machine delays a batch, and no two runs would be equal.
UNHURRIED_MS = 1e6
# Rates that the tuning of quotas tries, as shares of the tier's own rate. The demo plan's rates are
# far above what its apps send, so the grid reaches down to a twentieth.
RATE_SHARES = (0.05, 0.1, 0.2, 0.4, 0.8)
# Bursts that the tuning of quotas tries: seconds of the rate that a full bucket holds. The starting
# config has 10 and 20 s; smaller rates need longer bursts.
BURSTS_S = (10.0, 20.0, 40.0, 80.0)
# Largest share of false throttles that tuned quotas may cause in the usual world. Chosen: what an
# operator would accept, and close to Sluice's own, so that both are compared at equal cost.
TUNED_FALSE_THROTTLE = 0.01


@dataclass(frozen=True, slots=True)
class Quotas:
    """Static quotas for each app, by tier."""

    rate_share: float
    """Rate of each tier's bucket, times the rate that the starting config gives it."""
    burst_s: float
    """Seconds of that rate which a full bucket holds; one request at least."""


@dataclass(frozen=True, slots=True)
class EvaluationArm:
    """One way to decide. Without a model the engine's fallback limiter decides."""

    name: str
    says: str
    """One sentence for people."""
    model: bool = False
    observe_only: bool = False
    quotas: Quotas | None = None
    oracle: bool = False

    def config(self, scenario: Scenario) -> Config:
        """Return the config document of this arm: the starting config with the arm's changes."""
        start = simulate.starting_config(replace(scenario, observe_only=self.observe_only))
        start = structs.replace(start, ml_time_limit_ms=UNHURRIED_MS)
        if self.quotas is None:
            return start
        tiers = [
            structs.replace(
                tier,
                rate=tier.rate * self.quotas.rate_share,
                burst=max(1.0, tier.rate * self.quotas.rate_share * self.quotas.burst_s),
            )
            for tier in start.tiers
        ]
        return structs.replace(start, tiers=tiers)


NOTHING = EvaluationArm("refuse nothing", "Admits every request.", observe_only=True)
FALLBACK = EvaluationArm("fallback limiter", "The starting config's token buckets, no model.")
SLUICE = EvaluationArm("Sluice", "The starting config and the model of a first start.", model=True)
ORACLE = EvaluationArm(
    "oracle",
    "Knows who abuses and what the services can do: refuses every abuser, then honest requests that"
    " would wait longer than clients do.",
    observe_only=True,
    oracle=True,
)


def static_quotas(quotas: Quotas) -> EvaluationArm:
    """Return the arm of token buckets by tier with these quotas and no model."""
    says = (
        f"Token buckets by tier, no model, tuned by grid: {quotas.rate_share:g} of the plan's rate,"
        f" and {quotas.burst_s:g} s of that as burst."
    )
    return EvaluationArm("static quotas", says, quotas=quotas)


def quota_grid() -> list[Quotas]:
    """Return the quotas that the tuning tries: each of RATE_SHARES with each of BURSTS_S."""
    return [Quotas(rate, burst) for rate, burst in product(RATE_SHARES, BURSTS_S)]


def tuned(
    candidates: Iterable[Quotas], measured: Callable[[Quotas], tuple[float, float]]
) -> Quotas:
    """Return the candidate that admits the least abuse within the limit TUNED_FALSE_THROTTLE.

    `measured` returns a candidate's shares of false throttles and of abuse admitted, 0 to 1. If no
    candidate is within the limit, return the one with the fewest false throttles.
    """

    def rank(candidate: Quotas) -> tuple[bool, float]:
        false_throttle, abuse_admitted = measured(candidate)
        too_many = false_throttle > TUNED_FALSE_THROTTLE
        return too_many, false_throttle if too_many else abuse_admitted

    return min(candidates, key=rank)
