"""Authentication codes of messages, made with keys that all processes of a fleet derive from
`token.key`. Whoever can only write to the store cannot make one.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

_CODE_BYTES: Final = 32  # of SHA-256


class SealError(Exception):
    """A message is not of this fleet, or not whole."""


def derive_key(token_key: bytes, purpose: bytes) -> bytes:
    """Return the key of one kind of message, 32 bytes. `purpose`: at most 16 bytes; another one
    makes another key, so no message passes for one of another kind or version.
    """
    return hashlib.blake2b(key=token_key, person=purpose, digest_size=32).digest()


def seal(body: bytes, key: bytes) -> bytes:
    """Return a message's bytes behind their authentication code."""
    return hmac.digest(key, body, hashlib.sha256) + body


def unseal(data: bytes, key: bytes, most: int) -> bytes:
    """Return the bytes that `seal` got. Raise SealError for anything else, and for more than `most`
    bytes in all.
    """
    if not _CODE_BYTES < len(data) <= most:
        raise SealError(f"it has {len(data)} bytes, not up to {most}")
    body = data[_CODE_BYTES:]
    if not hmac.compare_digest(data[:_CODE_BYTES], hmac.digest(key, body, hashlib.sha256)):
        raise SealError("it is not from this fleet (wrong token.key)")
    return body
