"""A model as deciders use it: checked against its digest, its feature schema and its golden
vectors, then compiled.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from decider.contracts import artifact as artifacts
from decider.contracts import features
from decider.contracts.artifact import Artifact, ArtifactError, Calibration, Golden
from decider.contracts.features import N_FEATURES, NAMES
from decider.scoring import lightgbm_text, shap, trees
from decider.scoring.lightgbm_text import Tree
from decider.scoring.shap import Explainer
from decider.scoring.trees import TreeEnsemble

# Largest artifact that is looked at, bytes: room for two model texts of the largest size
# (`lightgbm_text.MAX_TEXT`), and the size of one more for golden vectors and card.
MAX_BYTES = 96 * 1024 * 1024
# Most golden vectors of an artifact: computing more would hold up a swap and prove no more.
MAX_GOLDEN = 100_000


class Scores(NamedTuple):
    """What a model says about n rows. Each field is float64 (n,)."""

    raw_risk: NDArray[np.float64]
    """Log-odds before calibration, bit-equal to LightGBM's raw score."""
    raw_value: NDArray[np.float64]
    risk: NDArray[np.float64]
    """Calibrated, 0 to 1."""
    value: NDArray[np.float64]


# error_model: no check for a zero divisor; where exp overflows to inf, the probability is 0
@njit(cache=True, nogil=True, error_model="numpy")
def probability(raw: float, slope: float, intercept: float) -> float:
    """Return the calibrated probability of a raw score (Platt scaling), 0 to 1.

    Engine, replay and golden check share this one compiled function, so they agree to the bit.

    The formula is 1 / (1 + exp(-(slope * raw + intercept))): Platt (1999), Probabilistic Outputs
    for SVMs.
    """
    return 1.0 / (1.0 + math.exp(-(slope * raw + intercept)))


@njit(cache=True, nogil=True)
def _probabilities(raw: Any, slope: float, intercept: float, out: Any) -> None:
    for i in range(len(raw)):
        out[i] = probability(raw[i], slope, intercept)


@njit(cache=True, nogil=True)
def _write_scores(
    raw_risk: Any, raw_value: Any, index: Any, count: int, calibration: Any, out: Any
) -> None:
    for k in range(count):
        i = index[k]
        out[i, 0], out[i, 1] = raw_risk[i], raw_value[i]
        out[i, 2] = probability(raw_risk[i], calibration[0], calibration[1])
        out[i, 3] = probability(raw_value[i], calibration[2], calibration[3])


