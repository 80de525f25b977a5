"""Move decision events from the stream into PostgreSQL, every event once.

A worker reads batches as one of a consumer group. One transaction takes the batch ids
(`IngestedBatch`) and copies the rows; the worker acknowledges the stream entries after the commit.
If anything dies in between, the stream delivers the batch again. Then either its id is stored, so
the batch is skipped, or nothing of it was stored.

Failure policy: while PostgreSQL or Valkey is away, wait and try again; acknowledge nothing. A batch
that can never be stored (undecodable, a value that no column holds) goes to the dead-letter stream
with its reason, so that the batches behind it pass.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import cast

import msgspec
import redis
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    connection,
    transaction,
)

from decider.contracts import event as events
from decider.contracts import store
from decider.contracts.event import EventBatch
from decisions.counts import append
from decisions.models import IngestedBatch, utc
from decisions.store import copy_format, partitions

log = logging.getLogger("sluice.ingest")

# Batches kept in the dead-letter stream. Enough to find out what is wrong with a decider; a flood
# of bad batches must not fill Valkey.
DEAD_MAXLEN = 1_000

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
# Seconds to wait after each failure in a row. Quick at first, because a restart takes a second or
# two; then slow enough not to burden a server that is starting. The last pause repeats.
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)

# Errors that pass by themselves: a server is away or starting.
TROUBLE = (
    OperationalError,
    InterfaceError,
    # such as the end of a transaction that idled for too long, on a machine that stood still
    InternalError,
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


@dataclass(slots=True)
class Worker:
    """One ingest worker.

    `claim_idle_ms`: milliseconds after which it takes over another worker's batch. `block_ms`:
    milliseconds it waits for a new batch. `rows`, `dead`: rows it has stored, and batches it has
    moved to the dead-letter stream. `lag_s`: age of the newest event when it was stored, seconds.
    """

    client: redis.Redis
    name: str
    claim_idle_ms: int = CLAIM_IDLE_MS
    block_ms: int = 1_000
    rows: int = 0
    dead: int = 0
    lag_s: float = 0.0
    _days: set[date] = field(default_factory=set)
    """Days this worker has seen a partition for."""
    _texts: copy_format.Texts = field(default_factory=copy_format.Texts)
    _counts: append.Counts = field(default_factory=append.Counts)
    _claimed_at: float = float("-inf")
    _status_at: float = float("-inf")

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
        received, done = [], []
        for entry, fields in entries:
            raw = (fields or {}).get(b"b", b"")
            try:
                received.append(Received(entry, raw, _decode(raw)))
            except (msgspec.MsgspecError, UnicodeDecodeError, copy_format.PoisonError) as error:
                self._bury(entry, raw, f"undecodable: {error}")
        try:
            stored = self._commit(received)
            done += [r.entry for r in received]
        except (copy_format.PoisonError, DataError, IntegrityError):
            stored = self._one_by_one(received, done)
        if done:
            self.client.xack(store.EVENTS_STREAM, store.EVENTS_GROUP, *done)
        self.rows += stored
        return stored

    def _one_by_one(self, received: list[Received], done: list[bytes]) -> int:
        """Store each batch in its own transaction, so that only the bad one is buried. Append the
        stored entries to `done`. Return the number of rows stored.
        """
        stored = 0
        for one in received:
            try:
                stored += self._commit([one])
                done.append(one.entry)
            except (copy_format.PoisonError, DataError, IntegrityError) as error:
                self._bury(one.entry, one.raw, str(error).splitlines()[0])
        return stored

    def _commit(self, received: list[Received]) -> int:
        """Store the batches whose ids are not taken yet, in one transaction. Return the number of
        rows stored.
        """
        if not received:
            return 0
        batches = {uuid.UUID(bytes=r.batch.id): r.batch for r in received}
        self._make_days(batches.values())
        with transaction.atomic():
            fresh = [batches[key] for key in _take(batches)]
            copy_events([e for b in fresh for e in b.events], self._texts, self._counts)
        # only now are new keys committed; a rollback must not leave their numbers remembered
        self._counts.settle()
        # a replay gives its decisions times of the past, which says nothing of this worker
        live = (b for b in fresh if b.node != events.REPLAY_NODE)
        if newest := max((e.at for b in live for e in b.events), default=0.0):
            self.lag_s = max(0.0, time.time() - newest)
        return sum(len(b.events) for b in fresh)

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

    def _bury(self, entry: bytes, raw: bytes, reason: str) -> None:
        """Write a batch to the dead-letter stream and acknowledge it, both or neither."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.xadd(
                store.DEAD_STREAM,
                {"b": raw, "reason": reason[:500], "entry": entry, "at": time.time()},
                maxlen=DEAD_MAXLEN,
            )
            pipe.incr(store.DEAD_COUNT_KEY)
            pipe.xack(store.EVENTS_STREAM, store.EVENTS_GROUP, entry)
            pipe.execute()
        self.dead += 1
        log.error(
            "batch %s cannot be stored and went to %s: %s",
            entry.decode(),
            store.DEAD_STREAM,
            reason,
        )

    def _publish_status(self) -> None:
        """Publish how far ingest is, for the console."""
        status = store.IngestStatus(
            at=time.time(), lag_s=self.lag_s, rows=self.rows, pending=waiting(self.client)
        )
        self.client.set(store.INGEST_STATUS_KEY, msgspec.msgpack.encode(status))
        self._status_at = time.monotonic()


def copy_events(
    rows: Sequence[events.Event], texts: copy_format.Texts, counts: append.Counts | None = None
) -> None:
    """Copy events into their partitions and count them, within the caller's transaction. Those of
    a replay go into a table of their own and are not counted.

    A caller that passes `counts` calls its `settle` after the commit. Raise PoisonError, DataError,
    IntegrityError.
    """
    live = [e for e in rows if e.node != events.REPLAY_NODE]
    _copy(partitions.DECISIONS, live, texts)
    _copy(partitions.REPLAYED, [e for e in rows if e.node == events.REPLAY_NODE], texts)
    (counts or append.Counts()).add(live)


def _copy(
    parted: partitions.Parted, rows: Sequence[events.Event], texts: copy_format.Texts
) -> None:
    """Copy events into one table. Raise PoisonError, DataError, IntegrityError."""
    if not rows:
        return
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(copy_format.copy_into(parted.table)) as copy,
    ):
        for block in copy_format.blocks(rows, texts):
            copy.write(block)


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


def _decode(raw: bytes) -> EventBatch:
    """Return a batch whose own fields can be stored. Raise MsgspecError, PoisonError."""
    batch = events.decode_batch(raw)
    if len(batch.id) != 16:
        raise copy_format.PoisonError(f"a batch id has {len(batch.id)} bytes, not 16")
    # 7e9 s is the year 2191; `dropped` fits a bigint column
    if not 0 <= batch.sent_at < 7e9 or not 0 <= batch.dropped < 2**63:
        raise copy_format.PoisonError(
            f"the time {batch.sent_at} or the drop count {batch.dropped} of a batch is out of"
            " range: 0 <= time < 7e9 (unix seconds) and 0 <= drop count < 2**63 are allowed"
        )
    if "\x00" in batch.node:
        raise copy_format.PoisonError("the name of a batch's node contains a NUL character")
    return batch


def waiting(client: redis.Redis) -> int:
    """Return how many batches in the stream are not stored yet."""
    for group in client.xinfo_groups(store.EVENTS_STREAM):
        if group["name"] == store.EVENTS_GROUP.encode():
            return int(group["pending"]) + int(group.get("lag") or 0)
    return 0
