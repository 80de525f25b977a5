"""Decision events as rows of PostgreSQL's binary COPY format (PostgreSQL documentation, COPY,
"Binary Format").

A row is a 16-bit count of fields, then per field a 32-bit length and its bytes, all big endian. The
fixed-width columns lead, so that one `struct` call packs all of them with their lengths. Texts and
byte strings follow.

Rows are packed in chunks, column by column: `map` over whole columns runs in C, which is faster
than Python code for each row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from operator import attrgetter
from typing import Any

from msgspec.structs import astuple

from decider.contracts.event import Event

# The fixed-width columns and their codes in `struct`. A column is named as its field of `Event`.
_FIXED = {
    "id": "16s",
    "at": "q",
    "tier": "h",
    "action": "h",
    "observed": "?",
    "stage": "h",
    "reason": "h",
    "retry_after": "d",
    "arm": "h",
    "ml_state": "h",
    "config_version": "q",
    "inclusion_probability": "d",
    "latency_us": "d",
    "payload_bytes": "q",
}
# The scores come last among them, because only these may be NULL.
_SCORES = {"risk": "d", "value": "d", "raw_risk": "d", "raw_value": "d"}
# Each request has its own id, so `Texts` has no use for it.
_UNIQUE_TEXT = "request_id"
_TEXTS = (
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
)
_BYTES = ("features", "signals")

COLUMNS = (*_FIXED, *_SCORES, _UNIQUE_TEXT, *_TEXTS, *_BYTES)


def copy_into(table: str) -> str:
    """Return the statement that takes these rows into a table of decisions."""
    return f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"


# The format's signature, then flags and the length of a header extension, both zero.
HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
# A field count of -1 ends the stream.
TRAILER = b"\xff\xff"
# Rows packed and handed to PostgreSQL at once. Chosen: about 120 KB, so that the work per chunk
# hardly counts and memory stays small.
CHUNK = 128

# 2000-01-01 UTC, where PostgreSQL's time begins, in microseconds of unix time.
EPOCH_US = 946_684_800_000_000
# 1970: Sluice made nothing before unix time began.
_EARLIEST_US = 0
# 2200-01-01: a later clock is a broken one.
_LATEST_US = 7_258_118_400_000_000

_LENGTH = struct.Struct(">i")
_SCORE = struct.Struct(">id")
# A length of -1 stands for NULL.
_NULL = _LENGTH.pack(-1)
_NULLS = len(_SCORES) * _NULL

# Fields of events by name, one value per event.
Columns = dict[str, Sequence[Any]]


class PoisonError(ValueError):
    """An event that cannot be stored: a value is out of range, a text contains a NUL character or
    is not valid Unicode, or an id has the wrong size.
    """


class Texts(dict[str, bytes]):
    """Texts as length and UTF-8 bytes, remembered: nearly all of them come again. Raises
    PoisonError on NUL and lone surrogates.
    """

    # Chosen: room for the apps, tokens and endpoints of a large installation, in a few megabytes.
    LIMIT = 50_000

    def __missing__(self, text: str) -> bytes:
        """Pack a text and remember it. Raise PoisonError."""
        if "\x00" in text:
            raise PoisonError("a text contains a NUL character")
        try:
            raw = text.encode()
        except UnicodeEncodeError as error:
            raise PoisonError(f"a text is not valid Unicode: {error.reason}") from error
        packed = _LENGTH.pack(len(raw)) + raw
        if len(self) >= self.LIMIT:
            # clear everything: that costs one packing per text, while an order by use would cost at
            # each look-up
            self.clear()
        self[text] = packed
        return packed


class _FixedPart:
    """The leading part of a row: the field count and columns of fixed width."""

    def __init__(self, codes: dict[str, str]) -> None:
        self._struct = struct.Struct(">h" + "".join(f"i{code}" for code in codes.values()))
        self._lengths = {name: struct.calcsize(f">{code}") for name, code in codes.items()}

    def pack(self, columns: Columns) -> Iterator[bytes]:
        """Yield this part of every row. Raise struct.error for a value that does not fit its
        column.
        """
        arguments: list[Iterable[Any]] = [repeat(len(COLUMNS))]
        for name, length in self._lengths.items():
            arguments += [repeat(length), columns[name]]
        return map(self._struct.pack, *arguments)


_UNSCORED = _FixedPart(_FIXED)
_SCORED = _FixedPart(_FIXED | _SCORES)
_scores_of = attrgetter(*_SCORES)


def pack_rows(events: Iterable[Event], texts: Texts) -> list[bytes]:
    """Return the events as rows: those with all four scores first, then the others.

    Raise PoisonError for an event that cannot be stored.
    """
    scored: list[Event] = []
    unscored: list[Event] = []
    for event in events:
        (unscored if None in _scores_of(event) else scored).append(event)
    try:
        return _pack(scored, texts, _SCORED) + _pack(unscored, texts, _UNSCORED)
    except (struct.error, OverflowError, ValueError) as error:
        raise PoisonError(f"a value cannot be stored: {error}") from error


def _pack(events: list[Event], texts: Texts, fixed: _FixedPart) -> list[bytes]:
    """Return the rows of events that all need the same fixed part."""
    if not events:
        return []
    columns: Columns = dict(
        zip(Event.__struct_fields__, zip(*map(astuple, events), strict=True), strict=True)
    )
    if {*map(len, columns["id"])} != {16}:
        # `struct` would cut or fill an id silently
        raise PoisonError("the id of an event does not have 16 bytes")
    columns["at"] = _postgres_times(columns["at"])
    parts: list[Iterable[bytes]] = [fixed.pack(columns)]
    if fixed is _UNSCORED:
        parts += _pack_partial_scores([columns[name] for name in _SCORES])
    parts += _pack_unique(columns[_UNIQUE_TEXT])
    parts += [map(texts.__getitem__, columns[name]) for name in _TEXTS]
    for name in _BYTES:
        parts += [map(_LENGTH.pack, map(len, columns[name])), columns[name]]
    # not `strict`, as some parts repeat for ever; `zip` stops where the fixed part ends
    return list(map(b"".join, zip(*parts)))  # noqa: B905


def _postgres_times(times: Sequence[float]) -> list[int]:
    """Return unix times (seconds) as microseconds since 2000. Raise PoisonError."""
    micros = [round(at * 1e6) for at in times]
    if min(micros) < _EARLIEST_US or max(micros) > _LATEST_US:
        raise PoisonError(f"a time is out of range: {min(times)} to {max(times)}")
    return [at - EPOCH_US for at in micros]


def _pack_partial_scores(scores: list[Sequence[float | None]]) -> list[Iterable[bytes]]:
    """Return score columns in which any value may be missing."""
    if all(column.count(None) == len(column) for column in scores):
        # the common case: no model was asked
        return [repeat(_NULLS)]
    return [[_NULL if x is None else _SCORE.pack(8, x) for x in column] for column in scores]


def _pack_unique(texts: Sequence[str]) -> list[Iterable[bytes]]:
    """Return the lengths and the UTF-8 bytes of texts. Raise PoisonError."""
    # one search through all of them costs less than one search per text
    if "\x00" in "".join(texts):
        raise PoisonError("a text contains a NUL character")
    raw = [*map(str.encode, texts)]
    return [map(_LENGTH.pack, map(len, raw)), raw]


def blocks(events: Iterable[Event], texts: Texts) -> Iterator[bytes]:
    """Yield a whole COPY stream, header to trailer, in blocks of at most CHUNK rows. Raise
    PoisonError.
    """
    yield HEADER
    left = iter(events)
    while chunk := list(islice(left, CHUNK)):
        yield b"".join(pack_rows(chunk, texts))
    yield TRAILER
