"""Old months of the data-access log go after a signed checkpoint, and an auditor can still check
everything.
"""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control import tasks
from control.audit import app_looks, chain, look_months
from control.audit.actors import Actor
from control.errors import ControlError
from control.models import AuditEntry, Look
from tests.database import as_owner, without_triggers

pytestmark = pytest.mark.django_db
MARA = Actor("Mara Lindqvist", "support@demo.sluice.example", "Support")
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def look(at: datetime, app: str = "app_1", by: Actor = MARA) -> None:
    assert app_looks.record_all([(app, "the page")], by=by, at=at)


@pytest.fixture
def four_months() -> None:
    """Three looks in each month from December to March, the last at NOW."""
    for month in (datetime(2025, 12, 1, tzinfo=UTC), *(NOW.replace(month=k) for k in (1, 2, 3))):
        for minutes in (0, 30, 60):
            look(month + timedelta(minutes=minutes))


def behind_the_triggers_back(statement: str) -> None:
    with without_triggers(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.usefixtures("four_months")
def test_a_month_is_dropped_after_its_checkpoint_and_the_rest_still_verifies() -> None:
    kept = list(Look.objects.filter(at__gte=NOW.replace(month=2, day=1)))
    assert look_months.drop_old(31, now=NOW) == 2
    assert list(Look.objects.all()) == kept
    assert [month.month for month in look_months.existing()][:2] == [2, 3]
    first, second = AuditEntry.objects.order_by("seq")
    assert (first.action, first.actor, first.subject) == (
        "looks.checkpoint",
        "System",
        "control_look_202512",
    )
    assert first.summary == "dropped 3 looks of December 2025 from the data-access log"
    assert first.after["first_at"] == "2025-12-01T00:00:00.000000+00:00"
    assert second.after["prev_hash"] == first.after["last_hash"]
    assert kept[-1].prev_hash == second.after["last_hash"]
    found = look_months.verify()
    assert (found.entries, found.dropped, found.head, found.broken) == (6, 6, kept[0].hash, None)
    out = io.StringIO()
    call_command("audit", "anchor")
    call_command("audit", "verify", stdout=out)
    assert "intact: 6 looks after 6 that were dropped lawfully" in out.getvalue()
    assert chain.verify().broken is None


@pytest.mark.usefixtures("four_months")
def test_young_months_stay_and_dropping_again_does_nothing() -> None:
    assert look_months.drop_old(365, now=NOW) == 0
    assert look_months.drop_old(31, now=NOW) == 2
    assert look_months.drop_old(31, now=NOW) == 0
    assert AuditEntry.objects.count() == 2


@pytest.mark.usefixtures("four_months")
def test_the_chain_goes_on_from_the_checkpoint_when_every_month_was_dropped() -> None:
    later = NOW + timedelta(days=200)
    assert look_months.drop_old(31, now=later) >= 4
    assert not Look.objects.exists()
    look(later)
    (one,) = Look.objects.all()
    newest = AuditEntry.objects.first()
    assert (one.seq, one.prev_hash) == (13, newest.after["last_hash"])
    assert (look_months.verify().dropped, look_months.verify().broken) == (12, None)


@pytest.mark.usefixtures("four_months")
def test_checkpoint_and_drop_happen_both_or_neither(monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(chain, "_write", full)
    with pytest.raises(OSError, match="no space"):
        look_months.drop_old(31, now=NOW)
    assert (Look.objects.count(), AuditEntry.objects.count()) == (12, 0)
    assert look_months.verify().broken is None


@pytest.mark.usefixtures("four_months")
def test_without_the_key_nothing_is_dropped_and_the_task_goes_on(
    settings, keys: Path, caplog
) -> None:
    settings.SLUICE_KEEP_LOOKS_DAYS = 31
    (keys / "config.key").unlink()
    assert tasks.keep_looks()["dropped"] == 0
    assert Look.objects.count() == 12
    assert "old looks cannot be dropped and are kept: config.key is missing" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_drop_that_someone_reads_against_gives_up_soon_and_is_tried_again(
    settings, monkeypatch, caplog
) -> None:
    settings.SLUICE_KEEP_LOOKS_DAYS = 31
    monkeypatch.setattr(look_months, "LOCK_S", 0.1)
    look(NOW - timedelta(days=90))
    reading, end = threading.Event(), threading.Event()

    def read() -> None:
        try:
            with transaction.atomic():
                assert Look.objects.count() == 1
                reading.set()
                assert end.wait(30)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(read)
        try:
            assert reading.wait(30)
            assert tasks.keep_looks()["dropped"] == 0
            assert "lock timeout" in caplog.text
            # a look made meanwhile waits for neither
            look(NOW)
        finally:
            end.set()
        done.result()
    assert tasks.keep_looks()["dropped"] >= 2
    assert (look_months.verify().dropped, look_months.verify().broken) == (2, None)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE control_look SET what = 'x' WHERE seq = 2", "look 2 breaks"),
        ("DELETE FROM control_look WHERE seq = 2", "look 2 is missing"),
        ("DELETE FROM control_look WHERE seq = 1", "look 1 is missing"),
    ],
)
@pytest.mark.usefixtures("four_months")
def test_a_month_whose_chain_is_broken_is_evidence_and_stays(statement: str, why: str) -> None:
    behind_the_triggers_back(statement)
    with pytest.raises(ControlError, match=why):
        look_months.drop_old(31, now=NOW)
    assert not AuditEntry.objects.exists()
    with pytest.raises(CommandError, match="The data-access log breaks at look"):
        call_command("audit", "verify")


