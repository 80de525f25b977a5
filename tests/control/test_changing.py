"""A change and its entries commit together, and the chain is held for its last statement only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection, connections, transaction

from control import locks
from control.audit import app_looks, chain
from control.audit.actors import SYSTEM
from control.config import changes
from control.deciders import formats
from control.directory import notes
from control.errors import Refused
from control.locks import Lock
from control.models import AppNote, AuditEntry, Tenant
from control.switches import switches
from tests.control.conftest import DELE
from tests.database import as_superuser

WITHIN_S = 5
"""A lock that is held makes the others wait until the test ends it, far longer than this."""


def entry(k: int = 0) -> AuditEntry:
    return chain.append(by=DELE, reason=f"Because {k}", action="test.act", subject="x", summary="x")


def elsewhere(do: Callable[[], object]) -> object:
    """Do something on a connection of its own. Raises TimeoutError when it has to wait."""

    def alone() -> object:
        try:
            return do()
        finally:
            connections.close_all()

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(alone).result(WITHIN_S)
    finally:
        pool.shutdown(wait=False)


@contextmanager
def held(lock: Lock):
    with transaction.atomic():
        locks.hold(lock)
        yield


@pytest.mark.django_db
def test_an_entry_has_its_number_when_the_change_ends_and_not_before() -> None:
    with chain.changing():
        one, two = entry(1), entry(2)
        assert (one.seq, AuditEntry.objects.count()) == (None, 0)
    assert (one.seq, two.seq, two.prev_hash) == (1, 2, one.hash)
    assert AuditEntry.objects.get(seq=2).hash == two.hash == chain.digest(two)
    assert chain.verify().broken is None


@pytest.mark.django_db
def test_a_change_that_fails_leaves_neither_its_rows_nor_its_entries() -> None:
    with pytest.raises(OSError, match="no space"), chain.changing():
        Tenant.objects.create(id="t", name="T")
        entry()
        raise OSError("no space")
    assert not Tenant.objects.exists()
    entry(1)
    assert [row.reason for row in AuditEntry.objects.all()] == ["Because 1"]


@pytest.mark.django_db
def test_a_part_of_a_change_is_undone_alone() -> None:
    with chain.changing():
        entry(1)
        with pytest.raises(Refused), chain.changing():
            Tenant.objects.create(id="t", name="T")
            entry(2)
            raise Refused("Not this.")
        entry(3)
    assert not Tenant.objects.exists()
    reasons = AuditEntry.objects.order_by("seq").values_list("reason", flat=True)
    assert list(reasons) == ["Because 1", "Because 3"]


@pytest.mark.django_db(transaction=True)
def test_a_change_within_another_transaction_is_a_mistake() -> None:
    with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
        entry()


@pytest.mark.django_db(transaction=True)
def test_a_long_change_holds_up_no_other() -> None:
    with chain.changing():
        Tenant.objects.create(id="t", name="T")
        mine = entry(1)
        theirs = elsewhere(lambda: entry(2).seq)
    assert (theirs, mine.seq) == (1, 2)
    assert chain.verify() == chain.ChainState(2, mine.hash, None)


@pytest.mark.parametrize("lock", list(Lock))
@pytest.mark.django_db(transaction=True)
def test_who_waits_for_a_lock_of_one_kind_holds_up_no_other_kind(lock: Lock) -> None:
    with held(lock):
        elsewhere(lambda: notes.add(by=DELE, app="app_1", text="Expect a burst."))
        elsewhere(lambda: app_looks.record_all([("app_1", "the page")], by=DELE))
        if lock != Lock.CONFIG:
            elsewhere(lambda: changes.first(by=SYSTEM, reason="A new installation"))


@pytest.mark.django_db(transaction=True)
def test_two_who_append_at_once_keep_one_chain() -> None:
    ready = threading.Barrier(4)

    def many(worker: int) -> None:
        try:
            for k in range(15):
                ready.wait(WITHIN_S)
                with chain.changing():
                    entry(k)
                    entry(worker)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, range(4)))
    state = chain.verify()
    assert (state.entries, state.broken) == (120, None)


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_dies_before_the_commit_leaves_neither() -> None:
    def die() -> None:
        with chain.changing():
            AppNote.objects.create(app="a", text="x", by="x", by_role="x")
            entry()
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                (pid,) = cursor.fetchone()
            elsewhere(lambda: end(pid))

    def end(pid: int) -> None:
        with as_superuser(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    with pytest.raises(OperationalError):
        die()
    connection.close()
    assert (AppNote.objects.count(), AuditEntry.objects.count()) == (0, 0)
    assert entry().seq == 1


@pytest.mark.django_db
def test_deciders_are_asked_before_the_config_is_locked(first, monkeypatch) -> None:
    asked = []

    def check_readable(*_: object) -> None:
        assert chain._change.entries is None
        asked.append(True)

    monkeypatch.setattr(formats, "check_readable", check_readable)
    switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
    assert asked == [True]


@pytest.mark.django_db
def test_a_format_that_someone_else_brings_in_meanwhile_is_not_passed_on_unchecked(
    first, monkeypatch
) -> None:
    forms = iter([(1, ""), (4, "costs"), (1, "")])
    monkeypatch.setattr(changes, "needed_format", lambda *_: next(forms))
    with pytest.raises(Refused, match="at the same moment"):
        switches.engage("all_ml", by=DELE, reason="Scores look wrong", until=None)
