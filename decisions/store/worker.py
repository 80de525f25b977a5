"""Move decision events from the stream into PostgreSQL, every event once.

A worker reads batches as one of a consumer group. One transaction takes the batch ids
(`IngestedBatch`) and copies the rows; the worker acknowledges the stream entries after the commit.
If anything dies in between, the stream delivers the batch again. Then either its id is stored, so
the batch is skipped, or nothing of it was stored.

Failure policy: while PostgreSQL or Valkey is away, full or at fault in another way, wait and try
again; acknowledge nothing. What fails by its own fault (`faults`) is found by halving and buried
with its reason (`buried`), in the transaction that stores the events beside it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import cast

import msgspec
import redis
from django.db import Error, connection, transaction

from control.disk import Room
from decider.contracts import event as events
from decider.contracts import store
from decider.contracts.event import Event, EventBatch
from decider.contracts.vocabulary import Action
from decisions.counts import append
from decisions.models import IngestedBatch, utc
from decisions.store import buried, copy_format, faults, ledger, partitions
from decisions.store.rows import copy_events, copy_sparing
from decisions.store.unpack import Bad, UnreadableError, unpack

log = logging.getLogger("sluice.ingest")

# Batches of one transaction at most.
# Chosen: spreads the cost of a commit over many batches, and keeps small what a crash repeats.
READ_COUNT = 64
# Milliseconds. A batch that is unacknowledged for longer belongs to a worker that died.
CLAIM_IDLE_MS = 10_000
# Seconds between two searches for batches of dead workers. Chosen: half of CLAIM_IDLE_MS, so a dead
# worker's batch waits at most one and a half times CLAIM_IDLE_MS.
CLAIM_EVERY_S = 5.0
# Seconds between two status reports of an idle worker, which show that it is alive.
STATUS_EVERY_S = 2.0
# Seconds between two looks for events that are gone from the stream. Chosen: a loss is known within
# seconds, and a look costs one query.
SETTLE_EVERY_S = 2.0
# Seconds to wait after each failure in a row. Quick at first, because a restart takes a second or
# two; then slow enough not to burden a server that is starting. The last pause repeats.
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)

# Errors after which a worker waits and tries again: a server is away, starting, full, or not
# migrated yet.
TROUBLE = (
    Error,
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.BusyLoadingError,
)


# An entry of the stream: its id and its fields, bytes as the client is not told to decode.
Entry = tuple[bytes, dict[bytes, bytes]]


@dataclass(slots=True)
class Received:
    """A batch and its place in the stream."""

    entry: bytes
    raw: bytes
    batch: EventBatch
    bad: list[Bad]
    """Events in it that could not be read."""


@dataclass(slots=True)
class Worker:
    """One ingest worker.

    `claim_idle_ms`: milliseconds after which it takes over another worker's batch. `block_ms`:
    milliseconds it waits for a new batch. `room`: says what the disk has room for. `rows`,
    `buried`: rows it has stored, and events and unreadable batches it has set aside. `lag_s`: age
    of the newest event when it was stored, seconds.
    """

    client: redis.Redis
    name: str
    claim_idle_ms: int = CLAIM_IDLE_MS
    block_ms: int = 1_000
    room: Callable[[], Room] = lambda: Room.ENOUGH
    rows: int = 0
    buried: int = 0
    lag_s: float = 0.0
    _days: set[date] = field(default_factory=set)
    """Days this worker has seen a partition for."""
    _texts: copy_format.Texts = field(default_factory=copy_format.Texts)
    _counts: append.Counts = field(default_factory=append.Counts)
    _claimed_at: float = float("-inf")
    _status_at: float = float("-inf")
    _settled_at: float = float("-inf")

    def run(self, stop: threading.Event, wait: Callable[[float], object] | None = None) -> None:
        """Work until `stop` is set; finish the batch at hand first. `wait(seconds)` pauses after a
        failure; the default is `stop.wait`.
        """
        wait, failures = wait or stop.wait, 0
        while not stop.is_set():
            try:
                self.step()
                failures = 0
            except redis.ResponseError as error:
                # these two errors mean that Valkey lost the group or the stream
                if not str(error).startswith(("NOGROUP", "no such key")):
                    raise
                self.join()
            except TROUBLE as error:
                pause = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
                failures += 1
                log.warning("ingest waits %.1f s: %s", pause, error)
                # a broken connection never recovers; Django opens a new one on the next query
                connection.close()
                wait(pause)

    def join(self) -> None:
        """Create the consumer group if it is missing: a restarted Valkey may have lost it. The
        group starts at the first entry that is kept.
        """
        try:
            self.client.xgroup_create(
                store.EVENTS_STREAM, store.EVENTS_GROUP, id="0", mkstream=True
            )
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def leave(self) -> None:
        """Remove this worker's name from the group, unless it still owes an acknowledgement."""
        held = self.client.xpending_range(
            store.EVENTS_STREAM, store.EVENTS_GROUP, "-", "+", 1, consumername=self.name
        )
        if not held:
            self.client.xgroup_delconsumer(store.EVENTS_STREAM, store.EVENTS_GROUP, self.name)

    def step(self) -> int:
        """Read once and store what came. Return the number of rows stored."""
        # the oldest first: an abandoned batch has waited longest
        entries = self._abandoned() or self._new()
        stored = self.store(entries) if entries else 0
        if entries or time.monotonic() - self._status_at >= STATUS_EVERY_S:
            self._publish_status()
        return stored

    def store(self, entries: list[Entry]) -> int:
        """Store these stream entries and acknowledge them. Return the number of rows stored."""
        # an entry without fields was trimmed after it was handed out: `ledger` counts its events
        received = [
            one for entry, fields in entries if fields and (one := self._read(entry, fields))
        ]
        try:
            stored = self._commit(received)
        except faults.STORING as error:
            if not faults.is_of_data(error):
                raise
            stored = sum(self._commit_sparing(one) for one in received)
        self.client.xack(store.EVENTS_STREAM, store.EVENTS_GROUP, *(entry for entry, _ in entries))
        self.rows += stored
        return stored

    def _read(self, entry: bytes, fields: dict[bytes, bytes]) -> Received | None:
        """Return what an entry holds, None when it is no batch and was buried."""
        raw = fields.get(b"b", b"")
        try:
            found = unpack(raw)
        except UnreadableError as error:
            self._bury_batch(entry, raw, str(error))
            return None
        return Received(entry, raw, found.batch, found.bad)

    def _commit_sparing(self, one: Received) -> int:
        """Store a batch without the events that cannot be stored. Return the number of rows."""
        try:
            return self._commit([one], sparing=True)
        except faults.STORING as error:
            if not faults.is_of_data(error):
                raise
            # something beside the events, such as what names the batch
            self._bury_batch(one.entry, one.raw, faults.reason_of(error), one.batch)
            return 0

    def _commit(self, received: list[Received], *, sparing: bool = False) -> int:
        """Store the batches whose ids are not taken yet, in one transaction, and bury what cannot
        be stored. Return the number of rows stored.
        """
        if not received:
            return 0
        by_id = {uuid.UUID(bytes=r.batch.id): r for r in received}
        self._make_days(r.batch for r in received)
        try:
            with transaction.atomic():
                fresh = [by_id[key] for key in _take({k: r.batch for k, r in by_id.items()})]
                arrived = self._store_fresh(fresh, sparing=sparing)
                ledger.note(arrived)
        except BaseException:
            self._counts.forget()
            raise
        # only now are new keys committed; a rollback must not leave their numbers remembered
        self._counts.settle()
        self._note_stored(arrived)
        return sum(one.stored for one in arrived)

    def _store_fresh(self, fresh: list[Received], *, sparing: bool) -> list[ledger.Arrived]:
        """Copy the events of new batches and bury those that cannot be stored."""
        room = self.room()
        every = [e for one in fresh for e in one.batch.events]
        kept = [e for e in every if _has_room(e, room)] if room else every
        if sparing:
            failed = copy_sparing(kept, self._texts, self._counts)
        else:
            copy_events(kept, self._texts, self._counts)
            failed = []
        withheld = [e for e in every if not _has_room(e, room)] if room else []
        # counted all the same: figures stay right, and they take little room
        self._counts.add([e for e in withheld if e.node != events.REPLAY_NODE])
        errors = {id(event): error for event, error in failed}
        arrived = []
        for one in fresh:
            bad = one.bad + [
                Bad(events.encode_event(e), faults.reason_of(error), faults.sqlstate(error))
                for e in one.batch.events
                if (error := errors.get(id(e))) is not None
            ]
            places = buried.bury_events(one.batch, _text(one.entry), bad)
            without = sum(not _has_room(e, room) for e in one.batch.events) if room else 0
            stored = len(one.batch.events) + len(one.bad) - len(bad) - without
            arrived.append(
                ledger.Arrived(one.batch, stored, places, len(bad) - places, withheld=without)
            )
        return arrived

    def _note_stored(self, arrived: list[ledger.Arrived]) -> None:
        """Take down what a transaction stored and buried, after its commit."""
        # a replay gives its decisions times of the past, which says nothing of this worker
        live = (one.batch for one in arrived if one.batch.node != events.REPLAY_NODE)
        if newest := max((e.at for b in live for e in b.events), default=0.0):
            self.lag_s = max(0.0, time.time() - newest)
        for one in arrived:
            if not (bad := one.buried + one.discarded):
                continue
            self.buried += bad
            log.error(
                "%d events of %s cannot be stored: %d are buried, for %d there is no room",
                *(bad, one.batch.node, one.buried, one.discarded),
            )

    def _make_days(self, batches: Iterable[EventBatch]) -> None:
        """Create the partitions for these events' days, within reason; other events land in the
        default partition.
        """
        now = time.time()
        # eight days either way (chosen): late batches get their partition, and a broken clock does
        # not fill the database with empty ones
        near = {
            int(e.at // 86_400) for b in batches for e in b.events if abs(e.at - now) < 8 * 86_400
        }
        days = {datetime.fromtimestamp(day * 86_400, UTC).date() for day in near}
        if days - self._days:
            for table in (partitions.DECISIONS, partitions.REPLAYED):
                partitions.create(table, days)
            self._days |= days

    def _new(self) -> list[Entry]:
        """Read new batches; wait up to `block_ms` for one."""
        answer = self.client.xreadgroup(
            store.EVENTS_GROUP,
            self.name,
            {store.EVENTS_STREAM: ">"},
            count=READ_COUNT,
            block=self.block_ms,
        )
        # redis-py types an answer of this command as any of its forms, decoded or not
        return cast("list[Entry]", answer[0][1]) if answer else []  # type: ignore[index]

    def _abandoned(self) -> list[Entry]:
        """Take over batches that another worker, or this one before a crash, read and never
        acknowledged.
        """
        if time.monotonic() - self._claimed_at < CLAIM_EVERY_S:
            return []
        answer = self.client.xautoclaim(
            store.EVENTS_STREAM,
            store.EVENTS_GROUP,
            self.name,
            min_idle_time=self.claim_idle_ms,
            count=READ_COUNT,
        )
        # look again at once while batches are found: more may wait. The pause begins with an empty
        # answer
        if not answer[1]:
            self._claimed_at = time.monotonic()
        return cast("list[Entry]", answer[1])

    def _bury_batch(
        self, entry: bytes, raw: bytes, reason: str, batch: EventBatch | None = None
    ) -> None:
        """Set a whole batch aside, of which no event can be stored by itself."""
        there_was_room = buried.bury_batch(raw, reason, _text(entry), batch)
        self.buried += 1
        log.error(
            "batch %s cannot be stored and %s: %s",
            *(_text(entry), "is buried" if there_was_room else "there is no room for it", reason),
        )

    def _publish_status(self) -> None:
        """Publish how far ingest is, for the console."""
        status = store.IngestStatus(
            at=time.time(), lag_s=self.lag_s, rows=self.rows, pending=waiting(self.client)
        )
        self.client.set(store.INGEST_STATUS_KEY, msgspec.msgpack.encode(status))
        self._status_at = time.monotonic()
        if self._status_at - self._settled_at >= SETTLE_EVERY_S:
            self._settled_at = self._status_at
            ledger.settle(self.client)


def _has_room(event: Event, room: Room) -> bool:
    """Return whether the disk has room for an event: refusals longer than admits."""
    return room < (Room.NO_ADMITS if event.action == Action.ADMIT else Room.NO_DECISIONS)


def _text(entry: bytes) -> str:
    return entry.decode("ascii", "replace")


def _take(batches: dict[uuid.UUID, EventBatch]) -> list[uuid.UUID]:
    """Insert the ids of these batches and return those that were not stored yet. When another
    worker has inserted one but not committed it, wait for that worker.
    """
    table = IngestedBatch._meta.db_table
    rows = [
        (key, b.node, len(b.events), b.dropped, utc(b.sent_at))
        # sorted, so that two workers take shared ids in one order and cannot deadlock
        for key, b in sorted(batches.items())
    ]
    places = ", ".join(["(%s, %s, %s, %s, %s)"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (id, node, rows, dropped, sent_at) VALUES {places} ON CONFLICT DO"  # noqa: S608
            " NOTHING RETURNING id",
            [value for row in rows for value in row],
        )
        return [key for (key,) in cursor.fetchall()]


def waiting(client: redis.Redis) -> int:
    """Return how many batches in the stream are not stored yet."""
    for group in client.xinfo_groups(store.EVENTS_STREAM):
        if group["name"] == store.EVENTS_GROUP.encode():
            return int(group["pending"]) + int(group.get("lag") or 0)
    return 0
