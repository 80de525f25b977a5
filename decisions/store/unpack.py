"""Batches as they come from the stream: unpacked, and the events in them that cannot be read set
apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import msgspec

from decider.contracts import event as events
from decider.contracts.event import Event, EventBatch, SealedBatch
from decisions.store import faults

# What reading a packed value may raise. RecursionError: values nested in each other without end.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
# Unix seconds, the year 2191: a later clock is a broken one.
_LATEST = 7e9
# Above any number of events that a run can send, with room for a sum in a bigint.
_MOST_EVENTS = 2**62
# How msgspec names a field of an event within a packed list.
_PLACE = re.compile(r"\$\[(\d{1,3})\]")


class UnreadableError(ValueError):
    """Bytes that are no batch, or a batch whose own fields cannot be stored."""


@dataclass(frozen=True, slots=True)
class Bad:
    """An event that cannot be stored, packed, and why."""

    raw: bytes
    reason: str
    sqlstate: str = ""


@dataclass(slots=True)
class Unpacked:
    """A batch with the events that can be read, and those that cannot."""

    batch: EventBatch
    bad: list[Bad] = field(default_factory=list)


def unpack(raw: bytes) -> Unpacked:
    """Read a batch. Raise UnreadableError when nothing of it can be used."""
    try:
        found = Unpacked(events.decode_batch(raw))
    except UNREADABLE:
        found = _unpack_singly(raw)
    _check(found.batch)
    return found


def read_event(raw: bytes | msgspec.Raw) -> Event:
    """Read one packed event. Raise UnreadableError, which names the field that is wrong."""
    try:
        return events.decode_event(raw)
    except UNREADABLE as error:
        raise UnreadableError(_named(error)) from error


def _unpack_singly(raw: bytes) -> Unpacked:
    """Read a batch event by event, so that a bad one costs only itself. Raise UnreadableError."""
    try:
        sealed: SealedBatch = events.decode_sealed(raw)
    except UNREADABLE as error:
        raise UnreadableError(faults.tidy(f"These bytes are no batch: {error}")) from error
    good, bad = [], []
    for one in sealed.events:
        try:
            good.append(read_event(one))
        except UnreadableError as error:
            bad.append(Bad(bytes(one), str(error)))
    head = (sealed.id, sealed.node, sealed.sent_at, sealed.dropped)
    return Unpacked(EventBatch(*head, good, sealed.run, sealed.first), bad)


def _named(error: Exception) -> str:
    """Return what is wrong with an event, with the field's name for its place in the list."""
    fields = Event.__struct_fields__

    def name(match: re.Match[str]) -> str:
        place = int(match[1])
        return fields[place] if place < len(fields) else match[0]

    return faults.tidy(_PLACE.sub(name, str(error)[: faults.MOST_REASON]))


def _check(batch: EventBatch) -> None:
    """Check that a batch's own fields can be stored. Raise UnreadableError."""
    if len(batch.id) != 16 or len(batch.run) not in (0, 16):
        raise UnreadableError("The id of the batch or of its run does not have 16 bytes")
    # NaN fails every comparison
    if not 0 <= batch.sent_at < _LATEST:
        raise UnreadableError(f"The time {batch.sent_at} of the batch is out of range")
    for count in (batch.dropped, batch.first):
        if not 0 <= count < _MOST_EVENTS:
            raise UnreadableError(f"A count of the batch is out of range: {count}")
    if "\x00" in batch.node or len(batch.node) > events.MOST_NAME:
        raise UnreadableError("The name of the node contains a NUL character or is too long")
