"""The place of an app's behaviour among its peers: same tier and service, in the hour before the
decision.

Peers are live traffic. Reasons compare with something else: what was usual for the tier in the
model's training (`decider.refusal.findings.typical`). Where the two differ, traffic has changed.

Each app counts once, so that busy apps do not dominate. An app's figure is the mean of its kept
requests, weighed by their inverse inclusion probability, because refused requests are kept more
often.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from decider.contracts.features import FEATURES, INDEX, N_FEATURES, SCHEMA, Feature, format_value
from decisions.models import Decision
from decisions.search import lookup
from explain.comparison.shared_load import FEWEST

# Seconds. Chosen: peers of the same hour, so that they do not differ by the time of day.
LOOK_BACK_S = 3_600.0
# App, features, inclusion probability and time of one kept request.
_PeerRow = tuple[str, bytes | memoryview, float, datetime]
# Most kept requests read, newest first. It bounds the cost of a page view.
MOST_ROWS = 4_000
# Chosen: as many as USUAL_FEATURES, so that the panel keeps its size.
SHOWN_FEATURES = 4
# Shown where the decision has no reasons of its own.
USUAL_FEATURES = ("rate_10s", "burst_ratio", "client_error_share_60s", "retry_share_60s")


@dataclass(frozen=True, slots=True)
class PeerComparison:
    """One feature of the app against its peers. Places are in percent of the drawn range."""

    label: str
    value: str
    place: float
    low: float
    width: float
    """Width of the middle 80% of apps, which begins at `low`."""
    median: float
    median_text: str
    rank: str
    """"top 2%", "lowest of 40", or empty in the middle."""
    feature: Feature
    ordinary: bool
    """Whether half of the peers or more have at least this value."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The comparison; no rows when there are fewer than five peers."""

    rows: tuple[PeerComparison, ...]
    apps: int
    """Peers; 0 when there are fewer than five."""
    kept: int
    """Kept requests on which the comparison rests."""
    seconds: float
    """Seconds from the oldest of these requests to the decision."""


def compare_with_peers(d: Decision, names: tuple[str, ...] = ()) -> Peers:
    """Return how the app of a decision compares with its peers in the named features; without
    names, in USUAL_FEATURES.
    """
    rows = _read_peers(d)
    # Vectors of another schema have other columns. Fewer than FEWEST apps could be recognised.
    if d.feature_schema != SCHEMA or len({row[0] for row in rows}) < FEWEST:
        return Peers((), 0, len(rows), LOOK_BACK_S)
    means = _average_by_app(rows)
    # The app's own place comes from this request alone, because that is what was decided on.
    own = np.frombuffer(bytes(d.features), "<f4")
    chosen = [FEATURES[INDEX[name]] for name in (names or USUAL_FEATURES)[:SHOWN_FEATURES]]
    shown = tuple(
        peer
        for f in chosen
        if (peer := _compare(f, float(own[INDEX[f.name]]), means[:, INDEX[f.name]]))
    )
    return Peers(shown, len(means), len(rows), d.at.timestamp() - rows[-1][3].timestamp())


def _read_peers(d: Decision) -> list[_PeerRow]:
    """Return kept requests of other apps of the same tier and service, newest first."""
    at = d.at.timestamp()
    alike = lookup.beside(d).filter(tier=d.tier, service=d.service, feature_schema=SCHEMA)
    # The upper end lies a second after the decision, so that requests of the same moment count.
    found = lookup.within(alike, at - LOOK_BACK_S, at + 1.0).exclude(app=d.app)
    return list(
        found.order_by("-id").values_list("app", "features", "inclusion_probability", "at")[
            :MOST_ROWS
        ]
    )


def _average_by_app(rows: list[_PeerRow]) -> np.ndarray:
    """Return float64 (apps, N_FEATURES): each app's weighted mean of the known values, NaN where
    none is known.
    """
    values = (
        np.frombuffer(b"".join(bytes(row[1]) for row in rows), "<f4")
        .reshape(-1, N_FEATURES)
        .astype(np.float64)
    )
    by_app: dict[str, list[int]] = defaultdict(list)
    for k, row in enumerate(rows):
        by_app[row[0]].append(k)
    weights = np.array([1.0 / row[2] for row in rows])
    return np.array([_average_known(values[some], weights[some]) for some in by_app.values()])


def _average_known(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float64 (columns,): the weighted mean of each column without its NaNs; NaN for a
    column of NaNs.
    """
    weight = np.where(np.isnan(values), 0.0, weights[:, None])
    total = weight.sum(axis=0)
    means: np.ndarray = np.divide(
        (weight * np.nan_to_num(values)).sum(axis=0),
        total,
        out=np.full(len(total), np.nan),
        where=total > 0.0,
    )
    return means


def _compare(feature: Feature, own: float, peers: np.ndarray) -> PeerComparison | None:
    """Return the comparison of one feature. Return None when the app's value is unknown, fewer than
    FEWEST peers have one, or all values are equal.
    """
    peers = peers[~np.isnan(peers)]
    if own != own or len(peers) < FEWEST:
        return None
    # The middle 80%, so that a few odd apps do not stretch what is called usual.
    scaled, at = _scale(peers), float(_scale(np.array([own]))[0])
    low, middle, high = np.quantile(scaled, (0.1, 0.5, 0.9))
    first, last = min(float(scaled.min()), at), max(float(scaled.max()), at)
    if last <= first:
        return None
    percent = [
        round(100.0 * (float(v) - first) / (last - first), 2) for v in (at, low, middle, high)
    ]
    return PeerComparison(
        feature.label,
        format_value(feature, own),
        percent[0],
        percent[1],
        round(percent[3] - percent[1], 2),
        percent[2],
        format_value(feature, float(np.median(peers))),
        _rank(own, peers),
        feature,
        bool(own <= np.median(peers)),
    )


def _scale(values: np.ndarray) -> np.ndarray:
    """Return the values on a log scale that has room for zero."""
    # Rates span decades. 0.01 is chosen: it keeps zero two decades below one.
    return np.asarray(np.log10(np.maximum(values, 0.0) + 0.01), np.float64)


def _rank(own: float, peers: np.ndarray) -> str:
    above, below, count = int((peers >= own).sum()), int((peers <= own).sum()), len(peers)
    if above == 0 or below == 0:
        return f"{'highest' if above == 0 else 'lowest'} of {count + 1}"
    # Outside the outer quarters a rank says nothing, so none is given.
    share = min(above, below) / count
    return (
        f"{'top' if above <= below else 'bottom'} {max(1.0, share * 100):.0f}%"
        if share <= 0.25
        else ""
    )
