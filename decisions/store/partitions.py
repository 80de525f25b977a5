"""Daily partitions: created ahead, created on demand for late events, dropped by `retention`.

A row whose day has no partition falls into the table's default partition, so nothing is lost to a
strange clock. When that day gets its partition, its rows move there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from control import patience

# Advisory lock under which partitions are made and dropped: two workers never make the same day.
# The number is ours alone: PostgreSQL's advisory locks share one space of keys, and "51C1CE" marks
# Sluice's.
LOCK = 0x51_C1_CE_01
# How many days get their partition ahead of time: a weekend without a worker loses nothing.
DAYS_AHEAD = 3
# Seconds. Chosen: whoever reads or stores waits behind a change of the table that waits, so it
# gives up soon and is tried again.
LOCK_S = 2.0
# Seconds. Chosen: moving a day's late rows may take longer than ingest's other statements.
STATEMENT_S = 300.0


@dataclass(frozen=True, slots=True)
class Parted:
    """A table partitioned by day on its column `at`."""

    table: str
    stored: str
    """Column with the time a row was stored, by which rows of the default partition are dropped."""


DECISIONS = Parted("decisions_decision", "stored_at")
REPLAYED = Parted("decisions_replayed", "stored_at")


def name_of(parted: Parted, day: date) -> str:
    """Return the name of a day's partition."""
    return f"{parted.table}_{day:%Y%m%d}"


def existing(parted: Parted) -> set[date]:
    """Return the days (UTC) that have a partition."""
    pattern = re.compile(re.escape(parted.table) + r"_(\d{8})")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
            [parted.table],
        )
        matches = (pattern.fullmatch(name) for (name,) in cursor.fetchall())
        return {datetime.strptime(m[1], "%Y%m%d").replace(tzinfo=UTC).date() for m in matches if m}


def ensure(parted: Parted, days_ahead: int = DAYS_AHEAD, today: date | None = None) -> int:
    """Create the partitions of today (UTC) and the next `days_ahead` days. Return how many were
    created.
    """
    today = today or timezone.now().astimezone(UTC).date()
    # today as well: a new installation has no partition yet
    days = [today + timedelta(days=k) for k in range(days_ahead + 1)]
    return create(parted, days)


def create(parted: Parted, days: Iterable[date]) -> int:
    """Create the partitions of these days (UTC) that do not exist yet. Return how many were
    created.
    """
    if not (missing := set(days) - existing(parted)):
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        # another worker may have created some while we waited for the lock
        missing -= existing(parted)
        for day in sorted(missing):
            _create_one(cursor, parted, day)
    return len(missing)


def _create_one(cursor: CursorWrapper, parted: Parted, day: date) -> None:
    """Create one partition and move the rows of its day there from the default partition."""
    name, table = name_of(parted, day), parted.table
    start, end = (
        f"{day.isoformat()} 00:00:00+00",
        f"{(day + timedelta(days=1)).isoformat()} 00:00:00+00",
    )
    # ATTACH scans the default partition for rows of this day; the lock keeps late ones out between
    # the move and the scan
    cursor.execute(f"LOCK TABLE {table}_default IN ACCESS EXCLUSIVE MODE")
    # created apart and attached: CREATE ... PARTITION OF fails while the default partition holds
    # rows of this day
    cursor.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
    moved = f"DELETE FROM {table}_default WHERE at >= %s AND at < %s RETURNING *"  # noqa: S608
    cursor.execute(f"WITH moved AS ({moved}) INSERT INTO {name} SELECT * FROM moved", [start, end])  # noqa: S608
    cursor.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"
    )


def strays(parted: Parted, first: date, last: date) -> set[date]:
    """Return the days from `first` to `last` of which the default partition holds rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM {parted.table}_default "  # noqa: S608
            "WHERE at >= %s AND at < %s",
            [_midnight(first), _midnight(last + timedelta(days=1))],
        )
        return {day for (day,) in cursor.fetchall()}


def sizes(parted: Parted) -> dict[date, int]:
    """Return the bytes that each day's partition takes, with its indexes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text, pg_total_relation_size(inhrelid) FROM pg_inherits"
            " WHERE inhparent = %s::regclass",
            [parted.table],
        )
        found = dict(cursor.fetchall())
    return {day: int(found.get(name_of(parted, day), 0)) for day in existing(parted)}


@transaction.atomic
def drop_day(parted: Parted, day: date) -> int | None:
    """Drop a day's partition and return how many rows it had; None when it is gone already. Raise
    OperationalError when somebody reads the table for longer than LOCK_S.
    """
    name = name_of(parted, day)
    with connection.cursor() as cursor:
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        if day not in existing(parted):
            return None
        cursor.execute(f"SELECT count(*) FROM {name}")  # noqa: S608
        rows = int(cursor.fetchone()[0])
        cursor.execute(f"DROP TABLE {name}")
        return rows


@transaction.atomic
def drop_strays(parted: Parted, first: date) -> int:
    """Delete what the default partition stored before a day. Return how many rows that were."""
    with connection.cursor() as cursor:
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        cursor.execute(f"DELETE FROM {parted.table}_default WHERE {parted.stored} < %s", [first])  # noqa: S608
        return int(cursor.rowcount)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
