"""Daily partitions: created ahead, created on demand for late events, dropped by `retention`.

Programs own no table: functions of the owner make and drop days, of the tables that
`control_parted` lists (control/resources/confined.sql).

A row whose day has no partition falls into the table's default partition, so nothing is lost to a
strange clock. When that day gets its partition, its rows move there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from control import patience

# How many days get their partition ahead of time: a weekend without a worker loses nothing.
DAYS_AHEAD = 3
# Seconds. Chosen: whoever reads or stores waits behind a change of the table that waits, so it
# gives up soon and is tried again.
LOCK_S = 2.0
# Seconds. Chosen: moving a day's late rows may take longer than ingest's other statements.
STATEMENT_S = 300.0


@dataclass(frozen=True, slots=True)
class Parted:
    """A table partitioned by day on its column `at`; a row of `control_parted` says by which column
    old rows of its default partition are dropped.
    """

    table: str


DECISIONS = Parted("decisions_decision")
REPLAYED = Parted("decisions_replayed")


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
    made = 0
    with transaction.atomic(), connection.cursor() as cursor:
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        for day in sorted(missing):
            # false when another worker created it while we waited for its lock
            cursor.execute("SELECT control_make_day(%s, %s)", [parted.table, day])
            made += bool(cursor.fetchone()[0])
    return made


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
def drop_day(parted: Parted, day: date, why: str = "age") -> int | None:
    """Drop a day's partition, write it down as a `DroppedDay` and return how many rows it had; None
    when it is gone already.

    Raise OperationalError when somebody reads the table for longer than LOCK_S, and another
    DatabaseError for a day that is not over.
    """
    with connection.cursor() as cursor:
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        cursor.execute("SELECT control_drop_day(%s, %s, %s)", [parted.table, day, why])
        rows: int | None = cursor.fetchone()[0]
        return rows


@transaction.atomic
def drop_strays(parted: Parted, first: date) -> int:
    """Delete what the default partition stored before a day that has begun. Return how many rows
    that were.
    """
    with connection.cursor() as cursor:
        patience.set_limits(statement_s=STATEMENT_S, lock_s=LOCK_S)
        cursor.execute("SELECT control_drop_strays(%s, %s)", [parted.table, first])
        return int(cursor.fetchone()[0])


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
