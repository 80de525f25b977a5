"""Reader of gateways' access logs: one line, in the form of one of the three examples in
`examples/gateway`, as one `LogLine`.

Envoy and nginx write the same names, because their formats are ours. Caddy writes a form of its
own, in which the request and the response are objects. What a client wrote may be any bytes, and
must not cost the line: what cannot be read in it reads as a replacement character.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

# What stands in every line of Caddy's, and in no text of a client's, whose quotes are escaped.
_CADDYS = b'"request":{'
# Fields of Caddy's response that tell what the gateway knows, as Go spells them. What the request's
# fields say, the client wrote.
_DECISION, _SERVICE, _APP = "Sluice-Decision", "Sluice-Service", "Sluice-App"
_UNASKED, _CHECK_MS = "Sluice-Unasked", "Sluice-Check-Ms"
_REQUEST_ID = "X-Request-Id"
# Milliseconds beyond which a time is no check's. Chosen: a minute, as no gateway keeps a client
# longer.
MOST_CHECK_MS = 60_000.0


class _Written(msgspec.Struct):
    """A line by the names in `examples/gateway/envoy.yaml` and `nginx.conf`. What the gateway did
    not know is null or empty.
    """

    status: int
    ts: datetime | None = None
    """When the request came, as Envoy says."""
    ended: float | None = None
    """When the response ended, unix seconds, as nginx says."""
    duration_ms: float | None = None
    duration_s: float | None = None
    app: str | None = None
    request_id: str | None = None
    decision: str | None = None
    service: str | None = None
    bytes_out: int | None = None
    flags: str | None = None
    method: str | None = None
    path: str | None = None
    """As the gateway routed it."""
    named: str | None = None
    """Service that the gateway named when it asked."""
    check_us: float | str | None = None
    """Microseconds for which a decider was asked, as Envoy says."""
    check_s: str | None = None
    """Seconds for which each decider was asked, as nginx says: "0.015, 0.001" for two."""
    unasked: str | None = None
    """"true" when the gateway went on by its own rule."""
    details: str | None = None
    """Why the gateway answered by itself, or that the service did, as Envoy says."""


class _CaddyRequest(msgspec.Struct):
    method: str
    uri: str
    headers: dict[str, list[str]] = {}


class _CaddyLine(msgspec.Struct):
    ts: float
    """When the response ended, unix seconds."""
    request: _CaddyRequest
    duration: float
    """Seconds."""
    status: int
    size: int = 0
    resp_headers: dict[str, list[str]] = {}


class LogLine(NamedTuple):
    """What a line says of one request. Texts are empty where the gateway said nothing."""

    ended: float
    """Unix seconds."""
    status: int
    duration_ms: float
    app: str
    request_id: str
    decision: str
    service: str
    """Service that the request went to, empty when it went to none."""
    bytes_out: int
    flags: str
    """Envoy's response flags, separated by commas."""
    method: str
    path: str
    named: str
    """Service that the gateway named when it asked."""
    details: str
    """Why Envoy answered by itself, or that the service did."""
    asked: bool
    """Whether a decider was asked."""
    unasked: bool
    """Whether none answered, be the request let through or refused then."""
    check_ms: float | None
    """How long asking took; None where the gateway does not say."""


_decode = msgspec.json.Decoder(_Written, strict=False).decode
_decode_caddys = msgspec.json.Decoder(_CaddyLine).decode


def read_line(line: bytes) -> LogLine:
    """Return what a line of a gateway's access log says.

    Raise ValueError for a line that is not the gateway's: msgspec's errors are ValueErrors, too.
    """
    text = line.decode(errors="replace")
    return _of_caddy(_decode_caddys(text)) if _CADDYS in line else _of_formats(_decode(text))


def _times(read: _Written) -> tuple[float, float]:
    """Return when the response ended, unix seconds, and how long it took, ms. Raise ValueError."""
    took = read.duration_ms
    if took is None:
        if read.duration_s is None:
            raise ValueError("the line has neither duration_ms nor duration_s")
        took = 1000 * read.duration_s
    if read.ended is not None:
        return read.ended, took
    if read.ts is None:
        raise ValueError("the line has neither ts nor ended")
    began = read.ts.replace(tzinfo=read.ts.tzinfo or UTC).timestamp()
    return began + took / 1000, took


def _of_formats(read: _Written) -> LogLine:
    ended, took = _times(read)
    return LogLine(
        ended,
        read.status,
        took,
        read.app or "",
        read.request_id or "",
        read.decision or "",
        read.service or "",
        read.bytes_out or 0,
        read.flags or "",
        read.method or "",
        read.path or "",
        read.named or "",
        read.details or "",
        *_check(read),
    )


def _check(read: _Written) -> tuple[bool, bool, float | None]:
    """Return the line's `asked`, `unasked` and `check_ms`."""
    took = _milliseconds(read.check_us, 1e-3)
    if took is None:
        took = _milliseconds(read.check_s, 1e3)
    unasked = read.unasked == "true" or read.details == "ext_authz_error"
    return unasked or took is not None, unasked, took


def _milliseconds(written: float | str | None, unit_ms: float) -> float | None:
    """Return the sum of the times in a field, whose unit is `unit_ms` milliseconds; None when it
    holds none or one that no check takes.
    """
    try:
        took = unit_ms * sum(float(each) for each in str(written).split(","))
    except ValueError:  # nginx and Envoy write "-" or nothing where they asked nobody
        return None
    return took if 0.0 <= took <= MOST_CHECK_MS else None


def _of_caddy(read: _CaddyLine) -> LogLine:
    answered = read.resp_headers
    service, decision = _first(answered, _SERVICE), _first(answered, _DECISION)
    unasked = _first(answered, _UNASKED) == "true"
    return LogLine(
        read.ts,
        read.status,
        1000 * read.duration,
        _first(answered, _APP),
        _first(read.request.headers, _REQUEST_ID),
        decision,
        service,
        read.size,
        "",
        read.request.method,
        read.request.uri,
        service,
        "",
        unasked or bool(decision),
        unasked,
        _milliseconds(_first(answered, _CHECK_MS), 1.0),
    )


def _first(headers: dict[str, list[str]], name: str) -> str:
    values = headers.get(name)
    return values[0] if values else ""
