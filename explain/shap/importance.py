"""The features a model uses over many decisions: importance, a beeswarm for each feature, and the
dependence plot of one.

Figures come from explained decisions of the last day. Each is weighed by one over the probability
that it was kept and then explained (Horvitz and Thompson 1952), so that the figures describe the
traffic and not the sample. Beeswarm and dependence plot after Lundberg et al. (2020), From local
explanations to global understanding.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from decider.contracts.features import FEATURES, N_FEATURES, SCHEMA, Feature, format_value
from decider.contracts.vocabulary import Action
from explain.shap.backlog import ADMITS_OF_16

LOOK_BACK = timedelta(days=1)
# Most decisions read, newest first: enough for stable means, few enough for a page view.
MOST_DECISIONS = 2_000
# A page offers the models of this many newest explanations.
NEWEST_EXPLANATIONS = 20_000
# Features with a beeswarm, dots in one, and dots of the dependence plot.
SHOWN_FEATURES, SWARM_DOTS, SCATTER_DOTS = 14, 160, 400
# Columns in which dots of a swarm pile up, and tenths of the traffic in a dependence plot.
COLUMNS, BINS = 60, 10
# If value and contribution correlate at least this much, higher values are said to raise or lower.
TENDS = 0.3

Array = NDArray[np.float64]

_SQL = """
SELECT e.contributions, d.features, d.inclusion_probability, d.action, d.at
FROM explain_explanation e JOIN decisions_decision d ON d.id = e.decision AND d.at = e.at
WHERE e.model = %(model)s AND e.at >= %(since)s AND NOT e.mismatch AND d.feature_schema = %(schema)s
  AND (d.action <> %(admit)s OR (get_byte(uuid_send(d.id), 15) & 15) < %(admits)s)
  AND (%(tier)s::int IS NULL OR d.tier = %(tier)s)
ORDER BY e.decision DESC LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class ExplainedSample:
    """n explained decisions of one model."""

    contributions: Array
    """(n, N_FEATURES), log-odds."""
    values: Array
    """(n, N_FEATURES), as served; NaN where unknown."""
    weights: Array
    """(n,): how many decisions of the traffic each stands for."""
    since: datetime | None
    """When the oldest of them was made; None when there is none."""

    def __len__(self) -> int:
        return len(self.weights)


@dataclass(frozen=True, slots=True)
class Dot:
    """One decision in a plot; x and y in percent."""

    x: float
    y: float
    shade: int = 0
    """0 for the lowest fifth of the feature's values to 4 for the highest; 5 unknown."""


@dataclass(frozen=True, slots=True)
class FeatureImportance:
    """One feature's part in the scores."""

    feature: Feature
    importance: float
    """Mean absolute contribution, log-odds."""
    share: float
    """Importance in percent of that of the most important feature."""
    tends: str
    """What higher values do to the risk: raise, lower, or both."""
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class TrafficTenth:
    """A tenth of the traffic, sorted by a feature's value: the part from `low` to `high`."""

    low: str
    high: str
    mean: float
    """Contribution, log-odds."""


@dataclass(frozen=True, slots=True)
class Dependence:
    """How one feature's contribution follows its value."""

    feature: Feature
    dots: tuple[Dot, ...]
    bins: tuple[TrafficTenth, ...]
    line: str
    """SVG path of the bins' means in a box of 100 x 100."""
    ticks: tuple[tuple[float, str], ...]
    """Marks under the plot: place in percent, and value as text."""
    limit: float
    """Contribution at the upper edge of the plot, its negative at the lower, log-odds."""
    unknown: float
    """Share of the traffic for which the value was not known."""


def list_recent_models(now: datetime | None = None) -> list[str]:
    """Return digests of the models behind the newest explanations, most used first."""
    since = (now or datetime.now(UTC)) - LOOK_BACK
    newest = "SELECT model FROM explain_explanation WHERE at >= %s ORDER BY decision DESC LIMIT %s"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT model FROM ({newest}) m GROUP BY model ORDER BY count(*) DESC, model",  # noqa: S608
            [since, NEWEST_EXPLANATIONS],
        )
        return [row[0] for row in cursor.fetchall()]


