"""Decision events as rows of PostgreSQL's binary COPY format (PostgreSQL documentation, COPY, "Binary Format").

Each row is a 16-bit field count, then per field a 32-bit length and its bytes, all big endian. The fixed-width
columns lead, so one `struct` call packs all of them with their lengths; what is left are texts and byte strings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from decider.event import Event

COLUMNS = (
    "id", "at", "tier", "action", "observed", "stage", "reason", "retry_after", "arm", "ml_state", "config_version",
    "inclusion_probability", "latency_us", "payload_bytes", "risk", "value", "raw_risk", "raw_value",
    "request_id", "region", "node", "app", "tenant", "token_digest", "method", "endpoint", "service", "model",
    "feature_schema", "features", "signals",
)  # fmt: skip
COPY = f"COPY decisions_decision ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
BLOCK = 256 * 1024
"""Bytes handed to PostgreSQL at once."""

EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC, where PostgreSQL's time begins, in microseconds of unix time."""
_EARLIEST_US = 0
_LATEST_US = 7_258_118_400_000_000  # 2200-01-01: a later clock is a broken one

_N = len(COLUMNS)
_LEAD = ">h i16s iq ih ih i? ih ih id ih ih iq id id iq".replace(" ", "")
_SCORED = struct.Struct(_LEAD + "idididid")
_UNSCORED = struct.Struct(_LEAD + "iiii")
_FLOAT = struct.Struct(">id")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)


class PoisonError(ValueError):
    """An event that no table may hold: a value out of its range, NUL in a text, an id of the wrong size."""


class Texts(dict[str, bytes]):
    """Texts as length and UTF-8 bytes, remembered: nearly all of them come again. Raises PoisonError on NUL and lone surrogates."""

    LIMIT = 50_000

    def __missing__(self, text: str) -> bytes:
        packed = _pack_text(text)
        if len(self) >= self.LIMIT:
            self.clear()
        self[text] = packed
        return packed


def _pack_text(text: str) -> bytes:
    if "\x00" in text:
        raise PoisonError("NUL in a text")
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise PoisonError(f"a text is not valid Unicode: {error.reason}") from error
    return _LENGTH.pack(len(raw)) + raw


def pack(event: Event, texts: Texts) -> bytes:
    """One event as a row. Raises PoisonError."""
    try:
        return _pack(event, texts)
    except (struct.error, OverflowError) as error:
        raise PoisonError(f"a value is out of its range: {error}") from error


def _pack(e: Event, texts: Texts) -> bytes:
    micros = _micros(e)
    a, b, c, d = e.risk, e.value, e.raw_risk, e.raw_value
    # fmt: off
    if a is not None and b is not None and c is not None and d is not None:
        lead = _SCORED.pack(
            _N, 16, e.id, 8, micros, 2, e.tier, 2, e.action, 1, e.observed, 2, e.stage, 2, e.reason, 8, e.retry_after,
            2, e.arm, 2, e.ml_state, 8, e.config_version, 8, e.inclusion_probability, 8, e.latency_us, 8, e.payload_bytes,
            8, a, 8, b, 8, c, 8, d,
        )
    else:
        lead = _UNSCORED.pack(
            _N, 16, e.id, 8, micros, 2, e.tier, 2, e.action, 1, e.observed, 2, e.stage, 2, e.reason, 8, e.retry_after,
            2, e.arm, 2, e.ml_state, 8, e.config_version, 8, e.inclusion_probability, 8, e.latency_us, 8, e.payload_bytes,
            -1, -1, -1, -1,
        )
        if not (a is b is c is d is None):
            lead = lead[:-16] + b"".join(_NULL if x is None else _FLOAT.pack(8, x) for x in (a, b, c, d))
    features, signals = e.features, e.signals
    return b"".join((
        lead, _pack_text(e.request_id), texts[e.region], texts[e.node], texts[e.app], texts[e.tenant], texts[e.token_digest],
        texts[e.method], texts[e.endpoint], texts[e.service], texts[e.model], texts[e.feature_schema],
        _LENGTH.pack(len(features)), features, _LENGTH.pack(len(signals)), signals,
    ))
    # fmt: on


def _micros(event: Event) -> int:
    """Time of an event in PostgreSQL's microseconds. Raises PoisonError where the id or the time cannot be one."""
    if len(event.id) != 16:
        raise PoisonError(f"an id has {len(event.id)} bytes, not 16")
    if event.at != event.at:
        raise PoisonError("a time is not a number")
    micros = round(event.at * 1e6)
    if not _EARLIEST_US <= micros <= _LATEST_US:
        raise PoisonError(f"a time is out of range: {event.at}")
    return micros - EPOCH_US


def blocks(rows: Iterable[bytes]) -> Iterator[bytes]:
    """A whole COPY stream, header to trailer, in blocks of about BLOCK bytes."""
    held, size = [HEADER], len(HEADER)
    for row in rows:
        held.append(row)
        size += len(row)
        if size >= BLOCK:
            yield b"".join(held)
            held, size = [], 0
    held.append(TRAILER)
    yield b"".join(held)
