"""How much of its disk Sluice uses, and what stops as the room runs out.

Stopped in this order: admits are no longer stored, then no decision is, then nobody changes
anything. Deciding goes on in any case, and so do the counts of decisions and the audit log: what
they take is small, and the last gigabyte is kept for it.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection, transaction

from control.audit.actors import Actor
from control.errors import Refused

# Bytes. As makers of disks count, and as the setting is written.
GB = 1_000_000_000
# Bytes left at which each thing stops, and from which old days are dropped so that none of them
# must. Chosen: a gigabyte each holds an hour or more of the heaviest sampling, time for a person.
DROP_DAYS_AT, NO_ADMITS_AT, NO_DECISIONS_AT, NO_CHANGES_AT = 4 * GB, 3 * GB, 2 * GB, GB
# Seconds for which a measurement holds. Chosen: the heaviest sampling writes less than 0.1 GB in
# that time, and measuring takes some milliseconds.
FRESH_S = 10.0
# Folders of the data folder that grow with traffic, beside the database.
_FOLDERS = ("log", "valkey")
# Blocks that `st_blocks` counts, whatever the file system's own are (stat(2)).
_BLOCK = 512


class Room(IntEnum):
    """What the disk has room for; each one lacks what those before it have."""

    ENOUGH = 0
    NO_ADMITS = 1
    NO_DECISIONS = 2
    NO_CHANGES = 3


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What Sluice uses of its disk, in bytes."""

    budget: int
    database: int
    wal: int
    """Of the database's write-ahead log; 0 where its server does not tell."""
    files: int
    """Logs, and what the embedded Valkey keeps."""
    free: int | None
    """Free on the disk; None where the database is on another machine."""

    @property
    def used(self) -> int:
        return self.database + self.wal + self.files

    @property
    def left(self) -> int:
        """Bytes that may still be written, by the budget and by the disk itself."""
        left = self.budget - self.used
        return left if self.free is None else min(left, self.free)

    @property
    def over(self) -> int:
        """Bytes by which old days must shrink. A disk that others fill is no reason to drop any."""
        return max(0, self.used + DROP_DAYS_AT - self.budget)

    @property
    def room(self) -> Room:
        marks = (NO_ADMITS_AT, NO_DECISIONS_AT, NO_CHANGES_AT)
        return Room(sum(self.left < mark for mark in marks))


def measure() -> DiskUse:
    """Measure what is used now. Raise Django's DatabaseError when the database does not answer."""
    var = Path(settings.SLUICE_VAR)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        database = int(cursor.fetchone()[0])
    files = sum(_allocated(var / folder) for folder in _FOLDERS)
    own = os.environ.get("SLUICE_EMBEDDED_POSTGRES") == "true"
    free = shutil.disk_usage(var).free if own and var.is_dir() else None
    return DiskUse(settings.SLUICE_DISK_BUDGET, database, _wal(), files, free)


def _wal() -> int:
    """Return the size of the write-ahead log, 0 where we may not ask."""
    try:
        # a savepoint: a refusal must not end the caller's transaction
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT coalesce(sum(size), 0) FROM pg_ls_waldir()")
            return int(cursor.fetchone()[0])
    except DatabaseError:
        return 0


def _allocated(folder: Path) -> int:
    """Return the bytes that a folder's files take of the disk."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.lstat().st_blocks * _BLOCK
        except FileNotFoundError:
            # rotated away meanwhile
            continue
    return total


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a table takes of the disk, all its partitions together, in bytes."""

    name: str
    rows: int
    """About, as PostgreSQL counted last."""
    data: int
    """Its rows, and what is too long to be in them."""
    indexes: int
    partitions: int

    @property
    def size(self) -> int:
        return self.data + self.indexes


def by_table() -> list[TableSize]:
    """Return what each table takes, the largest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text,"
            " sum(greatest(c.reltuples, 0))::bigint, sum(pg_table_size(c.oid))::bigint,"
            " sum(pg_indexes_size(c.oid))::bigint, count(*) FILTER (WHERE c.relispartition)"
            " FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
            " GROUP BY 1"
        )
        found = [TableSize(*row) for row in cursor.fetchall()]
    return sorted(found, key=lambda table: -table.size)


_last: list[tuple[float, DiskUse]] = []


def recent() -> DiskUse:
    """Return a measurement that is at most FRESH_S old. Raise DatabaseError as `measure`."""
    now = time.monotonic()
    if not _last or now - _last[-1][0] > FRESH_S:
        _last[:] = [(now, measure())]
    return _last[-1][1]


def check_room_for_changes(by: Actor) -> None:
    """Raise Refused when only the reserved gigabyte is left. Who is at a shell of the machine, and
    Sluice itself, may go on: the reserve is theirs.
    """
    if by.role not in _MAY_USE_RESERVE and recent().room >= Room.NO_CHANGES:
        raise Refused(
            "The disk is full up to its last gigabyte, so nothing is changed from here. Deciders go"
            " on. Free disk or raise SLUICE_DISK_GB; until then, `manage.py switch` works at a"
            " shell of the console’s machine."
        )


# Roles of actors that are no signed-in person (`actors.Actor`).
_MAY_USE_RESERVE = frozenset({"System", "Shell"})
