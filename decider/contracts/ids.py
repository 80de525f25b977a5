"""Identifiers: decision ids (UUIDv7, RFC 9562 section 5.7) and keyed digests of credentials."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import time

import numpy as np
from numpy.typing import NDArray

# Shows that an id in a ticket or log line is a decision id and not a request id.
PREFIX = "dec_"
_ID = struct.Struct(">QQ")
# The year 2191: an id that claims a later time was typed wrongly or made up.
_LATEST_S = 7e9
_PATTERN = re.compile(
    r"(?:dec_)?([0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12})", re.I
)


class IdSource:
    """A source of UUIDv7s that increase within one process. Each id holds milliseconds, a counter
    in rand_a (RFC 9562, 6.2, method 1) and a random rand_b.

    When more than 4,096 ids are made in one millisecond, they run ahead of the clock, as the RFC
    allows. Decisions get their ids from `kernels.finish` instead.
    """

    def __init__(self) -> None:
        self._next = 0
        """Milliseconds and counter (12 bits) of the next id."""

    def one(self, now: float | None = None) -> bytes:
        """Return an id of 16 bytes that is greater than all before it.

        It carries the millisecond of `now` (unix seconds, default: the clock), or a later one where
        an earlier id already has that millisecond.
        """
        # 12 bits of counter below the milliseconds; the maximum keeps ids growing when the clock
        # steps back
        step = max(int((time.time() if now is None else now) * 1000) << 12, self._next)
        self._next = step + 1
        return _ID.pack(
            (step >> 12 << 16) | 0x7000 | (step & 0xFFF), random_tails(1).byteswap().item()
        )

    def many(self, count: int, now: float | None = None) -> list[bytes]:
        """Return `count` ids as `one` makes them."""
        return [self.one(now) for _ in range(count)]


def random_tails(count: int) -> NDArray[np.uint64]:
    """Return the last 8 bytes of `count` UUIDv7s, as uint64 (count,) in the byte order of the id.

    In memory, the first byte begins with the variant (binary 10); the rest is random.
    """
    # one read from the operating system for all of them: the system call costs more than the bytes
    return (np.frombuffer(os.urandom(8 * count), np.uint64) & ~np.uint64(0xC0)) | np.uint64(0x80)


def format_decision_id(raw: bytes) -> str:
    """Return a decision id as text: `dec_` and 32 hexadecimal digits."""
    return PREFIX + raw.hex()


def parse_decision_id(text: str) -> bytes | None:
    """Return the 16 bytes of a decision id, written with or without prefix and dashes.

    Return None for a text that is not a decision id, or whose time lies after the year 2191.
    """
    match = _PATTERN.fullmatch(text.strip())
    raw = bytes.fromhex(match[1].replace("-", "")) if match else b""
    return raw if raw and decision_time(raw) < _LATEST_S else None


def decision_time(raw: bytes) -> float:
    """Return the unix seconds, to the millisecond, at which an id was made."""
    return int.from_bytes(raw[:6], "big") / 1000


def token_digest(key: bytes, token: str) -> str:
    """Return the keyed BLAKE2b digest of a credential, 16 bytes as hex.

    With the digest one can find the credential's requests again, but cannot use the credential.
    """
    # surrogatepass, so that any text has a digest: a lone surrogate would be an error
    return hashlib.blake2b(
        token.encode("utf-8", "surrogatepass"), key=key, digest_size=16
    ).hexdigest()
