"""Flips made while PostgreSQL was down: one file each, until PostgreSQL has them.

A file is written whole or not at all. It moves to `done/` only after PostgreSQL has committed it.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal

import msgspec
from django.conf import settings

from control.errors import ControlError
from decider.contracts.files import write_atomically


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One flip, with the document that was signed for it."""

    at: float
    """Unix seconds."""
    verb: Literal["engage", "extend", "clear"]
    name: str
    reason: str
    until: float | None
    by: str
    version: int
    signed: bytes


def directory() -> Path:
    """Return the folder of the journal."""
    return settings.SLUICE_VAR / "journal"


def write(entry: Entry) -> Path:
    """Write an entry to the disk, flushed, and return its path. Raise ControlError when it cannot
    be written.
    """
    # the version leads, padded, so that names sort in the order of the flips
    path = directory() / f"{entry.version:012d}-{uuid.uuid4().hex[:8]}.json"
    try:
        write_atomically(path, msgspec.json.encode(entry))
    except OSError as error:
        raise ControlError(
            f"The journal in {directory()} cannot be written: {error.strerror or error}."
        ) from error
    return path


def waiting() -> list[Path]:
    """Return the entries not yet imported, oldest version first."""
    return sorted(directory().glob("*.json"))


def read_entry(path: Path) -> Entry:
    """Return the journal entry in a file. Raise ControlError when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Entry)
    except (OSError, msgspec.DecodeError) as error:
        raise ControlError(f"The journal entry {path.name} cannot be read: {error}.") from error


def settle(path: Path) -> None:
    """Move an entry that PostgreSQL has committed to `done/`."""
    done = directory() / "done"
    # chosen: moved, not deleted. If PostgreSQL is restored from an older backup, the file is the
    # only record of who flipped what since.
    done.mkdir(exist_ok=True)
    path.replace(done / path.name)
