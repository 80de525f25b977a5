"""Every partitioned table has its days ahead, and old days go by age and by size, none unasked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from django.conf import settings as django_settings
from django.db import OperationalError, connection

from control import disk
from control.disk import GB, DiskUse
from decisions import tasks
from decisions.models import Decision, DroppedDay
from decisions.store import copy_format, partitions, retention, rows
from decisions.store.partitions import Parted
from explain.models import EXPLANATIONS
from tests.database import APP, as_owner
from tests.decisions.factory import event

pytestmark = pytest.mark.django_db
TODAY = date(2021, 5, 25)
PLENTY = DiskUse(20 * GB, GB, 0, 0, None)


def short_of(over: int) -> DiskUse:
    """A disk on which old days must shrink by so many bytes."""
    return DiskUse(20 * GB, 16 * GB + over, 0, 0, None)


def store_at(day: date, count: int = 1) -> None:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
    rows.copy_events([event(at=at) for _ in range(count)], copy_format.Texts())


@pytest.fixture
def under() -> Iterator[Callable[..., Parted]]:
    """Puts a table of the test's own under retention, with these days in it."""
    made = []

    def make(name: str, *days: date, **fields) -> Parted:
        with as_owner(), connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE {name} (at timestamptz NOT NULL, stored_at timestamptz NOT NULL"
                " DEFAULT now()) PARTITION BY RANGE (at)"
            )
            cursor.execute(f"CREATE TABLE {name}_default PARTITION OF {name} DEFAULT")
            cursor.execute("INSERT INTO control_parted VALUES (%s, 'stored_at')", [name])
            cursor.execute(f"GRANT SELECT, INSERT ON {name}, {name}_default TO {APP}")
        parted = Parted(name)
        partitions.create(parted, days)
        with connection.cursor() as cursor:
            for day in days:
                noon = f"{day} 12:00+00"
                cursor.execute(f"INSERT INTO {name} (at) VALUES (%s)", [noon])  # noqa: S608
        retention.register(retention.Retained(parted, **({"keep_days": lambda: 10} | fields)))
        made.append(name)
        return parted

    yield make
    for name in made:
        del retention._registered[name]


def test_every_partitioned_table_of_the_database_is_under_retention() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'p' ORDER BY 1")
        found = [name for (name,) in cursor.fetchall()]
    # months of looks go only after a signed checkpoint (control.audit.look_months)
    found.remove("control_look")
    assert found == [one.parted.table for one in retention.tables()]


def test_one_task_makes_the_days_ahead_of_every_table() -> None:
    tasks.keep_partitions()
    today = datetime.now(UTC).date()
    for table in (partitions.DECISIONS, partitions.REPLAYED, EXPLANATIONS):
        ahead = {today + timedelta(days=k) for k in range(partitions.DAYS_AHEAD + 1)}
        assert ahead <= partitions.existing(table)
    scheduled = {one["task"] for one in django_settings.CELERY_BEAT_SCHEDULE.values()}
    assert "decisions.tasks.keep_partitions" in scheduled


def test_days_that_had_no_partition_get_one_with_their_rows() -> None:
    store_at(TODAY - timedelta(days=2), 3)
    assert partitions.existing(partitions.DECISIONS) == set()
    retention.keep(TODAY, PLENTY)
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM decisions_decision_20210523")
        assert cursor.fetchone() == (3,)


def test_days_past_their_age_are_dropped_counted_and_listed() -> None:
    old, young = TODAY - timedelta(days=31), TODAY - timedelta(days=30)
    partitions.create(partitions.DECISIONS, [old, young])
    store_at(old, 2)
    store_at(young)
    run = retention.keep(TODAY, PLENTY)
    assert (run.dropped, run.refused) == (1, 0)
    assert old not in partitions.existing(partitions.DECISIONS)
    assert Decision.objects.count() == 1
    gone = DroppedDay.objects.get()
    assert (gone.name, gone.day, gone.rows, gone.why) == ("decisions_decision", old, 2, "age")
    assert gone.size > 0


def test_each_table_is_kept_as_long_as_it_says(under) -> None:
    mine = under("kept_short", TODAY - timedelta(days=4), TODAY, keep_days=lambda: 3)
    retention.keep(TODAY, PLENTY)
    assert min(partitions.existing(mine)) == TODAY


def test_a_day_is_dropped_only_when_its_table_agrees(under) -> None:
    asked = []

    def not_yet(day: date) -> bool:
        asked.append(day)
        return False

    days = [TODAY - timedelta(days=20), TODAY - timedelta(days=5)]
    mine = under("kept_signed", *days, may_drop=not_yet)
    run = retention.keep(TODAY, short_of(10 * GB))
    assert set(days) <= partitions.existing(mine)
    assert asked[0] == days[0]
    assert run.refused >= 1
    assert not DroppedDay.objects.filter(name=mine.table).exists()


def test_with_a_full_budget_the_oldest_days_of_all_tables_go_first_and_today_never(under) -> None:
    days = [TODAY - timedelta(days=k) for k in (3, 2, 1, 0)]
    one, other = under("kept_one", *days), under("kept_other", *days)
    size = partitions.sizes(one)[days[0]]
    # both of the oldest day and one of the next
    run = retention.keep(TODAY, short_of(2 * size + 1))
    assert run.dropped == 3
    assert min(partitions.existing(one) | partitions.existing(other)) == days[1]
    assert days[0] not in partitions.existing(one) | partitions.existing(other)
    assert {gone.why for gone in DroppedDay.objects.all()} == {"size"}
    retention.keep(TODAY, short_of(100 * GB))
    assert min(partitions.existing(one)) == min(partitions.existing(other)) == TODAY


def test_a_table_can_keep_out_of_the_budget(under) -> None:
    day = TODAY - timedelta(days=3)
    mine = under("kept_by_age", day, by_size=False)
    retention.keep(TODAY, short_of(100 * GB))
    assert day in partitions.existing(mine)


def test_what_fails_at_one_table_keeps_none_of_the_others(under, monkeypatch) -> None:
    day = TODAY - timedelta(days=20)
    busy, free = under("kept_busy", day), under("kept_free", day)
    drop = partitions.drop_day

    def dropped(parted: Parted, of: date, why: str) -> int | None:
        if parted == busy:
            raise OperationalError("canceling statement due to lock timeout")
        return drop(parted, of, why)

    monkeypatch.setattr(partitions, "drop_day", dropped)
    run = retention.keep(TODAY, PLENTY)
    assert (run.dropped, run.refused) == (1, 1)
    assert day in partitions.existing(busy)
    assert day not in partitions.existing(free)


@pytest.mark.django_db(transaction=True)
def test_a_reader_is_not_locked_out_for_longer_than_a_drop_waits(under) -> None:
    assert partitions.LOCK_S < 10
    day = TODAY - timedelta(days=20)
    mine = under("kept_read", day)
    partitions.drop_day(mine, day)
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        # the wait is of that transaction only
        assert cursor.fetchone() != (f"{partitions.LOCK_S:.0f}s",)
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("DROP TABLE kept_read")
        cursor.execute("DELETE FROM control_parted WHERE name = 'kept_read'")


def test_a_disk_that_others_fill_costs_no_day() -> None:
    assert DiskUse(20 * GB, GB, 0, 0, free=0).over == 0
    assert disk.DiskUse(20 * GB, 17 * GB, 0, 0, free=None).over == GB
