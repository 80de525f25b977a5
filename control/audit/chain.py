"""The audit log: appending to its hash chain, and checking the chain.

Each entry's hash is SHA-256 over the hash before it and the entry's canonical JSON, so that
changing, removing or inserting one breaks every hash after it (Schneier and Kelsey 1999, Secure
audit logs to support computer forensics).

Who appends must know the end of the chain, so appenders take turns. They do so for milliseconds: a
change (`changing`) appends its entries by its last statement, so that nobody waits while it checks,
reads or stores something else.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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


class _Change(threading.local):
    """The change that this thread is making."""

    entries: list[AuditEntry] | None = None
    """What it will append; None outside a change."""


_change = _Change()


@contextmanager
def changing() -> Iterator[None]:
    """Open the transaction of a change: what the body stores and the entries it appends commit
    together or not at all.

    Within another change it is a part of that one, and undone alone when it raises. Raise
    RuntimeError inside any other transaction, which would hold the chain up until it ends.
    """
    if _change.entries is not None:
        before = len(_change.entries)
        try:
            with transaction.atomic():
                yield
        except BaseException:
            del _change.entries[before:]
            raise
        return
    # durable: the commit follows the last statement, whoever calls
    with transaction.atomic(durable=True):
        _change.entries = []
        try:
            yield
            _write(_change.entries)
        finally:
            _change.entries = None


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
    """Append one entry to the chain and return it; it has its number and hash when the change
    ends. Call it in the change (`changing`) that the entry describes; alone it is a change by
    itself. Raise Refused when the reason is empty or cannot be stored, and when only the disk's
    reserve is left.
    """
    disk.check_room_for_changes(by)
    entry = AuditEntry(
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
    with changing():
        assert _change.entries is not None
        _change.entries.append(entry)
    return entry


def _write(entries: Sequence[AuditEntry]) -> None:
    """Insert entries at the end of the chain, in order, by one statement. The chain is locked from
    here until the transaction ends.
    """
    if not entries:
        return
    said = [{"entry": _columns(entry), "rest": _rest(entry)} for entry in entries]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq, prev_hash, hash FROM control_append_entries(%s)",
            [json.dumps(said, allow_nan=False)],
        )
        for entry, (seq, prev_hash, own_hash) in zip(entries, cursor.fetchall(), strict=True):
            entry.seq, entry.prev_hash, entry.hash = seq, prev_hash, own_hash
            entry._state.adding = False


def _columns(entry: AuditEntry) -> dict[str, object]:
    """Return the columns that the chain does not make, by name, as JSON takes them."""
    return {
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "actor_login": entry.actor_login,
        "actor_role": entry.actor_role,
        "action": entry.action,
        "subject": entry.subject,
        "summary": entry.summary,
        "reason": entry.reason,
        "before": entry.before,
        "after": entry.after,
        "config_version": entry.config_version_id,
    }


def digest(entry: AuditEntry) -> str:
    """Return the hash that an entry must have, 64 hexadecimal digits."""
    text = f'["{entry.prev_hash}",{entry.seq},{_rest(entry)}'
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _rest(entry: AuditEntry) -> str:
    """Return what is hashed of an entry behind the hash before and the number: the rest of a
    canonical JSON list.
    """
    content = [
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
    return json.dumps(
        content, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False
    )[1:]


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
