"""Key sets: a JWK Set (RFC 7517) becomes keys that verify signatures.

The key says by which algorithms it may be used, never the token: a public key must not be taken for
a shared secret (RFC 8725, section 2.1).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
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
# Bytes of each half of an ES256 signature, and of a coordinate on P-256 (RFC 7518, section 3.4).
_P256 = 32

# Returns whether a signature of a message is right.
Check = Callable[[bytes, bytes], bool]


class Key(NamedTuple):
    """One key. Equal keys have equal ids and checks of equal names."""

    kid: str
    """Id that tokens name it by; "" when the set gives none."""
    thumb: bytes
    """What the key is made of, to tell whether a new set still has it."""
    checks: dict[str, Check]
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
        checks = _MAKERS[jwk.kty](jwk) if jwk.use == "sig" else {}
    # a key that is not for us or is damaged costs only itself
    except (msgspec.MsgspecError, ValueError, KeyError, RecursionError):
        return None
    if jwk.alg:
        checks = {name: check for name, check in checks.items() if name == jwk.alg}
    thumb = repr((jwk.kty, jwk.crv, jwk.x, jwk.y, jwk.n, jwk.e, jwk.k, sorted(checks))).encode()
    return Key(jwk.kid, thumb, checks) if checks else None


def _okp(jwk: _Jwk) -> dict[str, Check]:
    if jwk.crv != "Ed25519":
        raise ValueError(jwk.crv)
    key = Ed25519PublicKey.from_public_bytes(from_base64(jwk.x))
    return {"EdDSA": _catching(lambda signature, message: key.verify(signature, message))}


def _rsa(jwk: _Jwk) -> dict[str, Check]:
    n, e = (int.from_bytes(from_base64(part)) for part in (jwk.n, jwk.e))
    if n.bit_length() not in RSA_BITS:
        raise ValueError(n.bit_length())
    key = rsa.RSAPublicNumbers(e, n).public_key()
    pss = padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)
    return {
        "RS256": _catching(lambda s, m: key.verify(s, m, padding.PKCS1v15(), SHA256())),
        "PS256": _catching(lambda s, m: key.verify(s, m, pss, SHA256())),
    }


def _ec(jwk: _Jwk) -> dict[str, Check]:
    x, y = from_base64(jwk.x), from_base64(jwk.y)
    if jwk.crv != "P-256" or len(x) != _P256 or len(y) != _P256:
        raise ValueError(jwk.crv)
    point = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
    key = point.public_key()

    def verify(signature: bytes, message: bytes) -> None:
        if len(signature) != 2 * _P256:
            raise InvalidSignature
        r, s = (int.from_bytes(half) for half in (signature[:_P256], signature[_P256:]))
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))

    return {"ES256": _catching(verify)}


def _oct(jwk: _Jwk) -> dict[str, Check]:
    secret = from_base64(jwk.k)
    if len(secret) < LEAST_SECRET:
        raise ValueError(len(secret))
    return {"HS256": lambda s, m: hmac.compare_digest(hmac.digest(secret, m, "sha256"), s)}


_MAKERS = {"OKP": _okp, "RSA": _rsa, "EC": _ec, "oct": _oct}


def _catching(verify: Callable[[bytes, bytes], None]) -> Check:
    def check(signature: bytes, message: bytes) -> bool:
        try:
            verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    return check
