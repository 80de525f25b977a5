"""Estimates from a sample whose rows were kept independently, each with its own known probability
(Poisson sampling).

The total is Horvitz and Thompson's (1952, A generalization of sampling without replacement from a
finite universe): the sum of w = 1/p. Its variance is estimated by sum((1 - p) / p^2) = sum(w^2) -
sum(w) (Sarndal, Swensson, Wretman 1992, Model Assisted Survey Sampling, 3.5). Both follow from two
sums, sum(w) and sum(w^2), and adding such sums up loses nothing.

The interval is Wilson's (1927, Probable inference, the law of succession, and statistical
inference) carried over to a count: the totals Y that the estimate does not contradict, |estimate -
Y| <= z sqrt(c Y), where c = sum(w^2) / sum(w) - 1 is the variance per decision. Unlike estimate +-
z sqrt(variance) it stays above zero, and it covers the true total as often as it should even when
few rows were kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

# Normal quantile of a two-sided 95% interval.
Z95 = 1.959964
# A variance of less than this, relative to the total, is rounding: sums of float64 weights differ
# in about the 16th digit, and a sample's variance is far larger.
_EXACT = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated number of decisions."""

    count: float = 0.0
    """Estimated number of decisions, unbiased."""
    square: float = 0.0
    """Sum of the squared weights."""
    kept: int = 0
    """Stored rows that it was estimated from."""

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.count + other.count, self.square + other.square, self.kept + other.kept
        )

    @property
    def variance(self) -> float:
        """The estimated variance of the count."""
        return max(0.0, self.square - self.count)

    @property
    def exact(self) -> bool:
        """Whether every row was certain to be kept: then the count is exact."""
        return self.variance <= _EXACT * max(1.0, self.count)

    @property
    def rate(self) -> float:
        """Share of the decisions that were kept, 0 to 1; 1 when there were none."""
        return min(1.0, self.kept / self.count) if self.count > 0 else 1.0

    @property
    def low(self) -> float:
        """Lower end of the 95% interval; never below the rows that were seen."""
        return max(float(self.kept), within(self.count, self.variance)[0])

    @property
    def high(self) -> float:
        """Upper end of the 95% interval."""
        return max(float(self.kept), within(self.count, self.variance)[1])

    @property
    def words(self) -> str:
        """The count in words: with its interval ("about 20 (12 to 31)"), or alone when exact."""
        return (
            f"{self.count:,.0f}"
            if self.exact
            else f"about {self.count:,.0f} ({self.low:,.0f} to {self.high:,.0f})"
        )


def within(count: float, variance: float, z: float = Z95) -> tuple[float, float]:
    """Return the interval (low, high) of an estimated total of positive terms, at 95% for the
    default `z`; (count, count) when the count is exact. It is Wilson's interval for a count, as in
    the module's docstring.
    """
    if variance <= _EXACT * max(1.0, count):
        return count, count
    spread = z * z * variance / count
    # the two roots of (count - Y)^2 = spread Y
    middle, half = count + spread / 2, math.sqrt(spread * count + spread * spread / 4)
    return middle - half, middle + half


NOTHING = Estimate()


def total(parts: Iterable[Estimate]) -> Estimate:
    """Return the sum of some estimates."""
    # added up by hand: a frozen object per part would cost more than the sums
    count, square, kept = 0.0, 0.0, 0
    for part in parts:
        count, square, kept = count + part.count, square + part.square, kept + part.kept
    return Estimate(count, square, kept)


def of_row(probability: float) -> Estimate:
    """Return the estimate that one row with this inclusion probability stands for."""
    weight = 1.0 / probability
    return Estimate(weight, weight * weight, 1)


def share_within(hits: int, of: int, z: float = Z95) -> tuple[float, float]:
    """Return the interval (low, high) of the share `hits` / `of`, 0 to 1, at 95% for the default
    `z`, by Wilson's score (1927, as above). Return (0, 1) when `of` is 0.
    """
    if of <= 0:
        return 0.0, 1.0
    share, weight = hits / of, z * z / of
    half = math.sqrt(weight * share * (1.0 - share) + weight * weight / 4.0)
    return max(0.0, (share + weight / 2.0 - half) / (1.0 + weight)), min(
        1.0, (share + weight / 2.0 + half) / (1.0 + weight)
    )
