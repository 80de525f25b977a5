"""The decision event, which holds all that is needed to make a decision again exactly, and the
batches in which events travel.
"""

from __future__ import annotations

from operator import attrgetter, gt
from typing import Annotated, Final, get_type_hints

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
# What a bigint of the database holds.
_BigInt = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Characters of a name: of a node, an app, a tenant, a service or a request.
MOST_NAME: Final = 128
# As the doors and the config document allow them. All texts of a key that is counted together fit
# into an entry of PostgreSQL's index, which takes 2,704 bytes.
_Name = Annotated[str, Meta(max_length=MOST_NAME)]
_Digest = Annotated[str, Meta(max_length=64)]
_Method = Annotated[str, Meta(max_length=32)]
_Template = Annotated[str, Meta(max_length=256)]
# Bytes. Chosen: 14 times the features of today; a row stays small.
_Vector = Annotated[bytes, Meta(max_length=4_096)]


# gc=False: it holds no reference cycles, and untracked events cost the collector nothing
class Event(msgspec.Struct, array_like=True, gc=False):
    """One sampled decision. Fields are only ever appended: the order is the wire format."""

    id: bytes
    """UUIDv7, 16 bytes."""
    at: Moment
    """Unix seconds."""
    request_id: _Name
    region: _Name
    node: _Name
    app: _Name
    tenant: _Name
    tier: Annotated[int, Meta(ge=0, le=int(max(Tier)))]
    token_digest: _Digest
    """Keyed hash (`ids.token_digest`), empty when the request carried no credential."""
    method: _Method
    endpoint: _Template
    """Path template, for example /v2/orders/{id}."""
    service: _Name
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
    model: _Digest
    """Digest of the model artifact that was live, empty when none."""
    arm: _TwoDigits
    ml_state: _TwoDigits
    config_version: _BigInt
    feature_schema: _Digest
    features: _Vector
    """float32, little endian, in registry order, as the decision used them."""
    signals: _Vector
    """float64, little endian, in `signals` order, as the decision used them."""
    inclusion_probability: Share
    """Probability with which this decision was kept; weigh by its inverse."""
    latency_us: NotNegative
    """Time in microseconds that the decider took for the whole batch of this decision."""
    payload_bytes: _BigInt


# Fields of an event with a most length, and these lengths.
_BOUNDED: Final = {
    name: most
    for name, hint in get_type_hints(Event, include_extras=True).items()
    for most in (meta.max_length for meta in getattr(hint, "__metadata__", ()))
    if most is not None
}
_bounded_of = attrgetter(*_BOUNDED)


def too_long(event: Event) -> bool:
    """Return whether a text of an event is longer than ingest takes. What makes events asks this:
    an event is a struct of its own making, whose fields nobody has checked.
    """
    return any(map(gt, map(len, _bounded_of(event)), _BOUNDED.values()))


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
    run: bytes = b""
    """UUIDv7 of this run of the node, 16 bytes; empty from senders whose events nobody counts."""
    first: int = 0
    """Number of its first event, from 0, among all that this run has sent: ingest sees a gap."""


class SealedBatch(msgspec.Struct, array_like=True):
    """A batch as `EventBatch`, each event still packed, so that a bad one costs only itself."""

    id: bytes
    node: str
    sent_at: float
    dropped: int
    events: list[msgspec.Raw]
    run: bytes = b""
    first: int = 0


# made once: building a codec for a type costs more than a batch's encoding
encode_batch = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(EventBatch).decode
decode_sealed = msgspec.msgpack.Decoder(SealedBatch).decode
encode_event = encode_batch
decode_event = msgspec.msgpack.Decoder(Event).decode
