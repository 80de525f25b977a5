"""The decision event, which holds all that is needed to make a decision again exactly, and the
batches in which events travel.
"""

from __future__ import annotations

from typing import Final

import msgspec

# The node that events of a replayed log name. No decider may have this name: what it decides is
# kept apart from live traffic.
REPLAY_NODE: Final = "replay"


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
    """`vocabulary.Action` that was decided. It was also the answer, unless `observed` is true."""
    observed: bool
    """Whether observe-only mode was on: the action was recorded, but the request was admitted."""
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
    """float32, little endian, in registry order, as the decision used them."""
    signals: bytes
    """float64, little endian, in `signals` order, as the decision used them."""
    inclusion_probability: float
    """Probability with which this decision was kept; weigh by its inverse."""
    latency_us: float
    """Time in microseconds that the decider took for the whole batch of this decision."""
    payload_bytes: int


class EventBatch(msgspec.Struct, array_like=True):
    """The events that one decider sends at once. Ingest stores the batch id with the rows, so it
    stores each batch exactly once.
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
