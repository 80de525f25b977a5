"""A small, honest model for tests of the engine: risk grows with pace and errors, value with
age.
"""

from __future__ import annotations

from functools import cache

import lightgbm as lgb
import numpy as np

from decider.contracts import artifact as artifacts
from decider.contracts.artifact import Artifact, Calibration, ModelCard
from decider.contracts.features import INDEX, N_FEATURES, NAMES, SCHEMA
from decider.scoring.model import Model, make_golden


def _rows(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.exponential(1.0, (count, N_FEATURES)).astype(np.float32)
    rows[:, INDEX["rate_1s"]] *= 20
    rows[:, INDEX["rate_10s"]] *= 8
    rows[:, INDEX["auth_error_share_60s"]] = rng.random(count)
    rows[:, INDEX["seconds_since_last"]] *= 30
    return rows


@cache
def small_model() -> Model:
    """A trained artifact, loaded; the same in every test of a run."""
    rows = _rows(6000, 1)
    pace = (
        rows[:, INDEX["rate_1s"]] / 20
        + rows[:, INDEX["rate_10s"]] / 10
        + 2 * rows[:, INDEX["auth_error_share_60s"]]
    )
    risk = (pace + np.random.default_rng(2).normal(0, 0.3, len(rows)) > 3).astype(int)
    value = (rows[:, INDEX["app_age"]] > 1).astype(int)
    settings = {
        "objective": "binary",
        "num_leaves": 15,
        "verbosity": -1,
        "num_threads": 1,
        "seed": 3,
        "deterministic": True,
    }
    texts = [
        lgb.train(
            settings, lgb.Dataset(rows, label, feature_name=list(NAMES)), num_boost_round=30
        ).model_to_string()
        for label in (risk, value)
    ]
    same = Calibration(1.0, 0.0)
    golden = make_golden(_rows(50, 4), texts[0], texts[1], same, same)
    card = ModelCard(
        title="test",
        trained_at=0.0,
        trained_by="test",
        data="made up",
        data_from=0.0,
        data_to=0.0,
        label_maturity="none",
        rows=6000,
        positives=int(risk.sum()),
        parameters={},
        metrics={},
        limits="tests only",
        typical={},
    )
    made = Artifact(
        name="test",
        feature_schema=SCHEMA,
        risk_model=texts[0],
        value_model=texts[1],
        risk_calibration=same,
        value_calibration=same,
        golden=golden,
        card=card,
    )
    return Model.load(artifacts.encode(made))
