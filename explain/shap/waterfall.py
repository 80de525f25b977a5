"""The waterfall: how a risk score adds up, feature by feature, in risk points.

SHAP values add up in log-odds. To show them as risk, all are multiplied by one factor: the slope of
the line from the base rate to the score on the calibration curve. Since that curve only rises, the
factor is positive and at most a quarter of its steepness, so signs and proportions stay, the
effects add up to the risk exactly, and none depends on the order.

Each shown effect is rounded by itself, so that it reads the same on every page. The row of all
other features includes the rounding errors, so that the column still adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decider.contracts.artifact import Artifact, Calibration
from decider.contracts.features import FEATURES, Feature, format_value
from decider.refusal.findings import typical
from decisions.models import Decision
from explain.models import Explanation

# Features with a row of their own. Chosen: the chart fits beside the story; the rest is one row.
SHOWN_FEATURES = 8


@dataclass(frozen=True, slots=True)
class WaterfallRow:
    """One feature's step. `before` and `after` are running sums of the rounded effects.

    With findings for and against, a running sum may leave the scale of 0 to 1; its bar then ends at
    the edge.
    """

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
        return _percent(min(self.before, self.after))

    @property
    def width(self) -> float:
        """Width of its bar, percent of the risk scale; a tiny step is drawn as a thin line."""
        return max(0.4, round(abs(_percent(self.after) - _percent(self.before)), 2))

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
    rows: tuple[WaterfallRow, ...]
    rest: float
    """Effect of all other features together, with up to 0.05 of rounding errors."""
    rest_before: float
    rest_raises: int
    rest_lowers: int
    rest_none: int
    """Other features that contributed nothing."""
    score: float
    base_log_odds: float
    sum_log_odds: float
    contributions: tuple[float, ...]
    """Of all features in registry order, log-odds."""
    values: tuple[float, ...]
    typical: tuple[float, ...] | None
    points: float
    """Risk points for one unit of log-odds."""

    @property
    def rest_count(self) -> int:
        return self.rest_raises + self.rest_lowers + self.rest_none

    @property
    def rest_left(self) -> float:
        return _percent(min(self.rest_before, self.score))

    @property
    def rest_width(self) -> float:
        return max(0.4, round(abs(_percent(self.score) - _percent(self.rest_before)), 2))

    @property
    def total(self) -> float:
        return round(self.score - self.base, 2)

    @property
    def rise_log_odds(self) -> float:
        """Sum of the contributions, rounded so that it and the base add up with 3 decimals."""
        return round(self.base_log_odds + self.sum_log_odds, 3) - round(self.base_log_odds, 3)

    def effect(self, contribution: float) -> float:
        """Return the risk points of a contribution in log-odds, rounded as shown."""
        return _effect(contribution, self.points)


def build_from_explanation(explanation: Explanation, d: Decision, artifact: Artifact) -> Waterfall:
    """Return how the score of decision `d` adds up.

    `artifact` is the model that the decision was made with.
    """
    values = np.frombuffer(bytes(d.features), "<f4")
    return build_waterfall(
        explanation.base,
        explanation.values,
        values,
        typical(artifact, d.tier),
        artifact.risk_calibration,
    )


def build_waterfall(
    base: float,
    contributions: NDArray[np.float64],
    values: NDArray[np.float32],
    medians: list[float] | None,
    calibration: Calibration,
) -> Waterfall:
    """Return the waterfall of one decision. Base and contributions are in log-odds; values and
    medians are in registry order.

    Features that raise the risk come before those that lower it, each strongest first, so that the
    running sum stays on the scale where possible.
    """
    shown = _pick_shown(contributions)
    others = np.delete(contributions, shown)
    points = _factor(base, float(contributions.sum()), calibration)
    start, score = (
        round(float(risk), 2)
        for risk in _probability(np.array([base, base + contributions.sum()]), calibration)
    )
    effects = [_effect(float(contributions[k]), points) for k in shown]
    risks = [round(start + float(step), 2) for step in np.cumsum([0.0, *effects])]
    return Waterfall(
        base=start,
        rows=_lay_rows(shown, contributions, values, medians, risks),
        rest=round(score - risks[-1], 2),
        rest_before=risks[-1],
        rest_raises=int((others > 0).sum()),
        rest_lowers=int((others < 0).sum()),
        rest_none=int((others == 0).sum()),
        score=score,
        base_log_odds=base,
        sum_log_odds=float(contributions.sum()),
        contributions=tuple(contributions.tolist()),
        values=tuple(values.tolist()),
        typical=None if medians is None else tuple(medians),
        points=points,
    )


def _pick_shown(contributions: NDArray[np.float64]) -> list[int]:
    """Return the strongest features: those that raise the risk, then those that lower it."""
    # Stable, so that equal contributions keep the registry's order on every page load.
    order = np.argsort(-np.abs(contributions), kind="stable")[:SHOWN_FEATURES]
    raises = [int(k) for k in order if contributions[k] > 0]
    return raises + [int(k) for k in order if contributions[k] < 0]


def _lay_rows(
    shown: list[int],
    contributions: NDArray[np.float64],
    values: NDArray[np.float32],
    medians: list[float] | None,
    risks: list[float],
) -> tuple[WaterfallRow, ...]:
    """Return a row for each shown feature; `risks` are the running sums around them."""
    return tuple(
        WaterfallRow(
            FEATURES[k],
            float(values[k]),
            None if medians is None else medians[k],
            float(contributions[k]),
            risks[n],
            risks[n + 1],
        )
        for n, k in enumerate(shown)
    )


def _effect(contribution: float, points: float) -> float:
    return round(contribution * points, 2)


def _factor(base: float, total: float, calibration: Calibration) -> float:
    """Return risk points for one unit of log-odds: the slope from base to base + total on the
    calibration curve.
    """
    start, end = _probability(np.array([base, base + total]), calibration)
    # Below this the slope of a chord is rounding noise, so the curve's own slope at base is used.
    if abs(total) > 1e-9:
        return float((end - start) / total)
    return float(calibration.slope * start * (1.0 - start))


def _percent(risk: float) -> float:
    """Return the place on the drawn scale, percent. A running sum beyond the scale is drawn at its
    edge.
    """
    return round(100 * min(1.0, max(0.0, risk)), 2)


def _probability(raw: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return the calibrated risk by Platt scaling, as `decider.scoring.model.probability` does."""
    return 1.0 / (1.0 + np.exp(-(calibration.slope * raw + calibration.intercept)))
