"""Events that the database cannot hold: kept aside with their reason, and replayed or discarded by
a person.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Count, Max, QuerySet
from django.utils import timezone

from control.audit import chain
from control.audit.actors import Actor
from control.errors import NotAllowed, Refused
from control.permissions import holds
from decider.contracts.event import EventBatch, encode_event
from decisions.counts import append
from decisions.models import BuriedEvent
from decisions.models.ingest import MOST_RAW
from decisions.store import copy_format, faults, ledger
from decisions.store.rows import copy_sparing
from decisions.store.unpack import Bad, UnreadableError, read_event, unpack

PERMISSION = "decisions.settle_buriedevent"
SEE = "decisions.view_buriedevent"
# Events that are kept. Chosen: far more than a person looks at, and a flood of bad ones takes at
# most a gigabyte. Beyond it they are counted as discarded.
MOST_KEPT = 2_000
# Events of one replay or discard. Chosen: a page full, done within a second or two.
MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many are kept, and when the last one came."""

    count: int
    newest_at: datetime | None


@dataclass(frozen=True, slots=True)
class ReplayDone:
    """What a replay did."""

    stored: int
    """Events that are stored now."""
    kept: int
    """Events that still cannot be stored."""


# ---- ingest ----


def bury_events(batch: EventBatch, entry: str, bad: Sequence[Bad]) -> int:
    """Keep events of a batch aside, within the transaction that stores the others. Return how many
    there was room for.
    """
    room = max(0, MOST_KEPT - BuriedEvent.objects.count()) if bad else 0
    made = [_row(one, entry, batch, whole=False) for one in bad[:room]]
    BuriedEvent.objects.bulk_create(made)
    return len(made)


def bury_batch(raw: bytes, reason: str, entry: str, batch: EventBatch | None = None) -> bool:
    """Keep a whole batch aside, once. Return whether there is room."""
    if BuriedEvent.objects.count() >= MOST_KEPT:
        return False
    row = _row(Bad(raw, reason), entry, batch, whole=True)
    BuriedEvent.objects.bulk_create([row], ignore_conflicts=True)
    return True


def _row(one: Bad, entry: str, batch: EventBatch | None, *, whole: bool) -> BuriedEvent:
    return BuriedEvent(
        whole=whole,
        entry=entry,
        batch=uuid.UUID(bytes=batch.id) if batch else None,
        run=uuid.UUID(bytes=batch.run) if batch and batch.run else None,
        node=batch.node if batch else "",
        raw=one.raw[:MOST_RAW],
        size=len(one.raw),
        sqlstate=one.sqlstate,
        reason=faults.tidy(one.reason),
    )


# ---- people ----


def check_may_settle(user: object) -> None:
    """Raise NotAllowed for a person who may neither replay nor discard."""
    if not holds(user, PERMISSION):
        raise NotAllowed(f"{user} may not replay or discard buried events.")


def waiting() -> Waiting:
    """Return how many are kept, and when the last one came."""
    return Waiting(**BuriedEvent.objects.aggregate(count=Count("pk"), newest_at=Max("buried_at")))


@chain.changing()
def replay(numbers: Sequence[int], *, by: Actor, reason: str) -> ReplayDone:
    """Store buried events, as far as they can be stored by now, and return the counts. Those of a
    whole batch that still cannot are kept singly.

    Raise Refused when one is not there any more, or when none of them can be stored.
    """
    reason, rows = chain.check_reason(reason), _chosen(numbers)
    results = [_store(row) for row in rows]
    done = ReplayDone(sum(r.stored for r in results), sum(r.kept for r in results))
    if not done.stored:
        why = next((row.reason for row in rows), "")
        raise Refused(f"None of them can be stored yet. {_sentence(why)}")
    summary = f"stored {_events(done.stored)} that had been buried"
    if done.kept:
        summary += f"; {_events(done.kept)} still cannot be stored"
    _note("buried.replay", summary, rows, by, reason)
    return done


