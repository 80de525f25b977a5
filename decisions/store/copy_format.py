"""Decision events as rows of PostgreSQL's binary COPY format (PostgreSQL documentation, COPY,
"Binary Format").

Each row is a 16-bit field count, then per field a 32-bit length and its bytes, all big endian. The
fixed-width columns lead, so one `struct` call packs all of them with their lengths; what is left
are texts and byte strings.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from msgspec.structs import astuple

from decider.contracts.event import Event

COLUMNS = (
    "id",
    "at",
    "tier",
    "action",
    "observed",
    "stage",
    "reason",
    "retry_after",
    "arm",
    "ml_state",
    "config_version",
    "inclusion_probability",
    "latency_us",
    "payload_bytes",
    "risk",
    "value",
    "raw_risk",
    "raw_value",
    "request_id",
    "region",
    "node",
    "app",
    "tenant",
    "token_digest",
    "method",
    "endpoint",
    "service",
    "model",
    "feature_schema",
    "features",
    "signals",
)
COPY = f"COPY decisions_decision ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER = b"\xff\xff"
# Bytes handed to PostgreSQL at once.
BLOCK = 120 * 1024

# 2000-01-01 UTC, where PostgreSQL's time begins, in microseconds of unix time.
EPOCH_US = 946_684_800_000_000
_EARLIEST_US = 0
_LATEST_US = 7_258_118_400_000_000  # 2200-01-01: a later clock is a broken one

_N = len(COLUMNS)
_LEAD = ">h i16s iq ih ih i? ih ih id ih ih iq id id iq".replace(" ", "")
_SCORED = struct.Struct(_LEAD + "idididid")
_UNSCORED = struct.Struct(_LEAD)
_FLOAT = struct.Struct(">id")
_LENGTH = struct.Struct(">i")
_NULL = _LENGTH.pack(-1)
_NULLS = 4 * _NULL


class PoisonError(ValueError):
    """An event that no table may hold: a value out of its range, NUL in a text, an id of the wrong
    size.
    """


class Texts(dict[str, bytes]):
    """Texts as length and UTF-8 bytes, remembered: nearly all of them come again. Raises
    PoisonError on NUL and lone surrogates.
    """

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
    except (struct.error, OverflowError, ValueError) as error:
        raise PoisonError(f"a value is out of its range: {error}") from error


def _pack(
    event: Event,
    texts: Texts,
    fields=astuple,
    scored=_SCORED.pack,
    length=_LENGTH.pack,
    join=b"".join,
) -> bytes:
    """The hot loop of ingest: one tuple of all fields, one struct call, one join; callables are
    bound as defaults.
    """

    (
        id,
        at,
        request_id,
        region,
        node,
        app,
        tenant,
        tier,
        token_digest,
        method,
        endpoint,
        service,
        action,
        observed,
        stage,
        reason,
        retry_after,
        risk,
        value,
        raw_risk,
        raw_value,
        model,
        arm,
        ml_state,
        config_version,
        feature_schema,
        features,
        signals,
        probability,
        latency_us,
        payload_bytes,
    ) = fields(event)
    micros = round(at * 1e6)
    if len(id) != 16 or not _EARLIEST_US <= micros <= _LATEST_US:
        raise PoisonError(f"an id of {len(id)} bytes or a time out of range: {at}")
    if risk is None or value is None or raw_risk is None or raw_value is None:
        lead = _UNSCORED.pack(
            _N,
            16,
            id,
            8,
            micros - EPOCH_US,
            2,
            tier,
            2,
            action,
            1,
            observed,
            2,
            stage,
            2,
            reason,
            8,
            retry_after,
            2,
            arm,
            2,
            ml_state,
            8,
            config_version,
            8,
            probability,
            8,
            latency_us,
            8,
            payload_bytes,
        ) + (
            _NULLS
            if risk is value is raw_risk is raw_value
            else _some((risk, value, raw_risk, raw_value))
        )
    else:
        lead = scored(
            _N,
            16,
            id,
            8,
            micros - EPOCH_US,
            2,
            tier,
            2,
            action,
            1,
            observed,
            2,
            stage,
            2,
            reason,
            8,
            retry_after,
            2,
            arm,
            2,
            ml_state,
            8,
            config_version,
            8,
            probability,
            8,
            latency_us,
            8,
            payload_bytes,
            8,
            risk,
            8,
            value,
            8,
            raw_risk,
            8,
            raw_value,
        )
    asked = _pack_text(request_id)
    return join(
        (
            lead,
            asked,
            texts[region],
            texts[node],
            texts[app],
            texts[tenant],
            texts[token_digest],
            texts[method],
            texts[endpoint],
            texts[service],
            texts[model],
            texts[feature_schema],
            length(len(features)),
            features,
            length(len(signals)),
            signals,
        )
    )


def _some(scores: tuple[float | None, ...]) -> bytes:
    """Scores of which some are missing."""
    return b"".join(_NULL if x is None else _FLOAT.pack(8, x) for x in scores)


def blocks(events: Iterable[Event], texts: Texts) -> Iterator[bytes]:
    """A whole COPY stream, header to trailer, in blocks of about BLOCK bytes. Raises
    PoisonError.
    """
    held, size = [HEADER], len(HEADER)
    for event in events:
        row = pack(event, texts)
        held.append(row)
        size += len(row)
        if size >= BLOCK:
            yield b"".join(held)
            held, size = [], 0
    held.append(TRAILER)
    yield b"".join(held)
