"""TreeSHAP (Lundberg et al. 2020, From local explanations to global understanding with explainable AI for trees).

Values come from LightGBM's own exact implementation, `pred_contrib`, in log-odds. A row whose base and values do not add up
to the raw score that the decider recorded is marked: it explains another score than the one that was used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from decider.artifact import ArtifactError
from decider.features import N_FEATURES

from . import artifacts

TOLERANCE = 1e-6
"""Largest accepted difference, log-odds."""


@dataclass(frozen=True, slots=True)
class Values:
    """SHAP values of n rows."""

    base: NDArray[np.float64]
    """(n,), log-odds; the same for all rows of a model."""
    contributions: NDArray[np.float64]
    """(n, N_FEATURES), log-odds."""

    def errors(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n,): base + sum - raw."""
        return self.base + self.contributions.sum(axis=1) - raw


@lru_cache(maxsize=4)
def booster_of(digest: str) -> lgb.Booster:
    """LightGBM's own form of an artifact's risk model. Raises ArtifactError.

    LightGBM ends the process on some broken texts, so it only sees one that our own parser and the golden vectors passed.
    """
    try:
        return lgb.Booster(model_str=artifacts.model(digest).artifact.risk_model)
    except lgb.basic.LightGBMError as error:
        raise ArtifactError(f"LightGBM does not take the risk model of {digest[:12]}: {error}") from error


def values(digest: str, rows: NDArray[np.float32]) -> Values:
    """SHAP values of feature rows (n, N_FEATURES) under the risk model of an artifact. Raises ArtifactError."""
    booster = booster_of(digest)
    if booster.num_feature() != N_FEATURES:
        raise ArtifactError(f"the model {digest[:12]} has {booster.num_feature()} features, expected {N_FEATURES}")
    found = booster.predict(rows, pred_contrib=True)
    return Values(found[:, -1].copy(), found[:, :-1].copy())


@dataclass(frozen=True, slots=True)
class Check:
    """How far apart two implementations of TreeSHAP, and sums and scores, were."""

    rows: int
    max_difference: float
    max_sum_error: float

    @property
    def ok(self) -> bool:
        return self.max_difference <= TOLERANCE and self.max_sum_error <= TOLERANCE


def check(digest: str, most: int = 200) -> Check:
    """Compares `pred_contrib` with `shap.TreeExplainer` on an artifact's golden vectors, and sums with their scores.

    Raises ArtifactError.
    """
    golden = artifacts.artifact(digest).golden
    rows = np.frombuffer(golden.features, "<f4").reshape(-1, N_FEATURES)[:most]
    ours = values(digest, rows)
    theirs, base = _independent(digest, rows)
    difference = max(float(np.abs(ours.contributions - theirs).max()), float(np.abs(ours.base - base).max()))
    return Check(len(rows), difference, float(np.abs(ours.errors(np.array(golden.raw_risk[:most]))).max()))


def _independent(digest: str, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """The same from shap's own walk over the trees: values (n, N_FEATURES) and base, log-odds.

    For a LightGBM model `TreeExplainer` hands the work back to `pred_contrib` and would agree with anything; told that the
    model is its own, it computes.
    """
    import shap  # its import takes seconds, and only this check needs it

    booster = booster_of(digest)
    explainer = shap.TreeExplainer(booster, feature_perturbation="tree_path_dependent")
    explainer.model.model_type = "internal"
    plain = rows.astype(np.float64)
    blind = sorted(_features_without_missing(booster.dump_model()))
    plain[:, blind] = np.nan_to_num(plain[:, blind], nan=0.0)  # what LightGBM does where it saw no missing value in training
    found = explainer.shap_values(plain, check_additivity=False)
    return np.asarray(found), float(np.ravel(explainer.expected_value)[0])


def _features_without_missing(dump: dict) -> set[int]:
    """Features that a model splits on and whose missing type is None."""
    found, nodes = set(), [tree["tree_structure"] for tree in dump["tree_info"]]
    while nodes:
        node = nodes.pop()
        if "split_feature" in node:
            if node["missing_type"] == "None":
                found.add(node["split_feature"])
            nodes += [node["left_child"], node["right_child"]]
    return found