@chain.changing()
def discard(numbers: Sequence[int], *, by: Actor, reason: str) -> int:
    """Delete buried events for good and return how many. Raise Refused when one is not there any
    more.
    """
    reason, rows = chain.check_reason(reason), _chosen(numbers)
    _forget(rows)
    _note(
        "buried.discard", f"discarded {_events(len(rows))} that had been buried", rows, by, reason
    )
    return len(rows)


def drop(keep_days: int) -> int:
    """Discard those that nobody dealt with for as long as decisions are kept. Return how many."""
    last = timezone.now() - timedelta(days=keep_days)
    with transaction.atomic():
        rows = list(BuriedEvent.objects.select_for_update().filter(buried_at__lt=last).defer("raw"))
        _forget(rows)
    return len(rows)


def _chosen(numbers: Sequence[int]) -> list[BuriedEvent]:
    """Return these, locked. Raise Refused."""
    wanted = set(numbers)
    if not wanted:
        raise Refused("Choose at least one.")
    if len(wanted) > MOST_AT_ONCE:
        raise Refused(f"At most {MOST_AT_ONCE} at once; these are {len(wanted):,}.")
    rows = list(BuriedEvent.objects.select_for_update().filter(pk__in=wanted).order_by("pk"))
    if gone := len(wanted) - len(rows):
        raise Refused(f"{_events(gone)} of these were replayed or discarded in the meantime.")
    return rows


def _store(row: BuriedEvent) -> ReplayDone:
    """Store what one row holds, within the caller's transaction."""
    try:
        if row.is_cut:
            raise UnreadableError(f"Only {MOST_RAW:,} of its {row.size:,} bytes were kept")
        raw = bytes(row.raw)
        if row.whole:
            found = unpack(raw)
            events, bad = found.batch.events, found.bad
        else:
            events, bad = [read_event(raw)], []
    except UnreadableError as error:
        _keep(row, str(error))
        return ReplayDone(0, 1)
    failed = copy_sparing(events, copy_format.Texts(), append.Counts())
    bad = bad + [Bad(encode_event(e), faults.reason_of(x), faults.sqlstate(x)) for e, x in failed]
    stored = len(events) - len(failed)
    if not row.whole and bad:
        _keep(row, bad[0].reason)
    elif row.whole and not stored:
        _keep(row, bad[0].reason if bad else "It holds no events")
    else:
        _account(row, stored, bad)
    return ReplayDone(stored, len(bad))


def _account(row: BuriedEvent, stored: int, bad: list[Bad]) -> None:
    """Remove a row of which something is stored now, and keep aside what still cannot be."""
    if row.whole:
        batch = unpack(bytes(row.raw)).batch
        kept = bury_events(batch, row.entry, bad)
        ledger.note([ledger.Arrived(batch, stored, kept, len(bad) - kept)])
    else:
        ledger.settle_buried([row.run], stored=True)
    BuriedEvent.objects.filter(pk=row.pk).delete()


def _keep(row: BuriedEvent, reason: str) -> None:
    """Let a row wait on, with the reason of today."""
    row.reason = faults.tidy(reason)
    BuriedEvent.objects.filter(pk=row.pk).update(reason=row.reason)


def _forget(rows: Sequence[BuriedEvent]) -> None:
    BuriedEvent.objects.filter(pk__in=[row.pk for row in rows]).delete()
    ledger.settle_buried((row.run for row in rows if not row.whole), stored=False)


def _note(action: str, summary: str, rows: Sequence[BuriedEvent], by: Actor, reason: str) -> None:
    """Record what was done, with what it was done to."""
    why = Counter(row.reason for row in rows).most_common(5)
    chain.append(
        by=by,
        reason=reason,
        action=action,
        subject="buried events",
        summary=summary,
        before={
            "events": [row.pk for row in rows],
            "nodes": sorted({row.node for row in rows}),
            "reasons": dict(why),
        },
    )


def _events(count: int) -> str:
    return f"{count:,} event{'' if count == 1 else 's'}"


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}." if text else ""


def latest(before: int | None = None) -> QuerySet[BuriedEvent]:
    """Return what is kept, latest first, without the bytes; from below number `before`."""
    rows = BuriedEvent.objects.defer("raw").order_by("-pk")
    return rows.filter(pk__lt=before) if before is not None else rows
