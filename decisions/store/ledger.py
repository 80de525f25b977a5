"""The account of sampled events: what each run of a decider sent, and what became of it.

A batch says which run of its decider sent it and the number of its first event. So events that are
gone from the stream show as a gap, however they went: trimmed while the database was away, or lost
with an emptied store. A run of which nothing arrived at all is not seen.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import timedelta

import redis
from django.db import connection, models
from django.db.models import F, Sum
from django.utils import timezone

from decider.contracts import store
from decider.contracts.event import EventBatch
from decisions.models import DeciderRun

log = logging.getLogger("sluice.ingest")

_TABLE = DeciderRun._meta.db_table
_COLUMNS = ("run", "node", "dropped", "sent", "stored", "buried", "discarded", "withheld")
# How long a loss has a line on home: a day, as long as somebody may look for it.
LOSS_SHOWN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A batch and what became of its events."""

    batch: EventBatch
    stored: int
    buried: int
    discarded: int = 0
    withheld: int = 0

    @property
    def events(self) -> int:
        """All of its events."""
        return self.stored + self.buried + self.discarded + self.withheld


@dataclass(slots=True)
class _Counted:
    """Sums over the batches of one run, in the order of `_COLUMNS` after the run."""

    node: str
    dropped: int = 0
    sent: int = 0
    stored: int = 0
    buried: int = 0
    discarded: int = 0
    withheld: int = 0


def note(arrived: Sequence[Arrived]) -> None:
    """Count these batches within the transaction that stores them, as its last statement: rows of
    one run are locked only until its commit.
    """
    found: dict[bytes, _Counted] = {}
    for one in arrived:
        batch = one.batch
        if not batch.run:
            continue
        row = found.setdefault(batch.run, _Counted(batch.node))
        row.dropped = max(row.dropped, batch.dropped)
        row.sent = max(row.sent, batch.first + one.events)
        row.stored += one.stored
        row.buried += one.buried
        row.discarded += one.discarded
        row.withheld += one.withheld
    if not found:
        return
    # sorted, so that two workers lock shared rows in one order and cannot deadlock
    rows = [(uuid.UUID(bytes=run), *astuple(row)) for run, row in sorted(found.items())]
    places = ", ".join(["(" + ", ".join(["%s"] * len(_COLUMNS)) + ", 0)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {_TABLE} AS t ({', '.join(_COLUMNS)}, lost) VALUES {places} "  # noqa: S608
            "ON CONFLICT (run) DO UPDATE SET last_at = now(), "
            "dropped = greatest(t.dropped, excluded.dropped), "
            "sent = greatest(t.sent, excluded.sent), stored = t.stored + excluded.stored, "
            "buried = t.buried + excluded.buried, discarded = t.discarded + excluded.discarded, "
            "withheld = t.withheld + excluded.withheld",
            [value for row in rows for value in row],
        )


def settle(client: redis.Redis) -> None:
    """Take down as lost what is neither stored nor anywhere in the stream.

    The runs are read first. If then no batch is out with a worker and a run has not changed, all
    that was handed out before is stored, and the stream hands out in the order of sending: what is
    missing before the last event that arrived will not come.
    """
    unsure = [run for run in DeciderRun.objects.exclude(sent=_accounted()) if run.on_their_way]
    if not unsure or _handed_out(client):
        return
    now = timezone.now()
    for run in unsure:
        missing = run.on_their_way
        changed = DeciderRun.objects.filter(
            pk=run.pk, **{name: getattr(run, name) for name in _COLUMNS[3:]}
        ).update(lost=F("lost") + missing, lost_at=now if missing > 0 else run.lost_at)
        if changed and missing > 0:
            log.error(
                "%d sampled events of %s are gone from the stream and not stored; %d of %d in all",
                missing,
                run.node,
                run.lost + missing,
                run.sent,
            )


def _accounted() -> models.expressions.CombinedExpression:
    return F("stored") + F("buried") + F("discarded") + F("withheld") + F("lost")


def _handed_out(client: redis.Redis) -> bool:
    """Return whether a worker has batches that it did not acknowledge yet."""
    for group in client.xinfo_groups(store.EVENTS_STREAM):
        if group["name"] == store.EVENTS_GROUP.encode():
            return bool(group["pending"])
    return True


def settle_buried(runs: Iterable[uuid.UUID | None], *, stored: bool) -> None:
    """Count buried events of these runs, one of each, that are stored now or were discarded."""
    for run in runs:
        # the sender of an older version names no run
        if run is None:
            continue
        where = DeciderRun.objects.filter(pk=run, buried__gt=0)
        if stored:
            where.update(buried=F("buried") - 1, stored=F("stored") + 1)
        else:
            where.update(buried=F("buried") - 1, discarded=F("discarded") + 1)


@dataclass(frozen=True, slots=True)
class NodeAccount:
    """What became of the events that the runs of one decider sampled."""

    node: str
    sampled: int
    stored: int
    buried: int
    discarded: int
    withheld: int
    lost: int
    dropped: int

    @property
    def on_their_way(self) -> int:
        """Sent and not known to be stored or lost."""
        known = self.stored + self.buried + self.discarded + self.withheld
        return max(0, self.sampled - known - self.lost - self.dropped)


def by_node() -> list[NodeAccount]:
    """Return the account of each decider, over all runs that are still listed."""
    names = ("stored", "buried", "discarded", "withheld", "lost", "dropped")
    found = DeciderRun.objects.values_list("node").order_by("node")
    rows = found.annotate(every=Sum(F("sent") + F("dropped"))).annotate(*map(Sum, names))
    return [NodeAccount(*row) for row in rows]


def lost_lately() -> int:
    """Return how many events of runs were lost to which that happened within LOSS_SHOWN."""
    since = timezone.now() - LOSS_SHOWN
    found = DeciderRun.objects.filter(lost_at__gte=since).aggregate(lost=Sum("lost"))
    return int(found["lost"] or 0)


def drop(keep_days: int) -> int:
    """Delete the runs whose last batch is older than what is stored. Return how many."""
    last = timezone.now() - timedelta(days=keep_days)
    return DeciderRun.objects.filter(last_at__lt=last).delete()[0]
