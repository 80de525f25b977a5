"""Reader of checks: what a gateway asks, taken from a parsed HTTP request.

Three gateways ask in three ways, and the address tells them apart:

- Envoy (HTTP ext_authz with path_prefix /v1/check) appends the original path and keeps the method;
- nginx (auth_request to /v1/check?answer=nginx) names path and method in X-Original-URI and
  X-Original-Method;
- Caddy (forward_auth to /v1/check) names them in X-Forwarded-Uri and X-Forwarded-Method.

A header x-sluice-answer stands in for the answer= of the address. In x-sluice-service the gateway
names the service that it will call.

The path is the client's: one that cannot be read is decided as an unknown path, and refuses nobody.
So are request id and attempt count: an odd one is ignored, and the decision's own id stands for the
request.

A browser's CORS preflight carries no credential, so it is decided as an app of its own for each
client. Whether it is one, its method and fields say; no header claims it.
"""

from __future__ import annotations

import re

from decider.contracts.normalise.paths import path_of
from decider.contracts.requests import CheckRequest
from decider.http.identity import IdentityRule, app_of
from decider.http.problem import RefusedError, malformed, url_too_long
from decider.http.source import NAMED, SourceRule

PREFIX = b"/v1/check"
# Characters of a credential. Chosen: half of all header fields (`Limits.head`), room for a large
# signed token; only a hash of it is kept.
MAX_TOKEN = 8192
# Characters of an address that a header names. Chosen: as many as the address of a check may have
# (`Limits.url`), so that all gateways are told alike.
MAX_URL = 8192
# Characters of a request id. Chosen: a UUID has 36 and a W3C traceparent 55; the id is stored.
MAX_REQUEST_ID = 128
# Retries of one request. Chosen: far above any real client; it keeps the number a small integer.
MAX_ATTEMPT = 1_000_000
# Largest size of a body. Every whole number up to 2^53 is exact as float64, which features are
# computed in, and as a number in JavaScript.
MAX_BYTES = 2**53
# Checked before int(), whose time grows with the square of the digits.
_MAX_DIGITS = len(str(MAX_BYTES))

# Header fields that this server looks at, by lower-case name.
Fields = dict[bytes, bytes]

# Visible ASCII without the comma: a gateway joins a field that was sent twice with a comma.
APP_PATTERN = r"[!-+\--~]{1,128}"
METHOD_PATTERN = r"[A-Z][A-Z_-]{0,31}"
TOKEN_PATTERN = rf"[ -~]{{0,{MAX_TOKEN}}}"

APP = re.compile(APP_PATTERN.encode()).fullmatch
_method = re.compile(METHOD_PATTERN.encode()).fullmatch
# In front of the address in the name of an app that sends preflights.
PREFLIGHT_APP = "preflights-of-"
# Problems whose text never changes are made once, so that a flood of bad checks stays cheap.
_NO_APP = malformed("The header x-sluice-app is missing: the gateway must say which app is asking.")
_BAD_APP = malformed(
    "The header x-sluice-app must hold one app id of 1 to 128 visible ASCII characters, without a"
    " comma."
)
_BAD_TOKEN = malformed(f"The credential must be at most {MAX_TOKEN} printable ASCII characters.")
_LONG_URL = url_too_long("The URL", MAX_URL)
_BAD_SIZE = malformed("The header x-sluice-bytes must be a whole number.")


def read_check(
    url: bytes,
    method: bytes,
    fields: Fields,
    body_bytes: int,
    source: SourceRule = NAMED,
    identity: IdentityRule = None,
) -> CheckRequest:
    """Return the request to decide. `url` begins with PREFIX; `body_bytes` is the size of the
    check's own body; `source` says which header names the client's address, `identity` what names
    the app.

    Raise RefusedError, which says what part of the check is wrong.
    """
    path = url[len(PREFIX) :]
    if path[:1] != b"/":
        method, path = _named(path, fields)
    # The query is left out, too: it often holds personal data, and no route depends on it.
    read = path_of(path.decode(errors="replace"))
    preflight = _is_preflight(method, fields)
    app = _named_app(fields) if identity is None and not preflight else ""
    request = CheckRequest(app, method.decode(), read, payload_bytes=body_bytes)
    if len(fields) > 1:
        header = b"authorization" if identity is None else identity.header.encode()
        add_optional(request, fields, source, header)
    if preflight:
        request.app, request.token = PREFLIGHT_APP + request.source, ""
    elif identity is not None:
        request.app = app_of(identity, request.token, request.source)
    return request


