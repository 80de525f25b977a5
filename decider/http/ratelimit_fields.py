"""The RateLimit and RateLimit-Policy response fields, as of
draft-ietf-httpapi-ratelimit-headers-10.

    RateLimit-Policy: "burst";q=300;w=20      300 requests in 20 seconds
    RateLimit: "burst";r=12;t=4               12 of them left, all again in 4 seconds

Of an app that has headroom, q, w and r count it (`engine.answers.ratelimit`):

    RateLimit-Policy: "burst";q=599;w=40      a burst of 300, and 299 of 300 of headroom
    RateLimit: "burst";r=0;t=40               both are used up

A refusal that says when to come back has a second policy:

    RateLimit-Policy: "retry";q=1;w=16, "burst";q=50;w=10
    RateLimit: "retry";r=0;t=16, "burst";r=50;t=0

Both are RFC 9651 structured fields: a list of strings with integer parameters. Only this module
knows the draft, so a change of the draft is a change of one file.
"""

from __future__ import annotations

import math
import re

DRAFT = "draft-ietf-httpapi-ratelimit-headers-10"
# Name of the policy that all clients see: the app's token bucket.
POLICY = "burst"

# Largest integer of RFC 9651, section 3.3.1.
_MAX = 999_999_999_999_999
# Values below this need no bounding, and real values always lie below it. So the usual answer pays
# for one comparison, not for four calls.
_FIT = 1_000_000_000


def lines(limit: int, window: int, remaining: int, reset: float, wait: int = 0) -> str:
    """Return both field lines with their line ends.

    `limit` and `remaining` in requests, `window` and `reset` in seconds; `reset` is rounded up, and
    all are bounded to what the fields may carry. `limit` and `window` are at least 1, because a
    policy of 0 cannot be stated. `wait`: seconds of Retry-After, 0 for none. Because the bucket may
    hold tokens when load or risk refuses, a second policy then says that nothing is admitted
    before.
    """
    if not (
        0 < limit < _FIT and 0 < window < _FIT and 0 <= remaining < _FIT and 0.0 <= reset < _FIT
    ):
        limit, window, remaining, reset = (
            _bound(limit, 1),
            _bound(window, 1),
            _bound(remaining, 0),
            _bound(reset, 0),
        )
    policy, state = f'"burst";q={limit};w={window}', f'"burst";r={remaining};t={math.ceil(reset)}'
    if wait:
        wait = _bound(wait, 1)
        policy, state = f'"retry";q=1;w={wait}, {policy}', f'"retry";r=0;t={wait}, {state}'
    return f"ratelimit-policy: {policy}\r\nratelimit: {state}\r\n"


def _bound(value: float, least: int) -> int:
    """Return `value` rounded up, from `least` to the most that the fields may carry; `least` for
    NaN.
    """
    if not value > least:
        return least
    return _MAX if value >= _MAX else math.ceil(value)


_ITEM = re.compile(
    r'"((?:[ !#-\[\]-~]|\\["\\])*)"((?:; *[a-z*][a-z0-9_.*-]*(?:=(?:-?\d{1,15}|"(?:['
    r' !#-\[\]-~]|\\["\\])*"))?)*)'
)
_PARAMETER = re.compile(
    r'; *([a-z*][a-z0-9_.*-]*)(?:=(?:(-?\d{1,15})|"((?:[ !#-\[\]-~]|\\["\\])*)"))?'
)
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_ESCAPED = re.compile(r"\\(.)")


def parse(value: str) -> dict[str, dict[str, int | str | bool]]:
    """Return the policies of a RateLimit or RateLimit-Policy field by name, each with its
    parameters.

    Read strictly the part of RFC 9651 that the draft uses: a list of strings with integer, string
    or bare parameters. Raise ValueError on anything else.
    """
    policies: dict[str, dict[str, int | str | bool]] = {}
    value, position = value.strip(" "), 0
    while True:
        if (item := _ITEM.match(value, position)) is None:
            raise ValueError(f"not a RateLimit field at character {position}: {value!r}")
        policies[_unescape(item[1])] = {p[1]: _parameter(p) for p in _PARAMETER.finditer(item[2])}
        position = item.end()
        if position == len(value):
            return policies
        if (comma := _COMMA.match(value, position)) is None:
            raise ValueError(f"expected a comma at character {position}: {value!r}")
        position = comma.end()


def _parameter(match: re.Match[str]) -> int | str | bool:
    if match[2] is not None:
        return int(match[2])
    return True if match[3] is None else _unescape(match[3])


def _unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
