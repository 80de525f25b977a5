"""A small real model, made once for the session, and an installation to register it in."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest
import redis

from control.audit.actors import SYSTEM
from control.config import changes
from decider.contracts import artifact, features
from decider.scoring import model


@pytest.fixture(scope="session")
def artifact_bytes() -> bytes:
    """An artifact as training writes it: real LightGBM models, of random rows."""
    rng = np.random.default_rng(7)
    rows = rng.lognormal(0, 1, (3000, features.N_FEATURES)).astype(np.float32)
    abusive = rows[:, 0] + rng.normal(0, 1, len(rows)) > 2
    params = {"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1, "seed": 7}
    text = lightgbm.train(
        params,
        lightgbm.Dataset(rows, abusive, feature_name=list(features.NAMES)),
        num_boost_round=5,
    ).model_to_string()
    calibration = artifact.Calibration(1.0, 0.0)
    card = artifact.ModelCard(
        title="Risk and value of random rows",
        trained_at=1.0,
        trained_by="a test",
        data="3,000 random rows",
        data_from=0.0,
        data_to=1.0,
        label_maturity="All labels matured.",
        rows=len(rows),
        positives=int(abusive.sum()),
        parameters={"seed": 7},
        metrics={"risk_auc": 0.8},
        limits="Worth nothing.",
        typical={},
    )
    return artifact.encode(
        artifact.Artifact(
            name="risk",
            feature_schema=features.SCHEMA,
            risk_model=text,
            value_model=text,
            risk_calibration=calibration,
            value_calibration=calibration,
            golden=model.make_golden(rows[:16], text, text, calibration, calibration),
            card=card,
        )
    )


@pytest.fixture
def installation(db, settings, tmp_path: Path, keys: Path, valkey: redis.Redis) -> Path:
    """Keys, an empty store and the first config version."""
    settings.SLUICE_VAR, settings.SLUICE_KEYS, settings.SLUICE_MODELS = (
        tmp_path,
        keys,
        tmp_path / "models",
    )
    changes.first(by=SYSTEM, reason="A new installation")
    return tmp_path
