"""TreeSHAP (Lundberg et al. 2020, From local explanations to global understanding with explainable
AI for trees).

Values come from `decider.scoring.shap`, in log-odds. LightGBM's own `pred_contrib` is asked again
for a few rows of each run, and `shap.TreeExplainer` once for each model. A row whose base and
values do not add up to the raw score that the decider recorded, or for which LightGBM has other
values, is marked as a mismatch: it does not explain the score that was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from decider.contracts.artifact import ArtifactError
from decider.contracts.features import N_FEATURES
from decider.scoring.shap import Explainer
from explain.shap import model_files

# Largest accepted difference, log-odds. Far above float64 rounding over all trees, and far below
# any effect that a page shows.
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ShapValues:
    """SHAP values of n rows."""

    base: NDArray[np.float64]
    """(n,), log-odds; the same for all rows of a model."""
    contributions: NDArray[np.float64]
    """(n, N_FEATURES), log-odds."""

    def errors(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,): base + sum of contributions - raw, log-odds."""
        sums: NDArray[np.float64] = self.base + self.contributions.sum(axis=1)
        return sums - raw

    def part(self, count: int) -> ShapValues:
        """Return the first `count` rows."""
        return ShapValues(self.base[:count], self.contributions[:count])


# Chosen: room for the live model, a challenger and two older ones.
@lru_cache(maxsize=4)
def load_booster(digest: str) -> lgb.Booster:
    """Return an artifact's risk model, loaded by LightGBM. Raises ArtifactError when it cannot be
    used.

    Some broken texts make LightGBM end the process. So it gets only texts that passed our own
    parser and the golden vectors.
    """
    try:
        return lgb.Booster(model_str=model_files.load_model(digest).artifact.risk_model)
    except lgb.basic.LightGBMError as error:
        raise ArtifactError(
            f"LightGBM cannot load the risk model of artifact {digest[:12]}: {error}"
        ) from error


def load_explainer(digest: str) -> Explainer:
    """Return the explainer of an artifact's risk model. Raises ArtifactError when there is none."""
    model = model_files.load_model(digest)
    if model.explainer is None:
        raise ArtifactError(
            f"the risk model of artifact {digest[:12]} cannot be explained: {model.unexplained}"
        )
    return model.explainer


def compute_values(digest: str, rows: NDArray[np.float32]) -> ShapValues:
    """Return SHAP values of feature rows (n, N_FEATURES) under an artifact's risk model. Raises
    ArtifactError.
    """
    explainer = load_explainer(digest)
    return ShapValues(np.full(len(rows), explainer.base), explainer.values(rows))


def compute_with_lightgbm(digest: str, rows: NDArray[np.float32]) -> ShapValues:
    """Return what `compute_values` returns, computed by LightGBM's `pred_contrib` at ten times the
    cost. Raises ArtifactError.
    """
    # One thread: workers share the machine's cores, and a few rows gain nothing from more.
    found = np.asarray(load_booster(digest).predict(rows, pred_contrib=True, num_threads=1))
    return ShapValues(found[:, -1].copy(), found[:, :-1].copy())


def find_differing(digest: str, rows: NDArray[np.float32], found: ShapValues) -> NDArray[np.bool_]:
    """Return bool (n,): whether any value of a row in `found` differs from LightGBM's by more than
    TOLERANCE. NaN counts as different. Raises ArtifactError.
    """
    theirs = compute_with_lightgbm(digest, rows)
    apart = np.maximum(
        np.abs(found.contributions - theirs.contributions).max(axis=1),
        np.abs(found.base - theirs.base),
    )
    # Not `apart > TOLERANCE`, because that is False for NaN.
    agrees: NDArray[np.bool_] = apart <= TOLERANCE
    return ~agrees


@dataclass(frozen=True, slots=True)
class Comparison:
    """Largest differences between three implementations of TreeSHAP, in log-odds."""

    rows: int
    """Golden vectors that were compared."""
    max_difference: float
    """Largest difference of a value or base, ours from either of the others."""
    max_sum_error: float
    """Largest difference of base + sum of values from the golden raw score."""

    @property
    def ok(self) -> bool:
        return self.max_difference <= TOLERANCE and self.max_sum_error <= TOLERANCE


def compare_implementations(digest: str, most: int = 200) -> Comparison:
    """Return how far our values differ from `pred_contrib` and `shap.TreeExplainer`, and their sums
    from the scores, on at most `most` golden vectors of an artifact. Raises ArtifactError.
    """
    golden = model_files.load_artifact(digest).golden
    rows = np.frombuffer(golden.features, "<f4").reshape(-1, N_FEATURES)[:most]
    ours = compute_values(digest, rows)
    theirs, base = _compute_with_shap(digest, rows)
    lightgbm = compute_with_lightgbm(digest, rows)
    difference = max(
        float(np.abs(ours.contributions - other).max())
        for other in (theirs, lightgbm.contributions)
    )
    difference = max(
        difference,
        float(np.abs(ours.base - base).max()),
        float(np.abs(ours.base - lightgbm.base).max()),
    )
    return Comparison(
        len(rows), difference, float(np.abs(ours.errors(np.array(golden.raw_risk[:most]))).max())
    )


def _compute_with_shap(digest: str, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Return values (n, N_FEATURES) and base, log-odds, from shap's own walk over the trees.

    For a LightGBM model `TreeExplainer` calls `pred_contrib`, so the comparison could not fail. If
    it is told that the model is its own ("internal"), it computes the values itself.
    """
    import shap  # its import takes seconds, and only this check needs it

    booster = load_booster(digest)
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    explainer.model.model_type = "internal"
    plain = rows.astype(np.float64)
    blind = sorted(_features_without_missing(booster.dump_model()))
    # LightGBM reads a missing value as 0 where it saw none in training; shap does not.
    plain[:, blind] = np.nan_to_num(plain[:, blind], nan=0.0)
    found = explainer.shap_values(plain, check_additivity=False)
    return np.asarray(found), float(np.ravel(explainer.expected_value)[0])


def _features_without_missing(dump: dict[str, Any]) -> set[int]:
    """Return the indices of features that a model splits on without a branch for missing values."""
    found, nodes = set(), [tree["tree_structure"] for tree in dump["tree_info"]]
    while nodes:
        node = nodes.pop()
        if "split_feature" in node:
            if node["missing_type"] == "None":
                found.add(node["split_feature"])
            nodes += [node["left_child"], node["right_child"]]
    return found
