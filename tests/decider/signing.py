"""Keys and tokens for tests."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from decider.identity.jwk import to_base64

ISSUER, AUDIENCE = "https://id.example.com", "orders-api"
KEY = Ed25519PrivateKey.generate()
STRANGER = Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk_of(key: Any, kid: str = "") -> dict[str, str]:
    public = key.public_key()
    named = {"kid": kid} if kid else {}
    if isinstance(key, Ed25519PrivateKey):
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": to_base64(public.public_bytes_raw()),
            **named,
        }
    numbers = public.public_numbers()
    if isinstance(key, rsa.RSAPrivateKey):
        length = (key.key_size + 7) // 8
        return {
            "kty": "RSA",
            "n": to_base64(numbers.n.to_bytes(length)),
            "e": to_base64(numbers.e.to_bytes(3)),
            **named,
        }
    x, y = (to_base64(part.to_bytes(32)) for part in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **named}


def signature(key: Any, message: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def claims_of(app: Any, **changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; None leaves a claim out."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": app,
        "exp": int(time.time()) + 36_000,
    } | changes
    return {name: value for name, value in claims.items() if value is not None}


def sealed(header: bytes | dict[str, Any], claims: bytes | dict[str, Any], key: Any = KEY) -> str:
    """A token of these parts, signed over whatever they hold."""
    parts = [
        to_base64(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (header, claims)
    ]
    text = ".".join(parts)
    return f"{text}.{to_base64(signature(key, text.encode()))}"


def token(app: Any = "app", key: Any = KEY, alg: str = "EdDSA", **changes: Any) -> str:
    return sealed({"alg": alg, "typ": "JWT"}, claims_of(app, **changes), key)


def write_jwks(path: Path, *keys: dict[str, str]) -> None:
    path.write_text(json.dumps({"keys": list(keys)}))


def write_settings(folder: Path, more: str = "", jwt: bool = True) -> Path:
    """The settings file of a decider that believes KEY."""
    path = folder / "identity.toml"
    section = (
        f'[jwt]\nkeys = "jwks.json"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\n' if jwt else ""
    )
    path.write_text(f"{more}\n{section}" if not more.startswith("[") else f"{section}{more}\n")
    write_jwks(folder / "jwks.json", jwk_of(KEY))
    return path
