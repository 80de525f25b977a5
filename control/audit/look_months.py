"""The months of the data-access log: made ahead, and dropped by retention after a signed
checkpoint; and checking the log, with what was dropped.

A checkpoint is an entry of the audit log: which looks a month held, from when to when, the hash
before the first and the hash of the last, signed with the key that signs config documents. So what
remains can still be checked, and that it is all that should remain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.conf import settings
from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from control import locks, patience
from control.audit import app_looks, chain
from control.audit.actors import SYSTEM
from control.audit.chain import FIRST_PREV, Break
from control.deciders import keys
from control.errors import ControlError
from control.locks import Lock
from control.models import AuditEntry, Look
from decider.contracts.config import key_id

ACTION = "looks.checkpoint"
# Months made ahead. Chosen: a worker may be away that long before a look makes its month itself.
AHEAD = 2
# Seconds. Chosen: whoever reads or records looks waits behind a drop that waits, so it gives up
# soon; the next hour tries again.
LOCK_S = 1.0
# Seconds. Chosen: reading a month of millions of looks takes longer than a page may.
STATEMENT_S = 300.0
# Signed in front, so that no signature of something else passes for a checkpoint's, nor the other
# way round.
_DOMAIN = b"sluice-looks-checkpoint\x00"
_MONTH = re.compile(r"control_look_(\d{6})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a dropped month held, as it is signed."""

    partition: str
    first_seq: int
    last_seq: int
    entries: int
    first_at: str
    """ISO 8601, UTC; likewise `last_at`."""
    last_at: str
    prev_hash: str
    """Hash before the first look."""
    last_hash: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """A month that was dropped, as the audit log tells it."""

    at: datetime
    """When it was dropped."""
    audit_seq: int
    """Number of its checkpoint in the audit log."""
    entries: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class LooksState:
    """What a check of the whole data-access log found."""

    entries: int
    dropped: int
    """Looks in months that were dropped after a checkpoint."""
    head: str
    broken: Break | None


def ensure(now: datetime | None = None) -> int:
    """Make the partitions of this month and the next `AHEAD` (UTC). Return how many were made."""
    month = _first_of(now or timezone.now())
    made = 0
    for _ in range(AHEAD + 1):
        with connection.cursor() as cursor:
            cursor.execute("SELECT control_make_look_month(%s)", [month])
            made += cursor.fetchall() == [(True,)]
        month = _next(month)
    return made


def drop_old(keep_days: int, now: datetime | None = None) -> int:
    """Drop the months that ended more than `keep_days` days ago, oldest first, each with its
    checkpoint in one transaction. Return how many were dropped.

    Raise ControlError for a month whose chain is broken, which is kept, and when the key that signs
    cannot be read.
    """
    since = (now or timezone.now()) - timedelta(days=keep_days)
    old = [month for month in existing() if _next(month) <= since]
    return sum(_drop(month, keep_days) for month in old)


