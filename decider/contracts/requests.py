"""What a gateway asks, what the engine answers, and what comes back later. All times are unix
seconds (UTC).
"""

from __future__ import annotations

import msgspec


# gc=False on all three: they hold no reference cycles, and a busy decider makes thousands a second
class CheckRequest(msgspec.Struct, gc=False):
    """One request to decide. Strings are validated by the edge (`http`), so the engine trusts their
    form.
    """

    app: str
    """App id, 1 to 128 visible ASCII characters."""
    method: str
    """HTTP method, upper case."""
    path: str
    """Path of the original request, beginning with "/", query removed."""
    token: str = ""
    """Raw credential; hashed in memory, never stored or logged."""
    source: str = ""
    """Client address; only a hash of it is counted."""
    request_id: str = ""
    payload_bytes: int = 0
    """Size of the request body."""
    attempt: int = 0
    """Retry attempt as told by the client or gateway, 0 for a first try; ignored unless the node
    trusts its gateway to say it."""


class Decision(msgspec.Struct, gc=False):
    """The engine's answer to one `CheckRequest`, in the order asked."""

    id: bytes
    """UUIDv7, 16 bytes."""
    action: int
    """`vocabulary.Action`; in observe-only mode ADMIT whatever was decided."""
    stage: int
    reason: int
    retry_after: float
    """Seconds after which the same request would be admitted; 0 when not refused or never."""
    limit: int
    """Requests a full bucket has room for: its burst, and the headroom of an app that has it
    (RateLimit-Policy q)."""
    window: int
    """Seconds in which a bucket refills from its end (RateLimit-Policy w)."""
    remaining: int
    """Requests it has room for now, whatever they are (RateLimit r)."""
    reset: float
    """Seconds until the bucket is full again (RateLimit t)."""
    batch_hint: str = ""
    """For BATCH: how to batch, from the service's config."""
    receipt: str = ""
    """What the refused client may show to support (`refusal.receipt.seal`); empty when admitted."""
    told: tuple[tuple[str, str], ...] = ()
    """For a refusal: code and customer's sentence of the cause that the client is told
    (`refusal.findings.told`); empty when none is.
    """


class Outcome(msgspec.Struct, array_like=True, gc=False):
    """What became of one request that went to its service, as the gateway's access log tells it."""

    app: str
    service: str
    at: float
    """When the response ended."""
    status: int
    latency_ms: float
    request_id: str = ""
    decision: str = ""
    """Decision id as in the response header, empty when unknown."""
    bytes_out: int = 0
    endpoint: str = ""
    """Method and template of the path (`routing.endpoint_of`), empty when unknown."""