def sample_decisions(
    model: str, tier: int | None = None, now: datetime | None = None, most: int = MOST_DECISIONS
) -> ExplainedSample:
    """Return the newest explained decisions of a model in the last day, at most `most`.

    Admits explained only because someone opened their page are left out: their probability of being
    explained is unknown.
    """
    asked = {
        "model": model,
        "tier": tier,
        "since": (now or datetime.now(UTC)) - LOOK_BACK,
        "schema": SCHEMA,
        "most": most,
    }
    with connection.cursor() as cursor:
        cursor.execute(_SQL, {**asked, "admit": int(Action.ADMIT), "admits": ADMITS_OF_16})
        rows = cursor.fetchall()
    contributions = _unpack([row[0] for row in rows], "<f8")
    values = _unpack([row[1] for row in rows], "<f4")
    # Two samplings in a row: the decider kept a decision, and of kept admits a fixed part is
    # explained. The probabilities multiply.
    explained = np.array([ADMITS_OF_16 / 16 if row[3] == Action.ADMIT else 1.0 for row in rows])
    weights = 1.0 / (explained * np.array([row[2] for row in rows]))
    return ExplainedSample(contributions, values, weights, rows[-1][4] if rows else None)


def _unpack(stored: list[bytes | memoryview], kind: str) -> Array:
    """Return stored vectors as (n, N_FEATURES); `kind` is the type they were stored in."""
    joined = np.frombuffer(b"".join(bytes(one) for one in stored), kind)
    return joined.reshape(-1, N_FEATURES).astype(np.float64)


def average_contributions(found: ExplainedSample) -> Array:
    """Return (N_FEATURES,): the weighted mean of absolute contributions, log-odds; zeros for an
    empty sample.
    """
    if not len(found):
        return np.zeros(N_FEATURES)
    weighted: Array = found.weights @ np.abs(found.contributions) / found.weights.sum()
    return weighted


def rank_features(found: ExplainedSample) -> tuple[FeatureImportance, ...]:
    """Return the most important features, largest first, without those that no score used."""
    mean = average_contributions(found)
    order = [int(k) for k in np.argsort(-mean, kind="stable")[:SHOWN_FEATURES] if mean[k] > 0]
    limit = find_plot_limit(found)
    chosen = pick_evenly(found.weights, SWARM_DOTS) if len(found) else np.empty(0, np.int64)
    return tuple(
        FeatureImportance(
            FEATURES[k],
            float(mean[k]),
            round(100 * float(mean[k] / mean[order[0]]), 1),
            _tends(found, k),
            _swarm(
                found.contributions[chosen, k],
                shade_values(found.values[:, k], found.weights)[chosen],
                limit,
            ),
        )
        for k in order
    )


def find_plot_limit(found: ExplainedSample) -> float:
    """Return the contribution at the edge of the plots, log-odds. One decision in 500 has a larger
    one, which is drawn at the edge.
    """
    if not len(found):
        return 1.0
    # A single extreme score would press all other dots into the middle; 1e-6 avoids dividing by 0.
    return max(1e-6, float(np.quantile(np.abs(found.contributions).max(axis=1), 0.998)))


def pick_evenly(weights: Array, most: int) -> NDArray[np.int64]:
    """Return the indices of a systematic sample of `most` items, in which an item occurs as often
    as its weight demands. Return each index once if at most `most` items all weigh the same.
    """
    if len(weights) <= most and np.ptp(weights) == 0.0:
        return np.arange(len(weights))
    places = (np.arange(most) + 0.5) / most * weights.sum()
    found: NDArray[np.int64] = np.searchsorted(np.cumsum(weights), places)
    return np.minimum(found, len(weights) - 1)


def rank_values(values: Array, weights: Array) -> Array:
    """Return the share of the traffic (0..1) at or below each value, counting half of equal values;
    NaN for NaN.
    """
    place = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    if known.any():
        levels, at = np.unique(values[known], return_inverse=True)
        mass = np.bincount(at, weights[known], len(levels))
        place[known] = ((np.cumsum(mass) - mass / 2) / mass.sum())[at]
    return place


