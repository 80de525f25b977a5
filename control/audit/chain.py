"""The audit log: appending to its hash chain, and checking the chain.

Each entry's hash is SHA-256 over the hash before it and the entry's canonical JSON, so that
changing, removing or inserting one breaks every hash after it (Schneier and Kelsey 1999, Secure
audit logs to support computer forensics).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection, transaction
from django.utils import timezone

from control import disk
from control.audit.actors import Actor
from control.errors import Refused
from control.models import AuditEntry, ConfigVersion

Json = dict[str, object] | None

# Stands for the hash before the first entry: no entry hashes to zeros.
FIRST_PREV = "0" * 64
# Characters, as wide as the column.
REASON_MAX = 1000
# Advisory lock that every operator change holds until it commits, so that versions and entries
# never interleave. "SLUC" in ASCII: all advisory locks of a database share one space of keys.
LOCK = 0x534C_5543


@dataclass(frozen=True)
class Break:
    """The first entry at which the chain breaks, and why."""

    seq: int
    why: str


@dataclass(frozen=True)
class ChainState:
    """What a check of the whole chain found."""

    entries: int
    head: str
    """Hash of the last entry that holds; write it down elsewhere to notice a cut-off end."""
    broken: Break | None


def lock() -> None:
    """Wait for the lock of operator changes and hold it until the transaction ends. Call it inside
    a transaction, before reading what will be changed.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def check_reason(reason: str) -> str:
    """Return the reason without surrounding space. Raise Refused when it is empty or cannot be
    stored.
    """
    reason = reason.strip()
    if not reason:
        raise Refused("A reason is needed: what is wrong, and where to read more.")
    if len(reason) > REASON_MAX:
        raise Refused(f"The reason has {len(reason):,} characters; the limit is {REASON_MAX:,}.")
    # PostgreSQL cannot store NUL at all, and the others garble a terminal or a spreadsheet
    if any(ord(c) < 32 and c not in "\n\r\t" for c in reason):
        raise Refused("The reason contains a control character. Remove it.")
    return reason


@transaction.atomic
def append(
    *,
    by: Actor,
    reason: str,
    action: str,
    subject: str,
    summary: str,
    before: Json = None,
    after: Json = None,
    config_version: ConfigVersion | None = None,
    at: datetime | None = None,
) -> AuditEntry:
    """Append one entry to the chain and return it. Call it in the transaction of the change that
    the entry describes. Raise Refused when the reason is empty or cannot be stored, and when only
    the disk's reserve is left.
    """
    # first, as it may measure: nobody waits for the lock meanwhile
    disk.check_room_for_changes(by)
    # before the last entry is read: two that read the same one would fork the chain
    lock()
    entry = _next(
        _last(),
        at=at or timezone.now(),
        actor=by.name,
        actor_login=by.login,
        actor_role=by.role,
        action=action,
        subject=subject,
        summary=summary,
        reason=check_reason(reason),
        before=_plain(before),
        after=_plain(after),
        config_version=config_version,
    )
    # insert only: otherwise `save` would first look for a row to update
    entry.save(force_insert=True)
    return entry


@dataclass(frozen=True, slots=True)
class Said:
    """The part of an entry that differs from the other entries written with it."""

    subject: str
    summary: str
    after: Json = None


@transaction.atomic
def append_all(said: Sequence[Said], *, by: Actor, reason: str, action: str) -> list[AuditEntry]:
    """Append entries that share person, reason and action, in order, with one statement, and return
    them. Raise Refused when the reason is empty or cannot be stored.
    """
    lock()
    # one time for all entries, as they record one act
    reason, at, end, made = check_reason(reason), timezone.now(), _last(), []
    for one in said:
        entry = _next(
            end,
            at=at,
            actor=by.name,
            actor_login=by.login,
            actor_role=by.role,
            action=action,
            subject=one.subject,
            summary=one.summary,
            reason=reason,
            after=_plain(one.after),
        )
        end = (entry.seq, entry.hash)
        made.append(entry)
    return AuditEntry.objects.bulk_create(made)


def _last() -> tuple[int, str]:
    """Return number and hash of the last entry; 0 and zeros for an empty log."""
    return AuditEntry.objects.order_by("-seq").values_list("seq", "hash").first() or (0, FIRST_PREV)


def _next(last: tuple[int, str], **fields: object) -> AuditEntry:
    """Return the entry that continues the chain after the one with this number and hash."""
    entry = AuditEntry(seq=last[0] + 1, prev_hash=last[1], **fields)
    entry.hash = digest(entry)
    return entry


def digest(entry: AuditEntry) -> str:
    """Return the hash that an entry must have, 64 hexadecimal digits."""
    content = [
        entry.prev_hash,
        entry.seq,
        # in UTC: the same moment has one text, whatever the connection's time zone
        entry.at.astimezone(UTC).isoformat(timespec="microseconds"),
        entry.actor,
        entry.actor_login,
        entry.actor_role,
        entry.action,
        entry.subject,
        entry.summary,
        entry.reason,
        entry.before,
        entry.after,
        entry.config_version_id,
    ]
    # canonical: sorted keys and no spaces, as jsonb keeps neither order nor spacing
    text = json.dumps(
        content, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def verify() -> ChainState:
    """Read the whole log in order and check every link."""
    entries, head = 0, FIRST_PREV
    # in chunks from the server: the whole log need not fit into memory
    for entry, why in _judged(AuditEntry.objects.order_by("seq").iterator(chunk_size=2000)):
        if why:
            return ChainState(entries, head, Break(entry.seq, why))
        entries, head = entries + 1, entry.hash
    return ChainState(entries, head, None)


def _judged(entries: Iterable[AuditEntry]) -> Iterator[tuple[AuditEntry, str]]:
    """Yield each entry with what is wrong with it, "" for an intact one."""
    head = FIRST_PREV
    for seq, entry in enumerate(entries, start=1):
        if entry.seq != seq:
            yield entry, f"entry {seq} is missing"
        elif entry.prev_hash != head:
            yield entry, "it does not continue the entry before it"
        elif entry.hash != digest(entry):
            yield entry, "its content is not what was written"
        else:
            yield entry, ""
        head = entry.hash


def _plain(value: Json) -> Json:
    """Return a JSON value as PostgreSQL gives it back: jsonb does not tell 2.0e16 from
    20000000000000000.
    """
    if value is None:
        return None
    plain: dict[str, object] = json.loads(json.dumps(value, allow_nan=False), parse_float=_number)
    return plain


def _number(text: str) -> float | int:
    number = float(text)
    # the hash is made of the text, so a whole number must have one text before and after storing
    return int(number) if number.is_integer() else number
