"""Anchors: the end of the audit log, signed and kept in a file outside the database.

Whoever owns the database can change an entry and compute all hashes anew, or cut the end off, and
the chain holds. An anchor says which hash an entry had at a time, under a key that no role of the
database can read, so what was anchored once can no longer be rewritten unnoticed. Each anchor also
holds the hash of the line before it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.conf import settings

from control.audit.chain import FIRST_PREV
from control.deciders import keys
from control.errors import ControlError
from control.models import AuditEntry
from decider.contracts.config import key_id

# An anchor is made when the log has grown, and after this time though it has not, so that an
# auditor sees that anchors go on. Chosen: with a task every ten minutes at least one an hour.
RENEW = timedelta(minutes=45)
# Age at which the newest anchor is too old. Chosen: twice an hour, so that a restart is no finding.
TOO_OLD = timedelta(hours=2)
# Characters of a line. Chosen: an anchor has about 600; what is longer is none.
MOST_LINE = 2000
# Entries asked for in one query. Chosen: an answer of a few hundred kilobytes.
_AT_ONCE = 2000
# Signed in front, so that no signature of something else passes for an anchor's.
_DOMAIN = b"sluice-audit-anchor\x00"


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file."""

    number: int
    """From 1, without a gap."""
    seq: int
    hash: str
    at: str
    """ISO 8601, UTC."""
    installation: str
    previous: str
    """SHA-256 of the line before, in hexadecimal; zeros in the first."""
    key: str
    """Id of the key in `config.pub` that signed this."""
    signature: str = ""
    """Ed25519 over all other fields, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The first anchor that is wrong, by its line (from 1), and why."""

    line: int
    why: str


@dataclass(frozen=True, slots=True)
class AnchorsState:
    """What a check of all anchors found."""

    anchors: int
    """How many are right before the first that is not."""
    newest: Anchor | None
    broken: Disagreement | None


class AnchorError(ControlError):
    """The end of the log cannot be anchored. The text says why."""


def path() -> Path:
    """Return where the anchors are: SLUICE_AUDIT_ANCHORS, else below the data folder."""
    return Path(settings.SLUICE_AUDIT_ANCHORS or Path(settings.SLUICE_VAR) / "audit-anchors.jsonl")


def lines() -> list[bytes]:
    """Return the lines of the file, none when there is no file. Raise AnchorError."""
    try:
        data = path().read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AnchorError(f"{path()} cannot be read: {error.strerror or error}.") from error
    *whole, rest = data.split(b"\n")
    # a last line without its end was cut off
    return [*whole, rest] if rest else whole


def append(now: datetime | None = None) -> Anchor | None:
    """Anchor the end of the log as it is now; return the anchor, None when nothing is to be
    anchored yet.

    Raise AnchorError when the file cannot be written, and when the log no longer has the entry that
    was anchored last: then someone has rewritten it, and an anchor of what is there would cover
    that up. Raise KeysError.
    """
    now = now or datetime.now(UTC)
    ends = AuditEntry.objects.order_by("-seq").values_list("seq", "hash")
    if not ends.exists():
        return None
    try:
        with _alone() as file:
            known = lines()
            # read now: who had the file before may have anchored a later end
            head = ends[0]
            last = _read(known[-1]) if known else None
            if last is not None:
                if why := _differs(last, dict([_entry(last.seq)])):
                    raise AnchorError(f"Anchor {last.number} of {path()}: {why}.")
                young = now - datetime.fromisoformat(last.at) < RENEW
                if young and (last.seq, last.hash) == head:
                    return None
            anchor = _signed(known, last, *head, now)
            _write(file, msgspec.json.encode(anchor))
    except OSError as error:
        raise AnchorError(f"{path()} cannot be written: {error.strerror or error}.") from error
    return anchor