def shade_values(values: Array, weights: Array) -> NDArray[np.int64]:
    """Return (n,): the fifth of the traffic in which each value lies, 0 to 4; 5 for NaN."""
    place = rank_values(values, weights)
    return np.where(np.isnan(place), 5, np.minimum(4, np.nan_to_num(place) * 5)).astype(np.int64)


def _tends(found: ExplainedSample, k: int) -> str:
    place, contribution = rank_values(found.values[:, k], found.weights), found.contributions[:, k]
    known = ~np.isnan(place)
    weights = np.where(known, found.weights, 0.0)
    if not weights.sum():
        return "both"
    # Ranks of the value, as in Spearman's correlation, so that one extreme value decides nothing.
    x, y = np.nan_to_num(place), contribution
    x, y = x - np.average(x, weights=weights), y - np.average(y, weights=weights)
    size = float(np.sqrt((weights @ x**2) * (weights @ y**2)))
    r = float(weights @ (x * y)) / size if size > 0 else 0.0
    return "raise" if r >= TENDS else "lower" if r <= -TENDS else "both"


def _swarm(contributions: Array, shade: NDArray[np.int64], limit: float) -> tuple[Dot, ...]:
    """Return one dot for each contribution. Dots of one column pile up from the middle outwards."""
    places = 50.0 + 50.0 * np.clip(contributions / limit, -1.0, 1.0)
    columns = np.minimum(COLUMNS - 1, (places * COLUMNS / 100).astype(np.int64))
    highest = max(1, int(np.bincount(columns).max())) if len(columns) else 1
    # Dots are at most 9 apart, so few stay together, and a pile is at most 84, so it stays inside.
    step = min(9.0, 84.0 / highest)
    piled = np.zeros(COLUMNS, np.int64)
    dots = []
    for x, column, tone in zip(places.tolist(), columns.tolist(), shade.tolist(), strict=True):
        piled[column] += 1
        away = int(piled[column]) // 2 * (1 if piled[column] % 2 else -1)
        dots.append(Dot(round(x, 1), round(50.0 + step * away, 1), tone))
    return tuple(dots)


def plot_dependence(found: ExplainedSample, feature: Feature) -> Dependence | None:
    """Return one feature's contribution by its value, or None when the value was never known. The
    axis gives each share of the traffic the same room.
    """
    k = FEATURES.index(feature)
    place = rank_values(found.values[:, k], found.weights)
    known = np.flatnonzero(~np.isnan(place))
    if not len(known):
        return None
    values, contributions = found.values[known, k], found.contributions[known, k]
    weights, place = found.weights[known], place[known]
    limit = max(1e-6, float(np.abs(contributions).max()))
    # Places on the axis are shares of the traffic: raw values would crowd most dots into a corner.
    height = 50.0 - 50.0 * contributions / limit
    dots = tuple(
        Dot(round(100 * float(place[i]), 1), round(float(height[i]), 1))
        for i in np.unique(pick_evenly(weights, SCATTER_DOTS)).tolist()
    )
    bins, points = [], []
    for part in _tenths(place):
        mean = float(np.average(contributions[part], weights=weights[part]))
        bins.append(_describe_tenth(feature, values[part], mean))
        middle = float(np.average(place[part], weights=weights[part]))
        points.append((100 * middle, 50.0 - 50.0 * mean / limit))
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    ticks = tuple(
        (100 * q, format_value(feature, _quantile(values, place, q))) for q in (0.1, 0.5, 0.9)
    )
    unknown = float(1.0 - weights.sum() / found.weights.sum())
    return Dependence(feature, dots, tuple(bins), line, ticks, limit, unknown)


def _describe_tenth(feature: Feature, values: Array, mean: float) -> TrafficTenth:
    low, high = float(values.min()), float(values.max())
    return TrafficTenth(format_value(feature, low), format_value(feature, high), mean)


def _tenths(place: Array) -> list[NDArray[np.int64]]:
    """Return the rows of each tenth of the axis that has any."""
    at = np.minimum(BINS - 1, (place * BINS).astype(np.int64))
    return [np.flatnonzero(at == b) for b in range(BINS) if (at == b).any()]


def _quantile(values: Array, place: Array, q: float) -> float:
    return float(values[np.abs(place - q).argmin()])