def _without_a_checkpoint() -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("DROP TABLE control_look_202512")


def _forged_checkpoint() -> None:
    """What someone who may append to the audit log, but has no key, would write."""
    first, *_, last = Look.objects.filter(at__lt=NOW.replace(month=1, day=1)).order_by("seq")
    _without_a_checkpoint()
    point = look_months.Checkpoint(
        "control_look_202512",
        first.seq,
        last.seq,
        3,
        first.at.isoformat(),
        last.at.isoformat(),
        first.prev_hash,
        last.hash,
    )
    key = Ed25519PrivateKey.generate()
    look_months._note(point, NOW, 31, key)


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_without_a_checkpoint, "look 1 is missing"),
        (_forged_checkpoint, "signed by a key that is not in config.pub"),
    ],
)
@pytest.mark.usefixtures("four_months")
def test_what_is_gone_unlawfully_is_found(harm, why: str) -> None:
    harm()
    broken = look_months.verify().broken
    assert broken is not None
    assert why in broken.why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"entries": 2}, "its numbers do not agree"),
        ({"first_seq": 2}, "does not continue"),
        ({"prev_hash": "f" * 64}, "does not continue"),
        ({"last_at": "2026-01-31T00:00:00+00:00"}, "its signature is wrong"),
        ({"signature": "zz"}, "its signature is wrong"),
        ({"last_seq": "three"}, "cannot be read"),
        ({"first_at": "then"}, "cannot be read"),
    ],
)
@pytest.mark.usefixtures("four_months")
def test_a_checkpoint_that_was_changed_is_found(change: dict, why: str) -> None:
    look_months.drop_old(62, now=NOW)
    entry = AuditEntry.objects.get()
    with without_triggers():
        entry.after |= change
        entry.save()
    broken = look_months.verify().broken
    assert broken is not None
    assert why in broken.why


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE control_look SET what = 'x'",
        "DELETE FROM control_look",
        "TRUNCATE control_look",
        "TRUNCATE control_look_202601",
        "DELETE FROM control_look_202601",
        "INSERT INTO control_look SELECT 99, at, actor, actor_login, actor_role, app, what, ticket,"
        " prev_hash, hash FROM control_look WHERE seq = 3",
        "INSERT INTO control_look SELECT 13, now(), actor, actor_login, actor_role, app, what,"
        " ticket, (SELECT hash FROM control_look WHERE seq = 12), hash FROM control_look"
        " WHERE seq = 3",
    ],
)
@pytest.mark.usefixtures("four_months")
def test_the_database_refuses_to_rewrite_looks(statement: str) -> None:
    look_months.ensure()
    with (
        pytest.raises(DatabaseError, match=r"append-only|does not continue"),
        transaction.atomic(),
        # whom no missing privilege holds back
        as_owner(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)
    assert (look_months.verify().entries, look_months.verify().broken) == (12, None)


def test_a_clock_that_goes_back_keeps_the_order_and_the_months_whole() -> None:
    look(NOW)
    look(NOW - timedelta(days=40), app="app_2")
    assert [row.at for row in Look.objects.all()] == [NOW, NOW]
    assert look_months.verify().broken is None


def test_months_are_made_ahead_once_and_a_look_makes_its_own() -> None:
    far = datetime(2021, 12, 31, 23, 59, tzinfo=UTC)
    assert look_months.ensure(far) == 3
    assert look_months.ensure(far) == 0
    look(datetime(2023, 1, 1, tzinfo=UTC))
    months = [(m.year, m.month) for m in look_months.existing()]
    assert {(2021, 12), (2022, 1), (2022, 2), (2023, 1)} <= set(months)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=30),
    app=st.text(max_size=150),
    what=st.text(max_size=150),
)
def test_database_and_console_hash_every_look_alike(name: str, app: str, what: str) -> None:
    app_looks.record_all([(app, what)], by=Actor(name, "login", "Support"))
    newest = Look.objects.first()
    assert newest is not None
    assert newest.hash == app_looks.digest(newest)


def test_the_page_says_what_was_dropped_and_when(four_months) -> None:
    look_months.drop_old(31, now=NOW)
    (later, earlier) = look_months.dropped()
    assert (earlier.entries, earlier.audit_seq) == (3, 1)
    assert earlier.first_at == datetime(2025, 12, 1, tzinfo=UTC)
    assert later.last_at == NOW.replace(month=1) + timedelta(hours=1)


def test_every_task_of_the_log_is_on_the_schedule(settings) -> None:
    tasks_on = {one["task"] for one in settings.CELERY_BEAT_SCHEDULE.values()}
    assert "control.tasks.keep_looks" in tasks_on
