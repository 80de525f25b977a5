"""Identifiers: decision ids (UUIDv7, RFC 9562 section 5.7) and keyed digests of credentials."""

from __future__ import annotations

import hashlib
import os
import re
import time

PREFIX = "dec_"
_PATTERN = re.compile(r"(?:dec_)?([0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12})", re.I)


class IdSource:
    """Makes UUIDv7s that increase within one process: 48 bits of milliseconds, 12 + 62 bits of counter and randomness."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._counter = 0

    def many(self, count: int, now: float | None = None) -> list[bytes]:
        """`count` ids of 16 bytes, strictly increasing, all of the millisecond of `now` (default: the clock)."""
        ms = int((time.time() if now is None else now) * 1000)
        if ms > self._last_ms:
            self._last_ms, self._counter = ms, 0
        ms = self._last_ms
        noise = os.urandom(6 * count)
        out = []
        for k in range(count):
            self._counter += 1
            counter = self._counter & 0x3FFFFFFF  # 12 bits in rand_a, 14 + 4 more in rand_b
            high = (ms << 16) | 0x7000 | (counter >> 18)
            low = (0x2 << 62) | ((counter & 0x3FFFF) << 44) | int.from_bytes(noise[6 * k : 6 * k + 6], "big") >> 4
            out.append(high.to_bytes(8, "big") + low.to_bytes(8, "big"))
        return out


def format_decision_id(raw: bytes) -> str:
    """`dec_` and 32 hexadecimal digits."""
    return PREFIX + raw.hex()


def parse_decision_id(text: str) -> bytes | None:
    """The 16 bytes of a decision id with or without prefix and dashes; None when it is not one."""
    match = _PATTERN.fullmatch(text.strip())
    return bytes.fromhex(match[1].replace("-", "")) if match else None


def decision_time(raw: bytes) -> float:
    """Unix seconds, to the millisecond, at which an id was made."""
    return int.from_bytes(raw[:6], "big") / 1000


def token_digest(key: bytes, token: str) -> str:
    """Keyed BLAKE2b digest of a credential, 16 bytes as hex: enough to find it again, not enough to use it."""
    return hashlib.blake2b(token.encode("utf-8", "surrogateescape"), key=key, digest_size=16).hexdigest()
