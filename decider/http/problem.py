"""Errors as RFC 9457 problem details: they say what is wrong with a request, so that its sender
can act.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

CONTENT_TYPE = "application/problem+json"
PREFIX = "urn:sluice:problem:"


class Problem(msgspec.Struct, frozen=True):
    """One kind of failure. Equal slugs always carry the same status and title."""

    slug: str
    """Last part of the type URI; stable, so that a client may branch on it."""
    status: int
    title: str
    detail: str
    """What is wrong and what to do about it. It may quote the request, never internal state."""
    headers: tuple[tuple[str, str], ...] = ()
    """Fields the status demands, for example Allow with 405."""


class RefusedError(Exception):
    """A request that is answered with a problem before it reaches the engine."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


class _Body(msgspec.Struct):
    type: str
    title: str
    status: int
    detail: str


def body(problem: Problem) -> bytes:
    """Return the problem as an application/problem+json document."""
    return msgspec.json.encode(
        _Body(PREFIX + problem.slug, problem.title, problem.status, problem.detail)
    )


def phrase(status: int) -> str:
    """Return the reason phrase of an HTTP status."""
    return HTTPStatus(status).phrase


def malformed(detail: str) -> Problem:
    """Make a 400: the request cannot be understood as it stands."""
    return Problem("malformed-request", 400, "Malformed request", detail)


def unauthorized(detail: str, error: str = "") -> Problem:
    """Make a 401 with its WWW-Authenticate field; `error` as in RFC 6750, section 3.1, "" where the
    request has no credential.
    """
    challenge = f'Bearer error="{error}"' if error else "Bearer"
    return Problem("unauthorized", 401, "Unauthorized", detail, (("www-authenticate", challenge),))


def not_found(detail: str) -> Problem:
    """Make a 404: there is nothing at this address."""
    return Problem("not-found", 404, "No such address", detail)


def wrong_method(method: str, allow: str) -> Problem:
    """Make a 405 with its Allow field, which RFC 9110, section 15.5.6, demands."""
    return Problem(
        "method-not-allowed",
        405,
        "Method not allowed",
        f"{method} is not possible here; use {allow}.",
        (("allow", allow),),
    )


def too_large(limit: int) -> Problem:
    """Make a 413: the body has more than `limit` bytes."""
    return Problem(
        "body-too-large", 413, "Body too large", f"The body may have at most {limit} bytes here."
    )


def url_too_long(what: str, limit: int) -> Problem:
    """Make a 414: `what`, a part of the URL or all of it, has more than `limit` characters."""
    return Problem(
        "url-too-long", 414, "URL too long", f"{what} may have at most {limit} characters."
    )


def unsupported_type(detail: str) -> Problem:
    """Make a 415: the body has a type or encoding that is not read here."""
    return Problem("unsupported-media-type", 415, "Unsupported media type", detail)


def head_too_large(detail: str) -> Problem:
    """Make a 431: there are too many header fields, or they are too long."""
    return Problem("header-fields-too-large", 431, "Header fields too large", detail)


def too_busy(detail: str) -> Problem:
    """Make a 503 of the decider itself, not of a decision."""
    # Chosen, one second: a full decider has room again as soon as connections close or bodies end.
    return Problem("decider-busy", 503, "Decider busy", detail, (("retry-after", "1"),))


REQUEST_TIMEOUT = Problem(
    "request-timeout", 408, "Request timeout", "The request did not arrive in time; send it again."
)
EXPECTATION_FAILED = Problem(
    "expectation-failed",
    417,
    "Expectation failed",
    "The only expectation met here is 100-continue.",
)
INTERNAL = Problem(
    "internal-error", 500, "Internal error", "The decider failed to decide this request."
)
_OUR_GATEWAYS = "Only gateways that know this decider's secret may ask here."
NO_SECRET = Problem(
    "unauthorized", 401, "Unauthorized", _OUR_GATEWAYS, (("www-authenticate", "Sluice-Secret"),)
)
# The same for gateways that read any 4xx as a refusal of their client.
NO_SECRET_503 = Problem("unauthorized-gateway", 503, "Unauthorized gateway", _OUR_GATEWAYS)
NOT_IN_TIME = Problem(
    "not-in-time",
    503,
    "Not decided in time",
    "This decider has more checks than it can answer in time, so it did not decide this one.",
)
