"""Signed tokens: a JWT (RFC 7519) in compact form, read as RFC 8725 advises.

PyJWT verifies signature, issuer and audience. What is here it does not do, or does more laxly: an
object that names a member twice is refused, as two readers might each believe another one; a token
leads to one key; times are numbers, and compared with a clock of the caller's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from jwt import PyJWK, PyJWT
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

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


class _Reader(PyJWT):
    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        return _object(decoded["payload"])


# exp and nbf are judged here: PyJWT takes text for a number, and knows no clock but its own. Envoy
# asks nothing of the other three, and all gateways are to judge alike.
_reader = _Reader(
    {
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "verify_sub": False,
        "verify_jti": False,
        "enforce_minimum_key_length": True,
    }
)


def verify(token: str, keys: Sequence[Key], rules: TokenRules, now: float) -> Verified:
    """Return what a token says that is good at `now` (unix seconds). Raise CredentialError."""
    # PyJWT takes padding, which RFC 7515, section 2, leaves out: one token would have several texts
    if "=" in token:
        raise CredentialError(Why.MALFORMED)
    key = _key_of(token, keys)
    try:
        claims = _reader.decode(
            token, key, [key.algorithm_name], audience=rules.audience, issuer=rules.issuer
        )
    # ValueError: a text that has no UTF-8
    except (PyJWTError, ValueError) as error:
        raise CredentialError(_why(error)) from None
    return _judge(claims, rules, now)


def _why(error: Exception) -> Why:
    if isinstance(error, InvalidSignatureError):
        return Why.SIGNATURE
    claim = error.claim if isinstance(error, MissingRequiredClaimError) else ""
    if claim == "iss" or isinstance(error, InvalidIssuerError):
        return Why.ISSUER
    if claim == "aud" or isinstance(error, InvalidAudienceError):
        return Why.AUDIENCE
    return Why.MALFORMED


def _key_of(token: str, keys: Sequence[Key]) -> PyJWK:
    """Return the one key that a token's header leads to. Raise CredentialError."""
    try:
        header = _object(from_base64(token.partition(".")[0]))
    except ValueError:
        raise CredentialError(Why.MALFORMED) from None
    # "crit" names what a reader must understand, and we know none of it (RFC 7515, 4.1.11)
    if "crit" in header:
        raise CredentialError(Why.MALFORMED)
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


def _object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that is written there. Raise CredentialError."""
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
    # ValueError: UTF-8, JSON, a number of too many digits
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
