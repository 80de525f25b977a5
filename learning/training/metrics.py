"""Calibration, and the metrics by which a model is judged.

All metrics take row weights, because a row may stand for many requests.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score

from decider.contracts.artifact import Calibration
from decider.contracts.vocabulary import Tier

Floats = npt.NDArray[np.float64]
# Share of abusive requests caught at which false throttles are compared. Chosen: a fixed share
# makes models comparable, whatever the scale of their scores.
CATCH = 0.8
# Risks around which reliability is measured, and how far around. Chosen: where the policy decides,
# and wide enough to hold rows of every tier.
RELIABILITY_AT, RELIABILITY_WITHIN = (0.3, 0.5, 0.7, 0.9), 0.1
# Rows below which a share of abuse says nothing.
FEWEST_ROWS = 100
# Newton's method needs fewer than ten steps on real scores; the limit only ends a fit that does
# not converge.
NEWTON_STEPS = 50
# Added to the Hessian's diagonal, so that it can be solved when all scores are equal.
RIDGE = 1e-9
# Longest step of a parameter. Far from the minimum a full Newton step overshoots and diverges.
LONGEST_STEP = 2.0
# A step this small changes no calibrated probability that anyone reads.
CONVERGED = 1e-10


def fit_platt(raw: Floats, label: Floats, weight: Floats) -> Calibration:
    """Return the slope and intercept that minimise the weighted cross-entropy of `label`.

    `raw` is in log-odds, `label` in [0, 1]. Newton's method on two parameters: Platt (1999), with
    the damping of Lin, Lin and Weng (2007).
    """
    slope, intercept = 1.0, 0.0
    weight = weight / weight.sum()
    for _ in range(NEWTON_STEPS):
        p = sigmoid(slope * raw + intercept)
        wrong, spread = weight * (p - label), weight * p * (1 - p)
        gradient = np.array([(wrong * raw).sum(), wrong.sum()])
        cross = (spread * raw).sum()
        hessian = np.array([[(spread * raw * raw).sum(), cross], [cross, spread.sum()]])
        step = np.linalg.solve(hessian + RIDGE * np.eye(2), gradient)
        step *= min(1.0, LONGEST_STEP / (1e-12 + float(np.abs(step).max())))
        slope, intercept = slope - float(step[0]), intercept - float(step[1])
        if float(np.abs(step).max()) < CONVERGED:
            break
    return Calibration(slope, intercept)


def sigmoid(x: Floats) -> Floats:
    """Return probabilities of log-odds."""
    # exp overflows beyond about 709; at 500 the probability is 0 or 1 to the last bit already.
    return 1.0 / (1.0 + np.exp(-np.clip(x, -500, 500)))


def calibrate(raw: Floats, calibration: Calibration) -> Floats:
    """Return calibrated probabilities of raw scores (log-odds)."""
    return sigmoid(calibration.slope * raw + calibration.intercept)


def expected_calibration_error(label: Floats, p: Floats, weight: Floats, bins: int = 15) -> float:
    """Return the expected calibration error over equal-width bins, 0 to 1.

    Guo et al. (2017), On Calibration of Modern Neural Networks; 15 bins as there.
    """
    place = np.minimum((p * bins).astype(int), bins - 1)
    mass = np.bincount(place, weight, bins)
    gap = np.abs(np.bincount(place, weight * p, bins) - np.bincount(place, weight * label, bins))
    return float(gap.sum() / mass.sum())


def risk_metrics(
    abusive: npt.NDArray[np.bool_], p: Floats, weight: Floats, tier: npt.NDArray[np.int8]
) -> dict[str, float]:
    """Return AUC, log loss and calibration error of the risk model, and the share of each tier's
    honest requests that would be throttled where CATCH of the abuse is caught.
    """
    order = np.argsort(-p)
    caught = np.cumsum((weight * abusive)[order]) / (weight * abusive).sum()
    threshold = float(p[order][int(np.searchsorted(caught, CATCH))])
    out = {
        "risk_auc": float(roc_auc_score(abusive, p, sample_weight=weight)),
        "risk_log_loss": float(log_loss(abusive, p, sample_weight=weight, labels=[False, True])),
        "risk_ece": expected_calibration_error(abusive.astype(np.float64), p, weight),
        "risk_threshold_at_80_caught": threshold,
    }
    for name in Tier:
        honest = ~abusive & (tier == name)
        # A tier may have no honest row; its share is 0 then, not a division by zero.
        share = float((weight * (p >= threshold))[honest].sum() / max(weight[honest].sum(), 1e-9))
        out[f"false_throttle_{name.word}_at_80_caught"] = share
    return out


def reliability(
    abusive: npt.NDArray[np.bool_], p: Floats, weight: Floats, tier: npt.NDArray[np.int8]
) -> dict[str, float]:
    """Return, by tier and risk, which share of the requests with about that risk was abusive.

    `reliability_free_50` is the share among requests of the free tier whose risk is 40 to 60%; in a
    calibrated model it is near 0.5. A share of fewer than FEWEST_ROWS rows is left out.
    """
    out = {}
    for name in Tier:
        for centre in RELIABILITY_AT:
            rows = (tier == name) & (np.abs(p - centre) <= RELIABILITY_WITHIN)
            if rows.sum() >= FEWEST_ROWS:
                share = float((weight * abusive)[rows].sum() / weight[rows].sum())
                out[f"reliability_{name.word}_{round(100 * centre)}"] = share
    return out


def value_metrics(value: Floats, p: Floats, weight: Floats) -> dict[str, float]:
    """Return log loss and calibration error of the value model, and its AUC for "worth more than a
    half". The AUC is left out when all rows are on one side of that.
    """
    # At exactly 0 or 1 the log loss could be infinite.
    p = np.clip(p, 1e-7, 1 - 1e-7)
    loss = -(value * np.log(p) + (1 - value) * np.log(1 - p))
    high = value > 0.5
    out = {
        "value_log_loss": float((weight * loss).sum() / weight.sum()),
        "value_ece": expected_calibration_error(value, p, weight),
    }
    if high.any() and not high.all():
        out["value_auc"] = float(roc_auc_score(high, p, sample_weight=weight))
    # The registry keeps the card in a JSON column, and PostgreSQL's JSON has no NaN.
    return {k: v for k, v in out.items() if math.isfinite(v)}
