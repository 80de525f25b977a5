"""The model artifact: LightGBM text models for risk and value, their calibration, golden vectors
and model card.

An artifact is one msgpack document, named by its SHA-256. `learning` makes it, `rollouts` registers
it, deciders check and compile it and compute SHAP values from the same text.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct


class ArtifactError(Exception):
    """An artifact that may not be used: wrong digest, wrong feature schema, malformed, or its
    golden vectors disagree.
    """


class Calibration(Struct, frozen=True, array_like=True):
    """Platt scaling: probability = 1 / (1 + exp(-(slope * raw + intercept))). Platt (1999),
    Probabilistic Outputs for SVMs.
    """

    slope: float
    intercept: float


class Golden(Struct, frozen=True, kw_only=True):
    """Feature vectors, some with NaN, and the scores that a decider must compute for them, bit for
    bit.
    """

    features: bytes
    """float32, little endian, shape (n, N_FEATURES)."""
    raw_risk: list[float]
    raw_value: list[float]
    risk: list[float]
    value: list[float]


class ModelCard(Struct, frozen=True, kw_only=True):
    """What a person needs to know before trusting a model."""

    title: str
    trained_at: float
    trained_by: str
    data: str
    """What it was trained on, in a sentence."""
    data_from: float
    data_to: float
    label_maturity: str
    rows: int
    positives: int
    parameters: dict[str, float | int | str]
    metrics: dict[str, float]
    """Held-out figures, for example risk_auc, risk_log_loss, risk_ece, value_auc, seconds_to_train.
    """
    limits: str
    """What it must not be used for and where it is weak."""
    typical: dict[str, list[float]]
    """Tier word -> median of each feature in registry order: what was usual in training, with which
    every explanation compares.
    """
    # the fields from here on came later: older artifacts lack them and still load
    quantiles: dict[str, list[list[float]]] = {}
    """Tier word -> for each feature its 10th, 50th and 90th percentile."""
    importance: list[float] = []
    """Mean absolute SHAP value of each feature on held-out rows, log-odds."""


class Artifact(Struct, frozen=True, kw_only=True):
    """One model: two LightGBM texts with their calibrations, golden vectors and model card."""

    # grows when a decider that only knows the old form could misread a document; `decode` refuses
    # other numbers
    format: int = 1
    name: str
    feature_schema: str
    risk_model: str
    """LightGBM text model, binary objective, raw score in log-odds."""
    value_model: str
    risk_calibration: Calibration
    value_calibration: Calibration
    golden: Golden
    card: ModelCard


def encode(artifact: Artifact) -> bytes:
    """Return an artifact as msgpack."""
    return msgspec.msgpack.encode(artifact)


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of an encoded artifact, 64 hex digits: its name everywhere."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, digest: str | None = None) -> Artifact:
    """Return the artifact in `data`, checked against `digest` when that is given.

    Raises ArtifactError for a wrong digest, bytes that cannot be decoded, or an unknown format.
    """
    # before decoding: bytes that are not the expected ones never reach the decoder
    if digest is not None and (found := digest_of(data)) != digest:
        raise ArtifactError(f"digest {found[:12]} is not the expected {digest[:12]}")
    try:
        artifact = msgspec.msgpack.decode(data, type=Artifact)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArtifactError(f"malformed artifact: {error}") from error
    if artifact.format != 1:
        raise ArtifactError(f"artifact format {artifact.format}, but this version reads only 1")
    return artifact
