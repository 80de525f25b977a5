"""Looks into an app's data are written down once, whoever looks, whatever they look at."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import IntegrityError, InternalError, connection, connections, transaction
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from control.audit import app_looks, chain, look_months
from control.audit.actors import SYSTEM, Actor
from control.directory import notes
from control.errors import Refused
from control.models import AppNote, AuditEntry, Look
from tests.control.conftest import DELE
from tests.database import as_owner

pytestmark = pytest.mark.django_db
MARA = Actor("Mara Lindqvist", "support@demo.sluice.example", "Support")


def record(*, by: Actor, app: str, what: str, ticket: str = "") -> Look | None:
    """Record one look; return its entry, None when there is one already."""
    made = app_looks.record_all([(app, what)], by=by, ticket=ticket)
    return Look.objects.first() if made else None


def test_a_look_says_who_what_when_and_for_which_ticket() -> None:
    record(by=MARA, app="app_1", what="the page", ticket="SUP-48119")
    (found,) = app_looks.latest_looks("app_1")
    assert (found.name, found.role, found.what, found.ticket) == (
        "Mara Lindqvist",
        "Support",
        "the page",
        "SUP-48119",
    )
    assert (found.log, found.seq) == ("looks", 1)
    assert (look_months.verify().entries, look_months.verify().broken) == (1, None)


def test_the_same_look_within_five_minutes_is_one_row(monkeypatch) -> None:
    for _ in range(20):
        record(by=MARA, app="app_1", what="the page")
    assert Look.objects.count() == 1
    later = timezone.now() + app_looks.AGAIN + timedelta(seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)
    app_looks.record_all([("app_1", "the page")], by=MARA, at=later)
    assert Look.objects.count() == 2


def test_the_looks_of_one_answer_are_one_statement_and_hold_in_the_chain(
    django_assert_max_num_queries,
) -> None:
    record(by=MARA, app="app_3", what="lookup results")
    with django_assert_max_num_queries(2):
        made = app_looks.record_all(
            [(f"app_{k}", "lookup results") for k in range(200)] * 2, by=MARA
        )
    assert [app for app, _ in made] == [f"app_{k}" for k in range(200) if k != 3]
    assert (Look.objects.count(), look_months.verify().broken) == (200, None)
    assert (
        app_looks.record_all([("app_5", "lookup results"), ("app_3", "lookup results")], by=MARA)
        == []
    )


def test_a_look_at_every_app_is_found_from_each() -> None:
    record(by=MARA, app=app_looks.EVERY_APP, what="a CSV export")
    assert [x.what for x in app_looks.latest_looks("app_1")] == ["a CSV export of every app"]


def test_another_person_page_app_or_ticket_is_another_look() -> None:
    record(by=MARA, app="app_1", what="the page")
    record(by=DELE, app="app_1", what="the page")
    record(by=MARA, app="app_2", what="the page")
    record(by=MARA, app="app_1", what="the buckets")
    record(by=MARA, app="app_1", what="the page", ticket="SUP-1")
    assert Look.objects.count() == 5
    assert [(x.name, x.what, x.ticket) for x in app_looks.latest_looks("app_1")] == [
        ("Mara Lindqvist", "the page", "SUP-1"),
        ("Mara Lindqvist", "the buckets", ""),
        ("Dele Okafor", "the page", ""),
        ("Mara Lindqvist", "the page", ""),
    ]


@pytest.mark.parametrize("text", ["SUP-48119", "#1234", "INC-2291", "a/b.c_9", " SUP-1 "])
def test_a_ticket_is_taken(text: str) -> None:
    assert app_looks.check_ticket(text) == text.strip()


@pytest.mark.parametrize("text", ["SUP", "x", "SUP 1", "<b>1</b>", "1" * 41, "a\x001", "Ü-1"])
def test_what_is_no_ticket_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="for example SUP-48119"):
        record(by=MARA, app="app_1", what="the page", ticket=text)
    assert not Look.objects.exists()


@given(st.text("aZ09#/._- \n", max_size=42) | st.from_regex(app_looks.TICKET_FORM, fullmatch=True))
def test_the_form_in_the_api_document_is_the_one_that_is_checked(text: str) -> None:
    fits = (
        2 <= len(text) <= app_looks.LONGEST_TICKET
        and re.fullmatch(app_looks.TICKET_FORM[1:-1], text) is not None
    )
    assert (app_looks._TICKET.fullmatch(text) is not None) is fits


@pytest.mark.parametrize("app", ["", "a\x00b", "x" * 5_000, "\ud83d", "<script>"])
def test_a_look_at_whatever_was_in_an_address_is_kept(app: str) -> None:
    assert record(by=MARA, app=app, what="the page") is not None
    assert len(app_looks.latest_looks(app)) == 1


@pytest.mark.django_db(transaction=True)
def test_looks_at_the_same_moment_are_one_row() -> None:
    def look(_: int) -> None:
        record(by=MARA, app="app_1", what="the page")
        connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(12)))
    assert Look.objects.count() == 1


def test_a_look_that_is_recorded_already_is_one_query_that_an_index_answers(
    django_assert_num_queries,
) -> None:
    for k in range(300):
        record(by=SYSTEM, app=f"app_{k % 7}", what=f"decision {k}")
    record(by=MARA, app="app_1", what="the page")
    with django_assert_num_queries(1):
        record(by=MARA, app="app_1", what="the page")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        same = Look.objects.filter(app="app_1", at__gt=timezone.now() - app_looks.AGAIN)
        assert "app_at_idx" in same.order_by().explain()


def test_looks_of_before_stay_in_the_audit_log_and_are_shown_behind_the_new(monkeypatch) -> None:
    chain.append(
        by=DELE,
        reason="Ticket SUP-7",
        action=app_looks.ACTION,
        subject="app_1",
        summary="looked at the page of app app_1",
        after={"what": "the page", "ticket": "SUP-7"},
    )
    record(by=MARA, app="app_1", what="the buckets")
    assert [(x.log, x.seq, x.name, x.what, x.ticket) for x in app_looks.latest_looks("app_1")] == [
        ("looks", 1, "Mara Lindqvist", "the buckets", ""),
        ("audit", 1, "Dele Okafor", "the page", "SUP-7"),
    ]
    assert [x.what for x in app_looks.latest_looks("app_1", 1)] == ["the buckets"]
    assert chain.verify().broken is None


def test_a_note_is_kept_with_its_author_and_its_audit_row() -> None:
    notes.add(by=MARA, app="app_1", text=" They rotated a token. \nExpect a burst. ")
    (found,) = notes.latest_notes("app_1")
    assert (found.text, found.by, found.by_role) == (
        "They rotated a token. \nExpect a burst.",
        "Mara Lindqvist",
        "Support",
    )
    assert AuditEntry.objects.get().action == "note.add"


@pytest.mark.parametrize(
    ("app", "text"),
    [("app_1", " "), ("app_1", "x" * 1001), ("app_1", "a\x00"), ("", "a"), ("a\x00", "a")],
)
def test_a_note_that_cannot_be_kept_says_why(app: str, text: str) -> None:
    with pytest.raises(Refused):
        notes.add(by=MARA, app=app, text=text)
    assert not AppNote.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE control_appnote SET text = 'x'",
        "DELETE FROM control_appnote",
        "TRUNCATE control_appnote",
    ],
)
def test_the_database_keeps_notes_as_written(change: str) -> None:
    notes.add(by=MARA, app="app_1", text="Expect a burst.")
    with (
        pytest.raises((InternalError, IntegrityError), match="append-only"),
        transaction.atomic(),
        as_owner(),
        connection.cursor() as cursor,
    ):
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(change)
    assert notes.latest_notes("app_1")[0].text == "Expect a burst."
