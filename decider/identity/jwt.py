"""Signed tokens: a JWT (RFC 7519) in compact form, read as RFC 8725 advises.

The checks that cost little come first, the signature next, and nothing that the token claims is
believed before it. An object that names a member twice is refused: two readers might each believe
another one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from decider.identity.errors import CredentialError, Why
from decider.identity.jwk import Key, from_base64

# Seconds by which clocks of issuer and decider may differ. As Envoy's jwt_authn by default, so that
# all gateways judge alike.
LEEWAY_S = 60.0
# Visible ASCII without the comma, as `http.check.APP_PATTERN`.
_app = re.compile(r"[!-+\--~]{1,128}").fullmatch


class TokenRules(NamedTuple):
    """What a token must say."""

    issuer: str
    audience: str
    claim: str
    """Claim that names the app."""


class Verified(NamedTuple):
    """What a verified token says."""

    app: str
    until: float
    """Unix time at which it expires, leeway included."""


def verify(token: str, keys: Sequence[Key], rules: TokenRules, now: float) -> Verified:
    """Return what a token says that is good at `now` (unix seconds). Raise CredentialError."""
    if token.count(".") != 2:
        raise CredentialError(Why.MALFORMED)
    head, _, signature = token.rpartition(".")
    header_part, _, claims_part = head.partition(".")
    header = _object(header_part)
    # "crit" names what a reader must understand, and we know none of it (RFC 7515, 4.1.11)
    if "crit" in header:
        raise CredentialError(Why.MALFORMED)
    check = _check_of(header, keys)
    try:
        signed = check(from_base64(signature), head.encode("ascii"))
    except ValueError:
        raise CredentialError(Why.MALFORMED) from None
    if not signed:
        raise CredentialError(Why.SIGNATURE)
    return _judge(_object(claims_part), rules, now)


def _check_of(header: dict[str, Any], keys: Sequence[Key]) -> Any:
    """Return the check of the one key that a token's header leads to. Raise CredentialError."""
    algorithm, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(algorithm, str) or not isinstance(kid, str):
        raise CredentialError(Why.MALFORMED)
    fitting = [
        key
        for key in keys
        if algorithm in key.checks and (not kid or not key.kid or kid == key.kid)
    ]
    # a token that leads to several keys must not make us try one after the other
    if len(fitting) != 1:
        raise CredentialError(Why.UNKNOWN_KEY)
    return fitting[0].checks[algorithm]


def _judge(claims: dict[str, Any], rules: TokenRules, now: float) -> Verified:
    if claims.get("iss") != rules.issuer:
        raise CredentialError(Why.ISSUER)
    audience = claims.get("aud")
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        raise CredentialError(Why.AUDIENCE)
    # a token that never ends could never be taken back
    if now >= (until := _time(claims, "exp") + LEEWAY_S):
        raise CredentialError(Why.EXPIRED)
    if "nbf" in claims and now < _time(claims, "nbf") - LEEWAY_S:
        raise CredentialError(Why.NOT_YET)
    app = claims.get(rules.claim)
    if not isinstance(app, str) or _app(app) is None:
        raise CredentialError(Why.NO_APP)
    return Verified(app, until)


def _time(claims: dict[str, Any], name: str) -> float:
    """Return a time claim (NumericDate). Raise CredentialError."""
    value = claims.get(name)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            time = float(value)
            if math.isfinite(time):
                return time
    except OverflowError:  # an integer beyond floating point
        pass
    raise CredentialError(Why.MALFORMED)


def _object(part: str) -> dict[str, Any]:
    """Return the JSON object in a part of a token. Raise CredentialError."""
    try:
        found = json.loads(from_base64(part).decode("utf-8"), object_pairs_hook=_once)
    # ValueError: base64, UTF-8, JSON, a number of too many digits
    except (ValueError, RecursionError):
        raise CredentialError(Why.MALFORMED) from None
    if not isinstance(found, dict):
        raise CredentialError(Why.MALFORMED)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member stands there twice")
    return found