@contextmanager
def _alone() -> Iterator[int]:
    """Open the file for one program alone; make it, for its owner only."""
    path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(path(), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _write(file: int, line: bytes) -> None:
    size = os.fstat(file).st_size
    # a line that was cut off stays, as evidence
    start = b"\n" if size and os.pread(file, 1, size - 1) != b"\n" else b""
    os.write(file, start + line + b"\n")
    os.fsync(file)
    if not size:
        # and that there is such a file
        folder = os.open(path().parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _signed(known: list[bytes], last: Anchor | None, seq: int, own: str, now: datetime) -> Anchor:
    key = keys.load_signing_key(settings.SLUICE_KEYS)
    anchor = Anchor(
        # after a line that cannot be read, by its place
        number=last.number + 1 if last else len(known) + 1,
        seq=seq,
        hash=own,
        at=now.astimezone(UTC).isoformat(timespec="seconds"),
        installation=keys.load_installation(settings.SLUICE_KEYS),
        previous=_digest(known[-1]) if known else FIRST_PREV,
        key=key_id(key.public_key()),
    )
    return msgspec.structs.replace(anchor, signature=key.sign(_message(anchor)).hex())


def verify(now: datetime | None = None) -> AnchorsState:
    """Check every anchor, in order: its signature, and that its entry has its hash. Raise
    AnchorError when there is no file though the log has entries. Raise KeysError.
    """
    now, known = now or datetime.now(UTC), lines()
    there = AuditEntry.objects.exists()
    if there and not known:
        raise AnchorError(
            f"There are no anchors of the audit log: {path()} is missing or empty, so nothing shows"
            " whether the log was rewritten. `manage.py audit anchor` makes the first one; the"
            " worker makes one an hour."
        )
    checked = _Checked()
    for start in range(0, len(known), _AT_ONCE):
        some = [_read(line) for line in known[start : start + _AT_ONCE]]
        found = dict(_hashes({one.seq for one in some if one is not None}))
        for offset, anchor in enumerate(some):
            place = start + offset
            why = checked.judge(anchor, known[place - 1] if place else None, found)
            if why or anchor is None:
                return AnchorsState(place, checked.last, Disagreement(place + 1, why))
    newest = checked.last
    if newest is not None and there and now - datetime.fromisoformat(newest.at) > TOO_OLD:
        hours = (now - datetime.fromisoformat(newest.at)).total_seconds() / 3600
        why = f"it is the newest and {hours:,.1f} hours old: newer ones were cut off, or none made"
        return AnchorsState(len(known), newest, Disagreement(len(known), why))
    return AnchorsState(len(known), newest, None)


class _Checked:
    """Judges one anchor after the other."""

    def __init__(self) -> None:
        self.last: Anchor | None = None
        self._own = keys.load_installation(settings.SLUICE_KEYS)
        self._keys = keys.load_public_keys(settings.SLUICE_KEYS)

    def judge(self, anchor: Anchor | None, before: bytes | None, hashes: dict[int, str]) -> str:
        """Return what is wrong with an anchor that follows the line `before`, "" for a right one.
        `hashes`: of the log's entries, by number.
        """
        if anchor is None:
            return "it cannot be read: it was cut off or changed"
        if why := self._wrong(anchor, before) or _differs(anchor, hashes):
            return why
        self.last = anchor
        return ""

    def _wrong(self, anchor: Anchor, before: bytes | None) -> str:
        last = self.last
        if anchor.installation != self._own:
            return "it is of another installation"
        if (key := self._keys.get(anchor.key)) is None:
            return "it is signed by a key that is not in config.pub"
        if not _is_signed(anchor, key):
            return "its signature is wrong"
        if anchor.number != (last.number if last else 0) + 1:
            return f"it has number {anchor.number}: others before it are missing"
        if anchor.previous != (FIRST_PREV if before is None else _digest(before)):
            return "it does not continue the one before it"
        if last is not None and anchor.seq < last.seq:
            return f"it is about entry {anchor.seq}, and the one before it about {last.seq}"
        return ""


def _differs(anchor: Anchor, hashes: dict[int, str]) -> str:
    """Return how the log differs from an anchor, "" when it does not."""
    found = hashes.get(anchor.seq)
    if not found:
        return (
            f"entry {anchor.seq} of the audit log, which was there at {anchor.at}, is gone: the log"
            " was cut off"
        )
    if found != anchor.hash:
        return (
            f"entry {anchor.seq} of the audit log has another hash than at {anchor.at}: it or one"
            " before it was rewritten"
        )
    return ""


def _entry(seq: int) -> tuple[int, str]:
    found = AuditEntry.objects.filter(seq=seq).values_list("hash", flat=True).first()
    return seq, found or ""


def _hashes(numbers: set[int]) -> list[tuple[int, str]]:
    return list(AuditEntry.objects.filter(seq__in=numbers).values_list("seq", "hash"))


def _read(line: bytes) -> Anchor | None:
    """Return the anchor of a line; None when it holds none."""
    if len(line) > MOST_LINE:
        return None
    try:
        anchor = msgspec.json.decode(line, type=Anchor)
        # a text that is no time, or one without its zone, is no anchor either
        at = datetime.fromisoformat(anchor.at)
    except (msgspec.MsgspecError, ValueError):
        return None
    # as wide as the column of numbers
    return anchor if at.tzinfo and 0 < anchor.seq < 2**63 else None


def _message(anchor: Anchor) -> bytes:
    """Return the bytes that are signed."""
    said = msgspec.structs.asdict(anchor)
    del said["signature"]
    return _DOMAIN + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def _is_signed(anchor: Anchor, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(bytes.fromhex(anchor.signature), _message(anchor))
    except (ValueError, InvalidSignature):
        return False
    return True


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
