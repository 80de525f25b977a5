"""The decision event, which holds all that is needed to make a decision again exactly, and the
batches in which events travel.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from decider.contracts.config import Moment, NotNegative, Share
from decider.contracts.vocabulary import Action, Stage, Tier

# The node that events of a replayed log name. No decider may have this name: what it decides is
# kept apart from live traffic.
REPLAY_NODE: Final = "replay"


# Ranges hold where an event is read. One beyond them comes from no decider of ours, whatever its
# version: a new reason, arm or state of ML has a number of two digits, too.
_TwoDigits = Annotated[int, Meta(ge=0, le=99)]
# Log-odds. Chosen: beyond any model's, and NaN and infinity are outside.
_Raw = Annotated[float, Meta(ge=-1e6, le=1e6)]


# gc=False: it holds no reference cycles, and untracked events cost the collector nothing
class Event(msgspec.Struct, array_like=True, gc=False):
    """One sampled decision. Fields are only ever appended: the order is the wire format."""

    id: bytes
    """UUIDv7, 16 bytes."""
    at: Moment
    """Unix seconds."""
    request_id: str
    region: str
    node: str
    app: str
    tenant: str
    tier: Annotated[int, Meta(ge=0, le=int(max(Tier)))]
    token_digest: str
    """Keyed hash (`ids.token_digest`), empty when the request carried no credential."""
    method: str
    endpoint: str
    """Path template, for example /v2/orders/{id}."""
    service: str
    action: Annotated[int, Meta(ge=0, le=int(max(Action)))]
    """`vocabulary.Action` that was decided. It was also the answer, unless `observed` is true."""
    observed: bool
    """Whether observe-only mode was on: the action was recorded, but the request was admitted."""
    stage: Annotated[int, Meta(ge=0, le=int(max(Stage)))]
    reason: _TwoDigits
    retry_after: NotNegative
    risk: Share | None
    """Calibrated probability of abuse in [0, 1]; None when no model was asked."""
    value: Share | None
    """Calibrated value in [0, 1]; None when no model was asked."""
    raw_risk: _Raw | None
    """The risk model's raw score (log-odds), which SHAP values add up to."""
    raw_value: _Raw | None
    model: str
    """Digest of the model artifact that was live, empty when none."""
    arm: _TwoDigits
    ml_state: _TwoDigits
    config_version: Annotated[int, Meta(ge=0)]
    feature_schema: str
    features: bytes
    """float32, little endian, in registry order, as the decision used them."""
    signals: bytes
    """float64, little endian, in `signals` order, as the decision used them."""
    inclusion_probability: Share
    """Probability with which this decision was kept; weigh by its inverse."""
    latency_us: NotNegative
    """Time in microseconds that the decider took for the whole batch of this decision."""
    payload_bytes: Annotated[int, Meta(ge=0)]


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
