"""Artifacts of models that were trained on random rows: of realistic size, but of no other use."""

from __future__ import annotations

import numpy as np

from decider.contracts import artifact as artifacts
from decider.contracts.artifact import Artifact, Calibration, ModelCard
from decider.contracts.features import SCHEMA
from decider.scoring.model import make_golden


def encode_artifact(
    texts: tuple[str, str],
    calibrations: tuple[Calibration, Calibration],
    golden_rows: np.ndarray,
    name: str = "bench",
) -> bytes:
    """Return an encoded artifact of LightGBM texts and calibrations, each (risk, value).

    `golden_rows` are float32 (n, N_FEATURES).
    """
    return artifacts.encode(
        Artifact(
            name=name,
            feature_schema=SCHEMA,
            risk_model=texts[0],
            value_model=texts[1],
            risk_calibration=calibrations[0],
            value_calibration=calibrations[1],
            golden=make_golden(golden_rows, *texts, *calibrations),
            card=_card(len(golden_rows)),
        )
    )


def _card(rows: int) -> ModelCard:
    return ModelCard(
        title="Random rows",
        trained_at=0.0,
        trained_by="bench",
        data="random rows",
        data_from=0.0,
        data_to=0.0,
        label_maturity="none",
        rows=rows,
        positives=0,
        parameters={},
        metrics={},
        limits="Worth nothing.",
        typical={},
    )