def existing() -> list[datetime]:
    """Return the first moments (UTC) of the months that have a partition, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'control_look'::regclass"
        )
        matches = [_MONTH.fullmatch(name) for (name,) in cursor.fetchall()]
    months = (datetime.strptime(m[1], "%Y%m").replace(tzinfo=UTC) for m in matches if m)
    return sorted(months)


def dropped() -> list[Dropped]:
    """Return the months that were dropped, latest first."""
    return [
        Dropped(
            entry.at,
            entry.seq,
            point.entries,
            datetime.fromisoformat(point.first_at),
            datetime.fromisoformat(point.last_at),
        )
        for entry in _checkpoints().reverse()
        if (point := _read(entry)) is not None
    ]


def verify() -> LooksState:
    """Check every checkpoint and its signature, then every look that is kept: they must follow one
    another without a gap.
    """
    while True:
        points = list(_checkpoints())
        found = _verify_after(points)
        # a month that was dropped meanwhile is missing here and has its checkpoint now
        if found.broken is None or len(points) == _checkpoints().count():
            return found


def _checkpoints() -> QuerySet[AuditEntry]:
    """Return the entries of the audit log that are checkpoints, in order."""
    return AuditEntry.objects.filter(action=ACTION).order_by("seq")


def _verify_after(points: list[AuditEntry]) -> LooksState:
    end = _End(0, FIRST_PREV)
    for entry in points:
        point = _read(entry)
        if why := _wrong(entry, point, end):
            said = f"the checkpoint in row {entry.seq} of the audit log: {why}"
            return LooksState(0, end.seq, end.hash, Break(end.seq + 1, said))
        assert point is not None  # it would be wrong
        end = _End(point.last_seq, point.last_hash)
    entries, head = 0, end.hash
    for look, why in _judged(Look.objects.all(), end):
        if why:
            return LooksState(entries, end.seq, head, Break(look.seq, why))
        entries, head = entries + 1, look.hash
    return LooksState(entries, end.seq, head, None)


@dataclass(frozen=True, slots=True)
class _End:
    """The look that the next one continues."""

    seq: int
    hash: str


def _judged(looks: QuerySet[Look], end: _End) -> Iterator[tuple[Look, str]]:
    """Yield each look, in order, with what is wrong with it, "" for an intact one."""
    seq, head = end.seq, end.hash
    # in chunks from the server: the whole log need not fit into memory
    for look in looks.order_by("at", "seq").iterator(chunk_size=2000):
        seq += 1
        if look.seq != seq:
            yield look, f"look {seq} is missing"
        elif look.prev_hash != head:
            yield look, "it does not continue the look before it"
        elif look.hash != app_looks.digest(look):
            yield look, "its content is not what was written"
        else:
            yield look, ""
        head = look.hash


def _wrong(entry: AuditEntry, point: Checkpoint | None, end: _End) -> str:
    """Return what is wrong with a checkpoint that must continue `end`, "" for a right one."""
    if point is None:
        return "it cannot be read"
    if (point.first_seq, point.prev_hash) != (end.seq + 1, end.hash):
        return "it does not continue what was dropped before"
    if point.entries != point.last_seq - point.first_seq + 1:
        return "its numbers do not agree"
    after = entry.after or {}
    key = keys.load_public_keys(settings.SLUICE_KEYS).get(str(after.get("key")))
    if key is None:
        return "it is signed by a key that is not in config.pub"
    return "" if _is_signed(point, str(after.get("signature")), key) else "its signature is wrong"


def _is_signed(point: Checkpoint, signature: str, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(bytes.fromhex(signature), _message(point))
    except (ValueError, InvalidSignature):
        return False
    return True


def _message(point: Checkpoint) -> bytes:
    """Return the bytes that are signed."""
    return _DOMAIN + json.dumps(asdict(point), sort_keys=True, separators=(",", ":")).encode()


def _read(entry: AuditEntry) -> Checkpoint | None:
    """Return the checkpoint of an entry; None when it holds none."""
    try:
        point = msgspec.convert(entry.after, Checkpoint)
        # texts that are no times are no checkpoint either
        datetime.fromisoformat(point.first_at), datetime.fromisoformat(point.last_at)
    except (msgspec.ValidationError, ValueError):
        return None
    return point


def _drop(month: datetime, keep_days: int) -> bool:
    """Drop a month, with its checkpoint in the same transaction. Return False when another process
    has dropped it. Raise ControlError.
    """
    key = keys.load_signing_key(settings.SLUICE_KEYS)
    with chain.changing():
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        locks.hold(Lock.LOOKS_KEPT)
        if month not in existing():
            return False
        name = f"control_look_{month:%Y%m}"
        point = _checkpoint(month, name)
        with connection.cursor() as cursor:
            # the only way: no program owns the table
            cursor.execute("SELECT control_drop_look_month(%s)", [month])
        # a month without looks takes nothing away
        if point is not None:
            _note(point, month, keep_days, key)
    return True


def _note(point: Checkpoint, month: datetime, keep_days: int, key: Ed25519PrivateKey) -> None:
    """Append a signed checkpoint to the audit log."""
    signature = key.sign(_message(point)).hex()
    chain.append(
        by=SYSTEM,
        reason=f"Looks are kept for {keep_days:,} days (SLUICE_KEEP_LOOKS_DAYS).",
        action=ACTION,
        subject=point.partition,
        summary=f"dropped {point.entries:,} looks of {month:%B %Y} from the data-access log",
        after={**asdict(point), "key": key_id(key.public_key()), "signature": signature},
    )


def _checkpoint(month: datetime, name: str) -> Checkpoint | None:
    """Return the checkpoint of the oldest month that is kept, after checking each of its looks;
    None when it has none. Raise ControlError when its chain is broken.
    """
    newest = _checkpoints().last()
    before = _read(newest) if newest else None
    end = _End(before.last_seq, before.last_hash) if before else _End(0, FIRST_PREV)
    first: Look | None = None
    last: Look | None = None
    for look, why in _judged(Look.objects.filter(at__gte=month, at__lt=_next(month)), end):
        if why:
            raise ControlError(
                f"The looks of {month:%B %Y} are kept, though they are old: look {look.seq} breaks"
                f" the chain of the data-access log, as {why}. See `manage.py audit verify`."
            )
        first, last = first or look, look
    return _piece(name, first, last) if first and last else None


def _piece(name: str, first: Look, last: Look) -> Checkpoint:
    """Return the checkpoint of an unbroken piece of the chain."""
    return Checkpoint(
        partition=name,
        first_seq=first.seq,
        last_seq=last.seq,
        entries=last.seq - first.seq + 1,
        first_at=first.at.astimezone(UTC).isoformat(timespec="microseconds"),
        last_at=last.at.astimezone(UTC).isoformat(timespec="microseconds"),
        prev_hash=first.prev_hash,
        last_hash=last.hash,
    )


def _first_of(moment: datetime) -> datetime:
    """Return the first moment (UTC) of the month that holds `moment`."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next(month: datetime) -> datetime:
    """Return the first moment of the next month."""
    # 32 days after the first lie in the next month, however long this one is
    return _first_of(month + timedelta(days=32))
