"""Key sets: a JWK Set (RFC 7517) becomes keys that verify signatures.

The key says by which algorithms it may be used, never the token: a public key must not be taken for
a shared secret (RFC 8725, section 2.1).
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from jwt import PyJWK, PyJWTError
from msgspec import Meta, Struct

from decider.identity.errors import IdentityFileError
from decider.identity.settings import read_limited

# Keys of a set. Chosen: an issuer that rotates has two or three; this bounds a mistaken file.
MOST_KEYS = 64
# Bytes of a file. Chosen: room for MOST_KEYS keys with certificate chains of 4 kB each.
MOST_BYTES = 262_144
# Bits of an RSA key. The least that RFC 7518, section 3.3, allows, and the most that an honest
# issuer uses: the time to verify grows with the square of it.
RSA_BITS = range(2048, 4097)
# Bytes of a shared secret: RFC 7518, section 3.2, asks for as many as the hash has.
LEAST_SECRET = 32
# The curve of each kind of key, and the algorithms it may be used by. PyJWT knows more of them.
_ALGORITHMS = {
    "OKP": ("Ed25519", ("EdDSA",)),
    "RSA": ("", ("RS256", "PS256")),
    "EC": ("P-256", ("ES256",)),
    "oct": ("", ("HS256",)),
}


class Key(NamedTuple):
    """One key. Equal keys have equal ids and algorithms."""

    kid: str
    """Id that tokens name it by; "" when the set gives none."""
    thumb: bytes
    """What the key is made of, to tell whether a new set still has it."""
    checks: dict[str, PyJWK]
    """By algorithm."""


class _Jwk(Struct, kw_only=True):
    """The members that we read; a set may hold others, and keys of other kinds."""

    kty: str
    kid: Annotated[str, Meta(max_length=256)] = ""
    use: str = "sig"
    alg: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""
    n: str = ""
    e: str = ""
    k: str = ""


class _Set(Struct):
    keys: Annotated[list[msgspec.Raw], Meta(max_length=MOST_KEYS)]


def from_base64(text: str) -> bytes:
    """Return the bytes of unpadded base64url (RFC 7515, section 2). Raise ValueError."""
    found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # Python skips what is not of the alphabet and bits that are left over
    if to_base64(found) != text:
        raise ValueError("not base64url")
    return found


def to_base64(raw: bytes) -> str:
    """Return bytes as unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def read_keys(path: Path) -> list[Key]:
    """Return the usable keys of a file. Raise IdentityFileError when it has none, is malformed, or
    has two with one id.

    Keys of other kinds and for other uses are passed over, as RFC 7517, section 5, asks.
    """
    data = read_limited(path, MOST_BYTES)
    try:
        raw = msgspec.json.decode(data, type=_Set).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise IdentityFileError(f"{path}: no JWK Set: {error}") from error
    keys = [key for each in raw if (key := _key(each)) is not None]
    if not keys:
        raise IdentityFileError(
            f"{path}: has no key that can be used: Ed25519, P-256, RSA of {RSA_BITS[0]} to"
            f" {RSA_BITS[-1]} bits, or a secret of at least {LEAST_SECRET} bytes"
        )
    named = [key.kid for key in keys if key.kid]
    if len(set(named)) < len(named):
        raise IdentityFileError(f"{path}: two keys have one kid")
    return keys


def _key(raw: msgspec.Raw) -> Key | None:
    try:
        jwk = msgspec.json.decode(raw, type=_Jwk)
        checks = _checks(jwk) if jwk.use == "sig" else {}
    # a key that is not for us or is damaged costs only itself
    except (msgspec.MsgspecError, PyJWTError, ValueError, KeyError, RecursionError):
        return None
    thumb = repr((jwk.kty, jwk.crv, jwk.x, jwk.y, jwk.n, jwk.e, jwk.k, sorted(checks))).encode()
    return Key(jwk.kid, thumb, checks) if checks else None


def _checks(jwk: _Jwk) -> dict[str, PyJWK]:
    curve, algorithms = _ALGORITHMS[jwk.kty]
    if curve and jwk.crv != curve:
        raise ValueError(jwk.crv)
    # the public members alone: PyJWT would take a private key, too
    members = {name: getattr(jwk, name) for name in ("x", "y", "n", "e", "k")}
    for text in members.values():
        from_base64(text)
    given = {name: text for name, text in members.items() if text}
    data = {"kty": jwk.kty, "crv": jwk.crv, **given}
    return {
        name: _of_good_size(PyJWK(data, name))
        for name in algorithms
        if not jwk.alg or name == jwk.alg
    }


def _of_good_size(key: PyJWK) -> PyJWK:
    if key.key_type == "RSA" and key.key.key_size not in RSA_BITS:
        raise ValueError(key.key.key_size)
    # PyJWT refuses a secret that looks like a public key, but only when it verifies
    if key.key_type == "oct" and len(key.Algorithm.prepare_key(key.key)) < LEAST_SECRET:
        raise ValueError(len(key.key))
    return key
