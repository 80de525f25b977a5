"""The decision event: everything needed to decide again, exactly; and the batches it travels in."""

from __future__ import annotations

import msgspec


# gc=False: it holds no reference cycles, and untracked events cost the collector nothing
class Event(msgspec.Struct, array_like=True, gc=False):
    """One sampled decision. Fields are only ever appended: the order is the wire format."""

    id: bytes
    """UUIDv7, 16 bytes."""
    at: float
    """Unix seconds."""
    request_id: str
    region: str
    node: str
    app: str
    tenant: str
    tier: int
    token_digest: str
    """Keyed hash (`ids.token_digest`), empty when the request carried no credential."""
    method: str
    endpoint: str
    """Path template, for example /v2/orders/{id}."""
    service: str
    action: int
    """What was decided; what was answered too, unless `observed`."""
    observed: bool
    """Observe-only mode: decided and recorded, but admitted."""
    stage: int
    reason: int
    retry_after: float
    risk: float | None
    """Calibrated probability of abuse in [0, 1]; None when no model was asked."""
    value: float | None
    """Calibrated value in [0, 1]; None when no model was asked."""
    raw_risk: float | None
    """The risk model's raw score (log-odds), which SHAP values add up to."""
    raw_value: float | None
    model: str
    """Digest of the model artifact that was live, empty when none."""
    arm: int
    ml_state: int
    config_version: int
    feature_schema: str
    features: bytes
    """float32, little endian, in registry order, as served."""
    signals: bytes
    """float64, little endian, in `signals` order, as seen."""
    inclusion_probability: float
    """Probability with which this decision was kept; weigh by its inverse."""
    latency_us: float
    """Time the decider took until this decision was made, that of its whole batch, microseconds."""
    payload_bytes: int


class EventBatch(msgspec.Struct, array_like=True):
    """What one decider sends at once. `id` makes ingest exactly-once: a batch id is stored with its
    rows.
    """

    id: bytes
    """UUIDv7, 16 bytes."""
    node: str
    sent_at: float
    dropped: int
    """Sampled events this node has dropped since its start because the buffer was full."""
    events: list[Event]


# made once: building a codec for a type costs more than a batch's encoding
encode_batch = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(EventBatch).decode
