"""Signed tokens of the simulated clients: the demo's gateway takes an app's name from nothing else.

`ensure_keys` plays the issuer: it makes a key pair, and the JWK Set that the gateway verifies with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts.files import create_atomically, write_atomically
from decider.identity.jwk import to_base64

# As in examples/gateway/envoy.yaml, which `manage.py up` runs.
ISSUER, AUDIENCE = "https://id.example.com", "orders-api"
KEY_FILE, JWKS_FILE = "clients.key", "clients-jwks.json"
# Seconds for which tokens are issued, from full hours on. Chosen: a client has one token for an
# hour, as with most issuers, and it stays good for the hour after that.
LIFE_S, EVERY_S = 7_200, 3_600
# Tokens kept, as signing takes 40 us. Chosen: several for each app of the demo.
KEPT = 65_536


def ensure_keys(folder: Path) -> Path:
    """Make the clients' keys in `folder` unless they are there; return the JWK Set's path. Raises
    OSError, and ValueError when the key file holds no key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = Ed25519PrivateKey.generate().private_bytes_raw()
    create_atomically(folder / KEY_FILE, f"{raw.hex()}\n".encode("ascii"), mode=0o600)
    public = _read_key(folder / KEY_FILE).public_key().public_bytes_raw()
    keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": to_base64(public)}]}
    write_atomically(folder / JWKS_FILE, json.dumps(keys).encode())
    return folder / JWKS_FILE


def _read_key(path: Path) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii")))


class Signer:
    """The maker of the clients' tokens. `wall` returns unix seconds."""

    def __init__(self, path: Path, wall: Callable[[], float] = time.time) -> None:
        """Read the key in `path`. Raise OSError, and ValueError when it holds none."""
        self._key, self._wall = _read_key(path), wall
        self._made = lru_cache(maxsize=KEPT)(self._make)

    def token(self, app: str, credential: str = "") -> str:
        """Return a token for an app. Each `credential` of an app gets a token of its own."""
        return self._made(app, credential, int(self._wall()) // EVERY_S * EVERY_S)

    def _make(self, app: str, credential: str, hour: int) -> str:
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": app, "iat": hour, "exp": hour + LIFE_S}
        if credential:
            claims["jti"] = credential
        return jwt.encode(claims, self._key, "EdDSA")
