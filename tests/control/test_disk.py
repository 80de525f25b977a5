"""What stops as the disk fills, in which order, and what goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.db import connection

from control import disk
from control.audit import app_looks, chain
from control.audit.actors import SYSTEM, Actor
from control.disk import GB, DiskUse, Room
from control.errors import Refused
from control.models import AuditEntry, Look
from tests.database import as_owner

MARA = Actor("Mara Lindqvist", "mara@example.org", "Support")


def used(gb: float, free: float | None = None) -> DiskUse:
    return DiskUse(20 * GB, int(gb * GB), 0, 0, None if free is None else int(free * GB))


@pytest.mark.parametrize(
    ("use", "room"),
    [
        (used(1), Room.ENOUGH),
        (used(17), Room.ENOUGH),
        (used(17.1), Room.NO_ADMITS),
        (used(18.1), Room.NO_DECISIONS),
        (used(19.1), Room.NO_CHANGES),
        (used(25), Room.NO_CHANGES),
        # others fill the disk
        (used(1, free=3.1), Room.ENOUGH),
        (used(1, free=2.9), Room.NO_ADMITS),
        (used(1, free=1.9), Room.NO_DECISIONS),
        (used(1, free=0.9), Room.NO_CHANGES),
        (used(19.1, free=100), Room.NO_CHANGES),
    ],
)
def test_admits_stop_first_then_decisions_then_changes(use: DiskUse, room: Room) -> None:
    assert use.room == room


@pytest.fixture
def left(monkeypatch):
    """Has the disk this much left, in gigabytes."""

    def make(gb: float) -> None:
        monkeypatch.setattr(disk, "_last", [])
        monkeypatch.setattr(disk, "measure", lambda: used(20 - gb))

    return make


@pytest.mark.django_db
def test_in_the_last_gigabyte_a_change_is_refused_with_a_sentence(left) -> None:
    left(0.9)
    with pytest.raises(Refused, match=r"The disk is full.*Deciders go on\..*SLUICE_DISK_GB"):
        chain.append(by=MARA, reason="SUP-1", action="a.b", subject="s", summary="did it")
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("by", [SYSTEM, Actor.at_shell("dele")])
def test_a_shell_and_the_system_may_use_the_reserve(left, by) -> None:
    left(0.1)
    chain.append(by=by, reason="OPS-1", action="a.b", subject="s", summary="did it")
    assert AuditEntry.objects.count() == 1


@pytest.mark.django_db
def test_who_looked_is_written_down_to_the_end(left) -> None:
    left(0.1)
    app_looks.record_all([("app", "looked")], by=MARA, ticket="SUP-1")
    assert Look.objects.count() == 1


@pytest.mark.django_db
def test_before_that_changes_go_on(left) -> None:
    left(1.1)
    chain.append(by=MARA, reason="SUP-1", action="a.b", subject="s", summary="did it")
    assert AuditEntry.objects.count() == 1


@pytest.mark.django_db
def test_what_is_measured_is_what_is_there(settings, tmp_path: Path, monkeypatch) -> None:
    settings.SLUICE_VAR = tmp_path
    monkeypatch.delenv("SLUICE_EMBEDDED_POSTGRES", raising=False)
    before = disk.measure()
    assert before.free is None
    assert before.wal > 0
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "envoy.log").write_bytes(b"x" * 500_000)
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1,9999)"
        )
    after = disk.measure()
    assert after.files - before.files >= 500_000
    assert after.database - before.database >= 5_000_000
    assert "filler" in [table.name for table in disk.by_table()]
    monkeypatch.setenv("SLUICE_EMBEDDED_POSTGRES", "true")
    assert disk.measure().free is not None


@pytest.mark.django_db
def test_a_measurement_holds_for_a_moment(left, monkeypatch) -> None:
    left(5)
    assert disk.recent().room == Room.ENOUGH
    monkeypatch.setattr(disk, "measure", lambda: used(19.5))
    assert disk.recent().room == Room.ENOUGH
    monkeypatch.setattr(disk, "FRESH_S", -1.0)
    assert disk.recent().room == Room.NO_CHANGES