def calibrated(raw: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Return the `probability` of each raw score (n,)."""
    out = np.empty(len(raw))
    _probabilities(raw, float(calibration.slope), float(calibration.intercept), out)
    return out


class Workspace(NamedTuple):
    """Memory that `Model.score_into` works in, so that it allocates nothing. It belongs to one
    caller; models hold none, so any number of threads may share a model.
    """

    bins: NDArray[np.uint32]
    """From `trees.new_scratch`."""
    raw_risk: NDArray[np.float64]
    """(rows,)."""
    raw_value: NDArray[np.float64]

    @classmethod
    def of(cls, rows: int) -> Self:
        """Return a workspace for up to `rows` rows at once."""
        return cls(trees.new_scratch(), np.empty(rows), np.empty(rows))


class Model:
    """A usable model. Made by `load` and never changed after, so threads may share it."""

    def __init__(self, artifact: Artifact, digest: str) -> None:
        """Compile both ensembles of an artifact, which must be for this version's feature schema.

        Raises ArtifactError.
        """
        if artifact.feature_schema != features.SCHEMA:
            raise ArtifactError(
                f"made for feature schema {artifact.feature_schema[:40]}, but this version has"
                f" {features.SCHEMA}"
            )
        self.artifact = artifact
        self.digest = digest
        trees_of_risk = _trees("risk", artifact.risk_model)
        self.risk = _ensemble("risk", trees_of_risk)
        self.value = _ensemble("value", _trees("value", artifact.value_model))
        # only risk is explained: reason codes are about risk
        self.explainer, self.unexplained = _explainer(trees_of_risk)
        self.risk_slope, self.risk_intercept = _calibration("risk", artifact.risk_calibration)
        self.value_slope, self.value_intercept = _calibration("value", artifact.value_calibration)
        self._calibration = np.array(
            [self.risk_slope, self.risk_intercept, self.value_slope, self.value_intercept]
        )

    @classmethod
    def load(cls, data: bytes, digest: str | None = None) -> Self:
        """Return the model in an encoded artifact whose golden scores come out bit for bit.

        Raises ArtifactError that says what is wrong: size, digest, format, feature schema, a tree,
        or which golden score.
        """
        if len(data) > MAX_BYTES:
            raise ArtifactError(f"artifact of {len(data)} bytes is larger than {MAX_BYTES}")
        model = cls(artifacts.decode(data, digest), digest or artifacts.digest_of(data))
        model.check_golden()
        return model

    def score(self, rows: NDArray[np.float32]) -> Scores:
        """Return raw and calibrated risk and value of float32 rows (n, N_FEATURES).

        Raises ValueError for another shape or dtype.
        """
        raw_risk, raw_value = self.risk.raw(rows), self.value.raw(rows)
        risk = calibrated(raw_risk, self.artifact.risk_calibration)
        return Scores(
            raw_risk, raw_value, risk, calibrated(raw_value, self.artifact.value_calibration)
        )

    def score_into(
        self,
        rows: NDArray[np.float32],
        index: NDArray[np.int64],
        count: int,
        out: NDArray[np.float64],
        workspace: Workspace,
    ) -> None:
        """Write (raw risk, raw value, risk, value) of rows[i] into out[i] for the i in
        index[:count]; the rest of `out` stays.

        rows float32 (n, N_FEATURES), index int64, out float64 (n, 4), `workspace` for n rows. No
        other thread may use `workspace` meanwhile. Arguments are not checked: this is the engine's
        path.
        """
        bins, raw_risk, raw_value = workspace
        trees.score_rows(rows, index, count, raw_risk, *self.risk.tables, bins)
        trees.score_rows(rows, index, count, raw_value, *self.value.tables, bins)
        _write_scores(raw_risk, raw_value, index, count, self._calibration, out)

    def check_golden(self) -> None:
        """Check the golden scores. Raises ArtifactError that names the first one that differs."""
        golden = self.artifact.golden
        scores = self.score(_golden_rows(golden))
        for name, found in scores._asdict().items():
            wanted = np.array(getattr(golden, name), np.float64)
            if wanted.shape != found.shape:
                raise ArtifactError(
                    f"golden vectors: {len(wanted)} {name} scores for {len(found)} rows"
                )
            # as whole numbers: every bit counts, and NaN equals itself
            differs = np.flatnonzero(wanted.view(np.int64) != found.view(np.int64))
            if len(differs):
                row = differs[0]
                raise ArtifactError(
                    f"golden vectors: {name} of row {row} is {found[row]!s}, expected"
                    f" {wanted[row]!s} ({len(differs)} of {len(found)} rows differ)"
                )


def _trees(which: str, text: str) -> list[Tree]:
    try:
        return lightgbm_text.parse(text, NAMES)
    except ArtifactError as error:
        raise ArtifactError(f"{which} model: {error}") from error


def _ensemble(which: str, found: list[Tree]) -> TreeEnsemble:
    try:
        return TreeEnsemble(found, N_FEATURES)
    except ArtifactError as error:
        raise ArtifactError(f"{which} model: {error}") from error


def _explainer(found: list[Tree]) -> tuple[Explainer | None, str]:
    """Return the explainer that computes the risk model's SHAP values, or None and the reason.

    A model without SHAP values can decide all the same.
    """
    try:
        return Explainer(found, N_FEATURES), ""
    except ArtifactError as error:
        return None, str(error)


def _calibration(which: str, calibration: Calibration) -> tuple[float, float]:
    if not (math.isfinite(calibration.slope) and math.isfinite(calibration.intercept)):
        raise ArtifactError(
            f"{which} calibration is not finite: {calibration.slope}, {calibration.intercept}"
        )
    return float(calibration.slope), float(calibration.intercept)


def _golden_rows(golden: Golden) -> NDArray[np.float32]:
    count, rest = divmod(len(golden.features), 4 * N_FEATURES)
    if rest or not 1 <= count <= MAX_GOLDEN:
        raise ArtifactError(
            f"golden vectors: {len(golden.features)} bytes are not 1 to {MAX_GOLDEN} rows of"
            f" {N_FEATURES} float32 features"
        )
    return np.frombuffer(golden.features, "<f4").astype(np.float32).reshape(count, N_FEATURES)


def make_golden(
    rows: NDArray[np.float32],
    risk_text: str,
    value_text: str,
    risk_cal: Calibration,
    value_cal: Calibration,
) -> Golden:
    """Make golden vectors from float32 rows (n, N_FEATURES), some of which should hold NaN.

    The scores are this module's own. Whoever makes the artifact must compare them with LightGBM's
    before signing. Raises ArtifactError for unusable texts.
    """
    raw_risk, raw_value = (
        _ensemble(which, _trees(which, text)).raw(rows)
        for which, text in (("risk", risk_text), ("value", value_text))
    )
    return Golden(
        features=np.ascontiguousarray(rows, "<f4").tobytes(),
        raw_risk=raw_risk.tolist(),
        raw_value=raw_value.tolist(),
        risk=calibrated(raw_risk, risk_cal).tolist(),
        value=calibrated(raw_value, value_cal).tolist(),
    )


def warm_up() -> None:
    """Compile all functions that a model needs, or load them from numba's cache.

    A hot swap then takes well under a second.
    """
    trees.warm_up()
    shap.warm_up()
    one = np.zeros(1)
    calibrated(one, Calibration(1.0, 0.0))
    probability(0.0, 1.0, 0.0)
    _write_scores(one, one, np.zeros(1, np.int64), 1, np.zeros(4), np.zeros((1, 4)))
