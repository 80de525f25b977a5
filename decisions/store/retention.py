"""Retention: one function that makes the partitions ahead and drops old ones, by age and by size,
of every table that is registered here.

A table may have a say in it: a day is dropped only when its `may_drop` agrees, such as an archive
that has a checksum of it, or a log whose end was signed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import DatabaseError

from control import installation
from control.disk import DiskUse, measure
from decisions.store import partitions
from decisions.store.partitions import Parted

log = logging.getLogger("sluice.retention")


def _always(_: date) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Retained:
    """A table and how long it is kept."""

    parted: Parted
    keep_days: Callable[[], int]
    """How many days before today are kept."""
    may_drop: Callable[[date], bool] = _always
    """Asked before a day's partition is dropped; what it must do first, it does."""
    by_size: bool = True
    """Whether its old days are also dropped when the disk is short."""


_registered: dict[str, Retained] = {}


def register(retained: Retained) -> None:
    """Put a table under retention. Call it where the app of its room is ready."""
    _registered[retained.parted.table] = retained


def tables() -> list[Retained]:
    """Return every table under retention, by name."""
    return [_registered[name] for name in sorted(_registered)]


def as_decisions() -> int:
    """Return how many days decisions are kept."""
    return installation.keep_days()


@dataclass(frozen=True, slots=True)
class RetentionRun:
    """What a run did."""

    made: int
    dropped: int
    refused: int
    """Days that are due and may not be dropped yet."""


def keep(today: date | None = None, use: DiskUse | None = None) -> RetentionRun:
    """Make the partitions ahead, drop days past their age, then the oldest days of all tables until
    the disk's budget is kept. What one table refuses or fails at keeps none of the others.

    `use`: a measurement of the disk; without one it is measured after the days past their age are
    gone.
    """
    today = today or datetime.now(UTC).date()
    made = sum(make_ahead(one, today) for one in tables())
    old = [
        _Due(one, day, "age")
        for one in tables()
        for day in sorted(partitions.existing(one.parted))
        if day < today - timedelta(days=one.keep_days())
    ]
    results = [_drop(due) for due in old]
    for one in tables():
        partitions.drop_strays(one.parted, today - timedelta(days=one.keep_days()))
    results += _shrink(use or measure(), today)
    return RetentionRun(made, results.count(True), results.count(False))


def make_all_ahead() -> int:
    """Make the partitions of today and the days ahead of every table. Return how many were made."""
    return sum(partitions.ensure(one.parted) for one in tables())


def make_ahead(one: Retained, today: date) -> int:
    """Make the partitions of today, of the days ahead, and of days whose rows lie in the default
    partition. Return how many were made.
    """
    first, last = today - timedelta(days=one.keep_days()), today
    made = partitions.ensure(one.parted, today=today)
    return made + partitions.create(one.parted, partitions.strays(one.parted, first, last))


@dataclass(frozen=True, slots=True)
class _Due:
    """A day to be dropped, and why: "age" or "size"."""

    one: Retained
    day: date
    why: str


def _shrink(use: DiskUse, today: date) -> list[bool]:
    """Drop the oldest days, of all tables alike, until the budget is kept. Today and the days ahead
    stay.
    """
    over, results = use.over, []
    found = [
        (day, one.parted.table, size)
        for one in tables()
        if one.by_size
        for day, size in partitions.sizes(one.parted).items()
        if day < today and size
    ]
    for day, table, size in sorted(found):
        if over <= 0:
            break
        results.append(_drop(_Due(_registered[table], day, "size")))
        over -= size if results[-1] else 0
    if over > 0:
        log.error(
            "the disk budget is exceeded by %.1f GB, and no older day can be dropped", over / 1e9
        )
    return results


def _drop(due: _Due) -> bool:
    """Drop a day unless its table forbids it or somebody reads it. Return whether it is gone."""
    parted, day = due.one.parted, due.day
    try:
        if not due.one.may_drop(day):
            log.warning("%s of %s is due and may not be dropped yet", parted.table, day)
            return False
        rows = partitions.drop_day(parted, day, due.why)
    except DatabaseError as error:
        log.warning("%s of %s could not be dropped: %s", parted.table, day, error)
        return False
    if rows is not None:
        log.info("%s of %s was dropped by %s: %d rows", parted.table, day, due.why, rows)
    return True


register(Retained(partitions.DECISIONS, as_decisions))
register(Retained(partitions.REPLAYED, as_decisions))