def _is_preflight(method: bytes, fields: Fields) -> bool:
    """Return whether a browser asks whether a page may send a request (CORS preflight)."""
    return method == b"OPTIONS" and bool(
        fields.get(b"origin") and fields.get(b"access-control-request-method")
    )


def _named_app(fields: Fields) -> str:
    """Return the app that the gateway names. Raise RefusedError."""
    if (app := fields.get(b"x-sluice-app")) is None:
        raise RefusedError(_NO_APP)
    if APP(app) is None:
        raise RefusedError(_BAD_APP)
    return app.decode()


def wants_nginx(url: bytes, fields: Fields) -> bool:
    """Return whether the answer must be one that nginx understands. In `url`, only the part that
    the gateway itself wrote counts.
    """
    # `url[9:]` follows PREFIX. With a path there, the query is the client's, who must not choose.
    if (form := fields.get(b"x-sluice-answer")) is not None:
        return form == b"nginx"
    return url[9:10] == b"?" and b"answer=nginx" in url[10:].split(b"&")


def _named(rest: bytes, fields: Fields) -> tuple[bytes, bytes]:
    """Return method and path of the original request from header fields. `rest` is what follows
    PREFIX. Raise RefusedError when they are missing or the method is malformed.
    """
    kind = b"original" if wants_nginx(PREFIX + rest, fields) else b"forwarded"
    method, path = fields.get(b"x-" + kind + b"-method"), fields.get(b"x-" + kind + b"-uri")
    if method is None or path is None:
        names = f"x-{kind.decode()}-method and x-{kind.decode()}-uri"
        raise RefusedError(
            malformed(
                f"The check names no original request: append its path to {PREFIX.decode()}, or set"
                f" {names}."
            )
        )
    if len(path) > MAX_URL:
        raise RefusedError(_LONG_URL)
    if _method(method) is None:
        raise RefusedError(
            malformed(f"The header x-{kind.decode()}-method must be an HTTP method in upper case.")
        )
    return method, path


def add_optional(
    request: CheckRequest,
    fields: Fields,
    source: SourceRule = NAMED,
    credential_header: bytes = b"authorization",
) -> None:
    """Add to `request` what the gateway may say beside app, method and path. Raise RefusedError for
    a malformed field.
    """
    if (value := fields.get(credential_header)) is not None:
        # Without the scheme, because "Bearer x" and a bare "x" are the same credential.
        scheme, _, credential = value.decode().partition(" ")
        token = credential.strip() or scheme
        if len(token) > MAX_TOKEN or not (token.isascii() and token.isprintable()):
            raise RefusedError(_BAD_TOKEN)
        request.token = token
    if (value := fields.get(source.header.encode())) is not None:
        request.source = source.read(value.decode(errors="replace"))
    if (value := fields.get(b"x-sluice-service")) is not None:
        # any text: what is no service of the config document counts as none
        request.service = value.decode()
    if (value := fields.get(b"x-request-id")) is not None:
        request.request_id = request_id_of(value.decode(errors="replace"))
    if value := fields.get(b"x-sluice-bytes"):  # empty where the gateway knows no size
        request.payload_bytes = _size(value)
    if (attempt := _attempt(fields.get(b"x-sluice-attempt", b""))) is not None:
        request.attempt = attempt
    elif (tries := _attempt(fields.get(b"x-envoy-attempt-count", b""))) is not None:
        request.attempt = max(0, tries - 1)  # counts the first try as 1


def request_id_of(text: str) -> str:
    """Return a request id as it is, and "" for one that is odd: too long, or not visible ASCII."""
    # String methods, because they cost less than a pattern.
    fits = len(text) <= MAX_REQUEST_ID and text.isascii() and text.isprintable()
    return text if fits and " " not in text else ""


def _attempt(value: bytes) -> int | None:
    """Return the number of a try, None for one that is missing or odd."""
    if len(value) > _MAX_DIGITS or not value.isdigit() or (number := int(value)) > MAX_ATTEMPT:
        return None
    return number


def _size(value: bytes) -> int:
    """Return the size of a body, MAX_BYTES for any larger one: nobody hides a size by its spelling.
    Raise RefusedError for what is no number, which only a gateway can have written.
    """
    if not value.isdigit():
        raise RefusedError(_BAD_SIZE)
    digits = value.lstrip(b"0")
    return min(int(digits or b"0"), MAX_BYTES) if len(digits) <= _MAX_DIGITS else MAX_BYTES
