"""JSON formats of access logs, one object a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from learning.logs.entry import FormatMismatch, Number, Written, duration, number
from learning.logs.text_lines import last_forwarded
from learning.logs.times import written_time

# Names that Envoy's fields have in its documentation, in Istio, in Envoy Gateway, and in the
# gateway that comes with Sluice (`examples/gateway/envoy.yaml`).
_ENVOY = {
    "at": ("ts", "start_time", "timestamp", "time"),
    "method": ("method", ":method"),
    "target": ("path", "x-envoy-origin-path", "x-envoy-original-path", ":path"),
    "status": ("status", "response_code"),
    "took": ("duration_ms", "duration"),
    "received": ("bytes_in", "bytes_received"),
    "sent": ("bytes_out", "bytes_sent"),
    "client": ("source", "downstream_remote_address", "remote_address", "client_ip"),
    "forwarded": ("x_forwarded_for", "x-forwarded-for"),
    "agent": ("user_agent", "user-agent"),
    "id": ("request_id", "x-request-id"),
    "app": ("app",),
    "server": ("service", "upstream_cluster", "upstream_host"),
}
_Object = dict[str, Any]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def _object(text: str, what: str) -> _Object:
    """Return the object of one line. Raises FormatMismatch."""
    try:
        return _decode(text)
    # Deeply nested JSON raises RecursionError. Only its own line must be lost.
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError):
        raise FormatMismatch(f"not a JSON line {what}") from None


def _text(value: object) -> str:
    """Return a text; empty for anything else."""
    return value if isinstance(value, str) else ""


def _number(value: object) -> Number:
    """Return a number or a text that may hold one; None for anything else."""
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _first(line: _Object, names: Iterable[str]) -> object:
    """Return the first of these fields that the line has and that is not null."""
    return next((line[name] for name in names if line.get(name) is not None), None)


def _needs(line: _Object, what: str, *fields: object) -> None:
    """Raise FormatMismatch when one of the fields that make a format is not there."""
    if any(field is None for field in fields):
        raise FormatMismatch(f"not a JSON line {what}")


def envoy_json(text: str) -> Written:
    """Read Envoy's JSON format with the field names that are usual. Raises LineError."""
    what = "in the gateway's form"
    line = _object(text, what)
    found = {name: _first(line, names) for name, names in _ENVOY.items()}
    _needs(line, what, *(found[name] for name in ("at", "method", "target", "status")))
    client = _text(found["client"])
    return Written(
        client=client if client not in ("", "-") else last_forwarded(_text(found["forwarded"])),
        at=written_time(_number(found["at"])),
        method=_text(found["method"]),
        target=_text(found["target"]),
        status=_number(found["status"]),
        bytes_in=_number(found["received"]),
        bytes_out=_number(found["sent"]),
        duration_ms=_number(found["took"]),
        agent=_text(found["agent"]),
        request_id=_text(found["id"]),
        app=_text(found["app"]),
        # A format without such a field says nothing of it.
        served=line.keys().isdisjoint(_ENVOY["server"]) or _text(found["server"]) not in ("", "-"),
    )


def caddy(text: str) -> Written:
    """Read Caddy's access log. Raises LineError."""
    what = "in Caddy's form"
    line = _object(text, what)
    request = line.get("request")
    if not isinstance(request, dict):
        raise FormatMismatch(f"not a JSON line {what}")
    _needs(line, what, line.get("ts"), request.get("method"), request.get("uri"))
    took = number(_number(line.get("duration"))) * 1000
    # The time is that of the answer; the duration is in seconds.
    begun = written_time(_number(line["ts"])) - (duration(took) or 0.0) / 1000
    return Written(
        # Caddy finds `client_ip` by its own list of trusted proxies; versions before 2.7 have none,
        # those before 2.5 call the peer `remote_addr`.
        client=_text(_first(request, ("client_ip", "remote_ip", "remote_addr"))),
        at=begun,
        method=_text(request["method"]),
        target=_text(request["uri"]),
        status=_number(line.get("status")),
        bytes_in=_number(line.get("bytes_read")),
        bytes_out=_number(line.get("size")),
        duration_ms=took,
        agent=_header(request.get("headers"), "User-Agent"),
        request_id=_header(request.get("headers"), "X-Request-Id"),
    )


def _header(headers: object, name: str) -> str:
    """Return the first value of a header, of which Caddy writes a list."""
    values = headers.get(name) if isinstance(headers, dict) else None
    return _text(values[0]) if isinstance(values, list) and values else ""


def traefik_json(text: str) -> Written:
    """Read Traefik's JSON format. Raises LineError."""
    what = "in Traefik's form"
    line = _object(text, what)
    at = _first(line, ("StartUTC", "StartLocal", "time"))
    _needs(line, what, at, line.get("RequestMethod"), line.get("RequestPath"))
    return Written(
        client=_text(_first(line, ("ClientHost", "ClientAddr"))),
        at=written_time(_number(at)),
        method=_text(line["RequestMethod"]),
        target=_text(line["RequestPath"]),
        status=_number(line.get("DownstreamStatus")),
        bytes_in=_number(line.get("RequestContentSize")),
        bytes_out=_number(line.get("DownstreamContentSize")),
        # Go's durations are in nanoseconds.
        duration_ms=number(_number(line.get("Duration"))) / 1e6,
        agent=_text(line.get("request_User-Agent")),
        request_id=_text(line.get("request_X-Request-Id")),
        served=bool(_first(line, ("ServiceName", "ServiceAddr", "ServiceURL"))),
    )
