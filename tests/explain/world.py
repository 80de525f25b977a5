"""A small real model and decisions made by the real policy function with it."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np
from msgspec import structs

from decider import policy
from decider.contracts import artifact as artifacts
from decider.contracts import defaults, features
from decider.contracts.artifact import Artifact, Calibration, Golden, ModelCard
from decider.contracts.config import Config, ModelRef, error_budget_of
from decider.contracts.event import Event
from decider.contracts.vocabulary import Arm, MlState
from decider.scoring.model import Model, calibrated
from tests.decisions.factory import event, signal_vector

TYPICAL = {
    "rate_1s": 3.5,
    "rate_10s": 3.5,
    "rate_60s": 3.1,
    "rate_600s": 3.0,
    "client_error_share_60s": 0.011,
    "app_age": 410.0,
}


def rows(count: int, seed: int = 1, missing: bool = True) -> np.ndarray:
    """Plausible feature rows, float32 (count, N_FEATURES), some with missing values."""
    rng = np.random.default_rng(seed)
    found = np.tile(np.array([f.default for f in features.FEATURES], np.float32), (count, 1))
    for name, values in {
        "rate_10s": rng.lognormal(1.2, 1.2, count),
        "burst_ratio": rng.lognormal(0.3, 0.7, count),
        "client_error_share_60s": rng.beta(0.6, 12, count),
        "distinct_paths_60s": rng.integers(1, 80, count),
        "cohort_prior": rng.beta(1, 15, count),
        "app_age": rng.gamma(2, 300, count),
        "abuse_history": rng.poisson(0.2, count),
        "seconds_since_last": rng.exponential(3, count),
        "tier": rng.integers(0, 4, count),
    }.items():
        found[:, features.INDEX[name]] = values
    for name in ("rate_1s", "rate_60s", "rate_600s"):
        found[:, features.INDEX[name]] = found[:, features.INDEX["rate_10s"]] * rng.uniform(
            0.4, 1.3, count
        )
    if missing:
        found[rng.random(count) < 0.1, features.INDEX["client_error_share_60s"]] = np.nan
    return found


@functools.cache
def made() -> bytes:
    """An encoded artifact of a model trained on a few thousand rows."""
    matrix = rows(4_000)
    at = features.INDEX
    odds = (
        1.6 * np.log1p(matrix[:, at["rate_10s"]])
        + 9 * np.nan_to_num(matrix[:, at["client_error_share_60s"]])
        - 4.6
    )
    odds += (
        0.8 * matrix[:, at["abuse_history"]]
        + 0.5 * np.log(matrix[:, at["burst_ratio"]])
        - 0.0006 * matrix[:, at["app_age"]]
    )
    abusive = np.random.default_rng(5).random(len(odds)) < 1 / (1 + np.exp(-odds))
    options = {
        "objective": "binary",
        "num_leaves": 15,
        "verbose": -1,
        "num_threads": 1,
        "seed": 3,
        "deterministic": True,
    }
    risk = lgb.train(options, lgb.Dataset(matrix, abusive, feature_name=list(features.NAMES)), 40)
    value = lgb.train(
        {**options, "num_leaves": 4},
        lgb.Dataset(matrix, ~abusive, feature_name=list(features.NAMES)),
        5,
    )
    return artifacts.encode(_artifact(risk, value, rows(120, seed=9)))


def _artifact(risk: lgb.Booster, value: lgb.Booster, golden: np.ndarray) -> Artifact:
    slope, flat = Calibration(0.9, -0.1), Calibration(1.0, 0.0)
    raw_risk, raw_value = (b.predict(golden, raw_score=True, num_threads=1) for b in (risk, value))
    usual = [TYPICAL.get(f.name, f.default) for f in features.FEATURES]
    return Artifact(
        name="risk v1",
        feature_schema=features.SCHEMA,
        risk_model=risk.model_to_string(),
        value_model=value.model_to_string(),
        risk_calibration=slope,
        value_calibration=flat,
        golden=Golden(
            features=golden.tobytes(),
            raw_risk=raw_risk.tolist(),
            raw_value=raw_value.tolist(),
            risk=calibrated(raw_risk, slope).tolist(),
            value=calibrated(raw_value, flat).tolist(),
        ),
        card=ModelCard(
            title="Risk v1",
            trained_at=0.0,
            trained_by="tests",
            data="simulated",
            data_from=0.0,
            data_to=0.0,
            label_maturity="full",
            rows=4_000,
            positives=1,
            parameters={},
            metrics={},
            limits="tests",
            typical=dict.fromkeys(("free", "standard", "premium", "enterprise"), usual),
        ),
    )


@functools.cache
def model() -> Model:
    return Model.load(made())


def install(folder: Path) -> str:
    """Writes the artifact where the console looks for it. Returns its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = artifacts.digest_of(made())
    (folder / digest).write_bytes(made())
    return digest


def config(version: int = 1) -> Config:
    ref = ModelRef(name="risk", version=1, digest=artifacts.digest_of(made()))
    start = defaults.config(version, time.time() - 600)
    # Stricter than an installation starts with, so that few rows give refusals of each kind; and
    # with headroom for all, as the rows know little of honesty.
    tiers = [
        structs.replace(tier, harm=harm, headroom_to="all")
        for tier, harm in zip(start.tiers, (1.4, 1.2, 1.1, 1.0), strict=True)
    ]
    base = structs.replace(start, tiers=tiers)
    return Config(**{n: getattr(base, n) for n in Config.__struct_fields__} | {"model": ref})


def decided(
    row: np.ndarray,
    *,
    tier: int = 1,
    ml_state: int = MlState.LIVE,
    document: Config | None = None,
    **fields,
) -> Event:
    """An event of a feature row, decided by the policy function as the engine would. `seen_` fields
    are signals.
    """
    document = document or config()
    row = row.copy()
    row[features.INDEX["tier"]] = tier
    policy_of = document.tiers[tier]
    seen = {
        k.removeprefix("seen_"): fields.pop(k) for k in [k for k in fields if k.startswith("seen_")]
    }
    base = {
        "tier": tier,
        "ml_state": int(ml_state),
        "bucket_rate": policy_of.rate,
        "bucket_burst": policy_of.burst,
    }
    base |= {
        "quota_left": 1_000,
        "quota_limit": policy_of.quota_per_day,
        "error_budget_rate": (rate := error_budget_of(document, tier)),
        "error_budget_left": 5.0 if rate < 1.0 else np.inf,
    }
    signal = signal_vector(**(base | {"tokens": -5.0} | seen))
    vector, rules = np.frombuffer(signal, np.float64), policy.rules_of(document)
    scored = policy.wants_rank(vector, row, rules)
    scores = model().score(row[None, :]) if scored else None
    risk, value = (float(scores.risk[0]), float(scores.value[0])) if scores else (np.nan, np.nan)
    action, stage, reason, wait = policy.decide(vector, row, risk, value, rules)
    made_of = {
        "tier": tier,
        "action": action,
        "stage": stage,
        "reason": reason,
        "retry_after": wait,
        "signals": signal,
        "features": row.tobytes(),
        "risk": risk if scores else None,
        "value": value if scores else None,
        "raw_risk": float(scores.raw_risk[0]) if scores else None,
        "raw_value": float(scores.raw_value[0]) if scores else None,
        "arm": int(Arm.LIVE if scores else Arm.NONE),
        "ml_state": int(ml_state),
        "config_version": document.version,
        "model": document.model.digest if document.model else "",
        "inclusion_probability": 0.02 if action == 0 else 0.5,
    }
    return event(**(made_of | fields))
