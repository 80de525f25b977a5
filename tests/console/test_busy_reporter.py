"""While someone's report of 10,000 outcomes is being stored, everybody else goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connections
from django.urls import reverse

from control.audit import chain, look_months
from control.audit.actors import Actor
from control.models import Look
from control.switches import switches
from decisions.models import Outcome
from decisions.outcomes import reports
from decisions.outcomes.reports import Conflicts, Report
from tests.console.one_app import APP

pytestmark = pytest.mark.django_db(transaction=True)
REPORTER = Actor("Priya Raman", "fraud@example.org", "Support")
WITHIN_S = 10
"""Far above what a flip takes, far below what the report would hold the others up for."""


def report(k: int, note: str = "") -> Report:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Report(key=f"key-{k}", kind="fraud_confirmed", occurred_at=at, app=APP, note=note)


def store(some: list[Report]) -> reports.Reported:
    try:
        return reports.report_all(some, by=REPORTER, reason="The batch of March", source="api")
    finally:
        connections.close_all()


@pytest.fixture
def halfway(monkeypatch) -> Iterator[threading.Event]:
    """A report of 10,000 outcomes whose rows are stored and whose transaction stays open until the
    event is set.
    """
    stored, go_on, note = threading.Event(), threading.Event(), reports._note

    def wait(*args: object) -> None:
        stored.set()
        assert go_on.wait(60)
        note(*args)

    monkeypatch.setattr(reports, "_note", wait)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(store, [report(k) for k in range(reports.MOST)])
        assert stored.wait(60)
        yield go_on
        go_on.set()
        assert done.result(60).stored == reports.MOST


def elsewhere(do):
    def alone():
        try:
            return do()
        finally:
            connections.close_all()

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(alone).result(WITHIN_S)
    finally:
        pool.shutdown(wait=False)


def test_a_flip_goes_through(known, halfway) -> None:
    try:
        row = elsewhere(
            lambda: switches.engage("all_ml", by=REPORTER, reason="Scores look wrong", until=None)
        )
        assert row.version == 2
        assert not Outcome.objects.exists()
    finally:
        halfway.set()


def test_a_page_that_records_a_look_is_shown(known, signed_in, halfway) -> None:
    client = signed_in("support")
    try:
        answer = elsewhere(lambda: client.get(reverse("app", args=[APP])))
        assert answer.status_code == 200
        assert Look.objects.get().what == "the page"
        assert look_months.verify().broken is None
    finally:
        halfway.set()


def test_the_report_is_one_entry_with_a_digest_of_its_outcomes(known) -> None:
    store([report(k) for k in range(30)])
    entry = chain.AuditEntry.objects.get(action="outcome.report")
    assert (entry.action, entry.after["stored"], len(entry.after["keys"])) == (
        "outcome.report",
        30,
        20,
    )
    assert len(entry.after["digest"]) == 64
    other = [Outcome(key=f"k{k}", digest="0" * 64, source="api") for k in range(2)]
    digests = {str(reports._after(rows)) for rows in (other, other[:1], [other[1], other[0]])}
    assert len(digests) == 3
    assert reports._after(other)["digest"] == reports._after([other[1], other[0]])["digest"]


def test_two_reports_of_the_same_keys_at_once_store_each_outcome_once(known, monkeypatch) -> None:
    looked, fresh = threading.Barrier(2), reports._fresh
    tries = []

    def both_look_first(some: list[Report]) -> list[int]:
        found = fresh(some)
        tries.append(len(found))
        if len(tries) <= 2:
            looked.wait(WITHIN_S)
        return found

    monkeypatch.setattr(reports, "_fresh", both_look_first)
    some = [report(k) for k in range(50)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(store, [some, some[::-1]]))
    assert sorted((d.stored, d.repeated) for d in done) == [(0, 50), (50, 0)]
    assert sorted(tries) == [0, 50, 50]
    assert Outcome.objects.count() == 50
    assert chain.verify().broken is None


def test_another_outcome_under_a_key_that_was_just_stored_is_a_conflict(known, monkeypatch) -> None:
    fresh, first = reports._fresh, [True]

    def someone_is_faster(some: list[Report]) -> list[int]:
        found = fresh(some)
        if first.pop() if first else False:
            elsewhere(lambda: store([report(1, "another")]))
        return found

    monkeypatch.setattr(reports, "_fresh", someone_is_faster)
    with pytest.raises(Conflicts, match="used before"):
        store([report(k) for k in range(3)])
    assert Outcome.objects.count() == 1
