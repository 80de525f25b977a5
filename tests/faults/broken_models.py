"""A model whose scores are no numbers, although it can be loaded."""

from __future__ import annotations

import re

import msgspec
import numpy as np

from decider.contracts import artifact
from decider.contracts.artifact import Calibration
from decider.contracts.features import N_FEATURES
from decider.scoring.model import make_golden
from learning.training import shipped

# A leaf's value of which two do not fit into a number.
HUGE = "1.7e308"
# Infinite raw scores times zero are no number.
FLAT = Calibration(slope=0.0, intercept=0.0)


def without_numbers() -> bytes:
    """Return the model that ships, with risk scores that overflow, as an encoded artifact."""
    plain = artifact.decode(shipped.read())
    risk = re.sub(r"(?m)^leaf_value=(.*)$", _huge, plain.risk_model)
    golden = make_golden(
        np.zeros((1, N_FEATURES), np.float32),
        risk,
        plain.value_model,
        FLAT,
        plain.value_calibration,
    )
    return artifact.encode(
        msgspec.structs.replace(plain, risk_model=risk, risk_calibration=FLAT, golden=golden)
    )


def _huge(line: re.Match[str]) -> str:
    return "leaf_value=" + " ".join(HUGE for _ in line[1].split())
