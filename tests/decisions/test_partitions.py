"""Days get their partitions ahead of time, and no row is lost to a day that has none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from decisions.models import Decision
from decisions.store import copy_format, partitions, rows
from explain.models import EXPLANATIONS
from tests.database import as_owner
from tests.decisions.factory import event

pytestmark = pytest.mark.django_db


def rows_of(table: str) -> int:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
        return cursor.fetchone()[0]


def store_at(day: date) -> None:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
    rows.copy_events([event(at=at)], copy_format.Texts())


@pytest.mark.parametrize("table", [partitions.DECISIONS, EXPLANATIONS])
def test_today_and_the_days_ahead_get_a_partition_once(table: partitions.Parted) -> None:
    today = date(2031, 5, 5)
    assert partitions.ensure(table, 3, today) == 4
    assert partitions.ensure(table, 3, today) == 0
    assert {today + timedelta(days=k) for k in range(4)} <= partitions.existing(table)


def test_a_row_lands_in_the_partition_of_its_day() -> None:
    partitions.create(partitions.DECISIONS, [date(2031, 5, 5)])
    store_at(date(2031, 5, 5))
    assert rows_of("decisions_decision_20310505") == 1


def test_rows_that_waited_in_the_default_partition_move_when_their_day_is_made() -> None:
    store_at(date(2031, 5, 5))
    store_at(date(2031, 5, 6))
    assert rows_of("decisions_decision_default") == 2
    partitions.create(partitions.DECISIONS, [date(2031, 5, 5)])
    assert rows_of("decisions_decision_default") == 1
    assert rows_of("decisions_decision_20310505") == 1
    assert Decision.objects.count() == 2


def test_a_replayed_old_event_is_kept_as_long_as_a_new_one() -> None:
    store_at(date(2015, 5, 17))
    today = timezone.now().astimezone(UTC).date()
    partitions.drop_strays(partitions.DECISIONS, today - timedelta(days=10))
    assert Decision.objects.count() == 1
    with as_owner():
        Decision.objects.update(stored_at=timezone.now() - timedelta(days=2))
    partitions.drop_strays(partitions.DECISIONS, today)
    assert Decision.objects.count() == 0


def test_a_lookup_by_time_reads_one_partition_only() -> None:
    partitions.create(partitions.DECISIONS, [date(2031, 5, 5), date(2031, 5, 6)])
    plan = Decision.objects.filter(
        at__gte=datetime(2031, 5, 5, 1, tzinfo=UTC), at__lt=datetime(2031, 5, 5, 2, tzinfo=UTC)
    ).explain()
    assert "20310505" in plan
    assert "20310506" not in plan
