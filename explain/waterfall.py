"""How a score adds up, in risk points.

SHAP values add up in log-odds. To show them as risk, they are laid end to end, strongest first, and each partial sum goes
through the model's calibration; a feature's effect is the step it makes there. The steps add up to the risk by construction,
and each depends on the order, which is why the order is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decider.artifact import Calibration
from decider.features import FEATURES, Feature, format_value

SHOWN = 8
"""Features with a row of their own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One feature's step. `before` and `after` are running risks, `effect` their difference, all rounded to shown places."""

    feature: Feature
    value: float
    typical: float | None
    contribution: float
    """Log-odds."""
    before: float
    after: float

    @property
    def effect(self) -> float:
        return round(self.after - self.before, 2)

    @property
    def left(self) -> float:
        """Where its bar begins, percent of the risk scale."""
        return round(100 * min(self.before, self.after), 2)

    @property
    def width(self) -> float:
        """Of its bar, percent; a step too small to see is drawn as a line."""
        return max(0.4, round(100 * abs(self.after - self.before), 2))

    @property
    def shown_value(self) -> str:
        return format_value(self.feature, self.value)

    @property
    def shown_typical(self) -> str:
        return "–" if self.typical is None else format_value(self.feature, self.typical)


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Rows that add up: base + effects + rest = score, to the last shown digit."""

    base: float
    rows: tuple[Row, ...]
    rest: float
    """Effect of all other features together."""
    rest_before: float
    rest_raises: int
    rest_lowers: int
    rest_none: int
    """Other features that contributed nothing."""
    score: float
    base_log_odds: float
    sum_log_odds: float

    @property
    def rest_count(self) -> int:
        return self.rest_raises + self.rest_lowers + self.rest_none

    @property
    def rest_left(self) -> float:
        return round(100 * min(self.rest_before, self.score), 2)

    @property
    def rest_width(self) -> float:
        return max(0.4, round(100 * abs(self.rest), 2))

    @property
    def total(self) -> float:
        return round(self.score - self.base, 2)


def build(
    base: float,
    contributions: NDArray[np.float64],
    values: NDArray[np.float32],
    typical: list[float] | None,
    calibration: Calibration,
) -> Waterfall:
    """The waterfall of one decision: base and contributions in log-odds, feature values and medians in registry order."""
    order = np.argsort(-np.abs(contributions), kind="stable")
    shown = [int(k) for k in order[:SHOWN] if contributions[k] != 0]
    others = contributions[np.setdiff1d(order, shown)]
    running = base + np.concatenate([[0.0], np.cumsum(contributions[shown]), [contributions.sum()]])
    risks = [round(float(r), 2) for r in _probability(running, calibration)]
    rows = tuple(
        Row(FEATURES[k], float(values[k]), None if typical is None else typical[k], float(contributions[k]), risks[n], risks[n + 1])
        for n, k in enumerate(shown)
    )
    return Waterfall(
        base=risks[0],
        rows=rows,
        rest=round(risks[-1] - risks[-2], 2),
        rest_before=risks[-2],
        rest_raises=int((others > 0).sum()),
        rest_lowers=int((others < 0).sum()),
        rest_none=int((others == 0).sum()),
        score=risks[-1],
        base_log_odds=base,
        sum_log_odds=float(contributions.sum()),
    )


def _probability(raw: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Platt scaling, as the decider does it (`decider.models.probability`)."""
    return 1.0 / (1.0 + np.exp(-(calibration.slope * raw + calibration.intercept)))
