"""Figures computed from matches: means of shares over the seeds, with 95% intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from decider.contracts.vocabulary import Tier
from learning.evaluation.arms import NOTHING
from learning.evaluation.match import MatchResult

# Student's t at 97.5% for 1, 2, ... degrees of freedom, for a 95% interval of a mean (Student,
# 1908). Degrees of freedom are one less than the seeds, of which an evaluation has 10 at most. Past
# the table the normal quantile is used; it is up to 10% too small.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)
NORMAL_975 = 1.96  # the same for infinitely many degrees of freedom
# Chance that a share lies above its one-sided bound.
BEYOND = 0.05
# Steps of the bisection for a bound: each gains one bit, and a float has 53.
HALVINGS = 53
# Enterprise false throttles are so rare that they are counted per 10,000 requests.
PER_ENTERPRISE = 10_000.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and half the width of its 95% interval; NaN where nothing was measured."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return the mean of `values`, one for each seed, with its interval.

        The half width is NaN for a single seed; both are NaN without values.
        """
        if len(values) < 2:
            return cls(values[0] if values else math.nan, math.nan)
        freedom = len(values) - 1
        quantile = T_975[freedom - 1] if freedom <= len(T_975) else NORMAL_975
        spread = statistics.stdev(values) / math.sqrt(len(values))
        return cls(statistics.fmean(values), quantile * spread)


@dataclass(frozen=True, slots=True)
class RareCount:
    """How often something rare was found, in how many tries."""

    tries: int
    found: int

    @property
    def upper(self) -> float:
        """The one-sided upper 95% bound of the share found, 0 to 1; NaN without tries.

        At this share, finding `found` or fewer in `tries` independent tries has the probability
        BEYOND (Clopper and Pearson, 1934).
        """
        if not self.tries:
            return math.nan
        low, high = self.found / self.tries, 1.0
        if low == high:
            return high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._chance(middle) > BEYOND:
                low = middle
            else:
                high = middle
        return high

    def _chance(self, share: float) -> float:
        """Return the probability of `found` or fewer if each try has the probability `share`."""
        n = self.tries
        if share >= 1.0:
            return 0.0
        # in logarithms, because the factors for a quarter of a million tries overflow a float
        yes, no, ways = math.log(share), math.log1p(-share), math.lgamma(n + 1)
        return math.fsum(
            math.exp(ways - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * yes + (n - k) * no)
            for k in range(self.found + 1)
        )


class Scoreboard:
    """The results of all matches that were played, and the figures computed from them."""

    def __init__(self, results: Iterable[MatchResult]) -> None:
        self.results = list(results)
        self._by_match = {(r.world, r.arm, r.seed): r for r in self.results}
        self._seeds = sorted({r.seed for r in self.results})

    def abuse_admitted(self, world: str, arm: str) -> Interval:
        """Return the admitted tries of abusers, as a share of their tries where nothing is refused.

        Abusers try less often where they are refused, so a share of those tries would mislead.
        """
        return self._over_seeds(world, arm, self._abuse_admitted)

    def _abuse_admitted(self, result: MatchResult) -> float:
        base = self._by_match[result.world, NOTHING.name, result.seed].total()
        return result.total().abuse_admitted / base.abuse_admitted

    def false_throttle(self, world: str, arm: str) -> Interval:
        """Return the share of honest first tries that were refused."""
        return self._over_seeds(world, arm, lambda r: r.total().honest_refused / r.total().honest)

    def failed(self, world: str, arm: str) -> Interval:
        """Return the share of honest first tries that were admitted and not served."""
        return self._over_seeds(world, arm, lambda r: r.total().honest_failed / r.total().honest)

    def auc(self, world: str) -> Interval:
        """Return the area under the ROC curve of the model's risk."""
        return self._over_seeds(world, NOTHING.name, lambda r: r.ranking.auc if r.ranking else None)

    def false_throttle_at_catch(self, world: str) -> Interval:
        """Return the share of honest requests at or above the risk that catches `metrics.CATCH` of
        the abuse.
        """
        return self._over_seeds(
            world, NOTHING.name, lambda r: r.ranking.false_throttle if r.ranking else None
        )

    def enterprise(self, worlds: Collection[str], arm: str) -> Interval:
        """Return how many of PER_ENTERPRISE honest first tries of enterprise apps were refused.

        Each seed gives one value, for all `worlds` together.
        """
        shares = []
        for seed in self._seeds:
            found = [self._by_match.get((world, arm, seed)) for world in worlds]
            counts = [result.tiers[Tier.ENTERPRISE] for result in found if result is not None]
            if honest := sum(c.honest for c in counts):
                shares.append(PER_ENTERPRISE * sum(c.honest_refused for c in counts) / honest)
        return Interval.of(shares)

    def enterprise_refused(self, worlds: Collection[str], arm: str) -> RareCount:
        """Return the honest first tries of enterprise apps and how many of them were refused, for
        all seeds and `worlds` together.
        """
        mine = [r for r in self.results if r.arm == arm and r.world in worlds]
        counts = [result.tiers[Tier.ENTERPRISE] for result in mine]
        return RareCount(sum(c.honest for c in counts), sum(c.honest_refused for c in counts))

    def arms(self, world: str) -> list[str]:
        """Return the arms that played in a world, in the order of the results."""
        return list(dict.fromkeys(r.arm for r in self.results if r.world == world))

    def _over_seeds(
        self, world: str, arm: str, figure: Callable[[MatchResult], float | None]
    ) -> Interval:
        """Return the figure over the seeds that were played; `figure` gives None for no figure."""
        mine = (self._by_match.get((world, arm, seed)) for seed in self._seeds)
        values = [figure(result) for result in mine if result is not None]
        return Interval.of([value for value in values if value is not None])
