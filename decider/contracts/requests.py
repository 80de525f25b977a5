"""The messages of a decision: what a gateway asks, what the engine answers, and what became of the
request later. All times are unix seconds (UTC).
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from decider.contracts.config import MALFORMED, Moment


# gc=False on all three: they hold no reference cycles, and a busy decider makes thousands a second
class CheckRequest(msgspec.Struct, gc=False):
    """One request to decide. The HTTP server (`decider.http`) checks the form of its texts, so the
    engine trusts them.
    """

    app: str
    """App id, 1 to 128 visible ASCII characters."""
    method: str
    """HTTP method, upper case."""
    path: str
    """Path of the original request as `normalise.paths.path_of` writes it; empty when it cannot be
    read.
    """
    token: str = ""
    """Raw credential; hashed in memory, never stored or logged."""
    source: str = ""
    """Source that the client's address belongs to, as `normalise.addresses.source_of` writes it;
    empty when it is not known. Only a hash of it is counted.
    """
    request_id: str = ""
    payload_bytes: int = 0
    """Size of the request body."""
    attempt: int = 0
    """Number of the retry as the client or gateway says, 0 for a first try. Ignored unless the
    decider runs with --trust-attempts.
    """
    service: str = ""
    """Service that the gateway will call, empty when it names none. One that the config document
    does not have counts as none.
    """


class Decision(msgspec.Struct, gc=False):
    """The engine's answer to one `CheckRequest`. The fields up to `reset` stand in the order of
    `buffers.ANSWER`.
    """

    id: bytes
    """UUIDv7, 16 bytes."""
    action: int
    """`vocabulary.Action`; in observe-only mode it is ADMIT, whatever was decided."""
    stage: int
    reason: int
    retry_after: float
    """Seconds to wait before the same request may be admitted; 0 for ADMIT and BLOCK."""
    limit: int
    """Requests that a full bucket admits: its burst, plus the headroom of an app that has it
    (RateLimit-Policy q).
    """
    window: int
    """Seconds until a bucket is full again after all its burst and headroom were used
    (RateLimit-Policy w).
    """
    remaining: int
    """Requests that the bucket admits now, whatever they are (RateLimit r)."""
    reset: float
    """Seconds until the bucket is full again (RateLimit t)."""
    batch_hint: str = ""
    """For BATCH: how to batch, from the service's config."""
    receipt: str = ""
    """Text that the refused client may show to support (`refusal.receipt`); empty when admitted."""
    told: tuple[tuple[str, str], ...] = ()
    """For a refusal: code and sentence of the cause that the client is told
    (`refusal.findings.told`); empty when it is told none.
    """


# Milliseconds of the longest request, one hour. Chosen: long downloads count; a longer time is a
# defect of the log and would spoil the mean latency.
MOST_LATENCY_MS: Final = 3_600_000.0
# Characters of an endpoint. Chosen: twice the longest line of a gateway's log that is read.
MOST_ENDPOINT: Final = 131_072
_Short = Annotated[str, Meta(max_length=128)]


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """What became of one request that went to its service, as the gateway's access log tells it."""

    app: Annotated[str, Meta(min_length=1, max_length=128)]
    service: _Short
    at: Moment
    """When the response ended."""
    status: Annotated[int, Meta(ge=100, le=599)]
    latency_ms: Annotated[float, Meta(ge=0, le=MOST_LATENCY_MS)]
    request_id: _Short = ""
    decision: _Short = ""
    """Decision id as in the response header, empty when unknown."""
    bytes_out: Annotated[int, Meta(ge=0, le=2**53)] = 0
    endpoint: Annotated[str, Meta(max_length=MOST_ENDPOINT)] = ""
    """Method and template of the path (`routing.endpoint_of`), empty when unknown."""
    named: _Short = ""
    """Service that the gateway named when it asked, empty when it named none."""


_decode_outcomes = msgspec.msgpack.Decoder(list[Outcome]).decode
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def outcomes_in(data: bytes) -> tuple[list[Outcome], int]:
    """Return the outcomes in an entry of their stream, and how many items of it are none: of
    another form, or with a value out of its range.
    """
    try:
        # nearly always all are good, and one call is many times faster than one for each
        return _decode_outcomes(data), 0
    except MALFORMED:
        pass
    try:
        items = _split(data)
    except MALFORMED:
        # no list at all, or one whose items cannot be told apart
        return [], 1
    good = []
    for item in items:
        try:
            good.append(_decode_outcome(item))
        except MALFORMED:
            continue
    return good, len(items) - len(good)
