"""Who may see the page of an app, who looked at it, and the notes beside it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from control.audit import app_looks as control_looks
from control.audit import look_months
from control.audit.actors import SYSTEM
from control.models import AppNote, Look
from decider.contracts.ids import format_decision_id
from tests.console.one_app import APP, HTMX, ROLES, text_of, url
from tests.decisions.factory import event
from tests.pages import shown

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("known")]


def test_a_note_is_added_and_stays(signed_in) -> None:
    client = signed_in("support")
    done = client.post(
        url("app-note"),
        {"text": "They replay their queue. https://example.org/SUP-1 <script>alert(1)</script>"},
        follow=True,
    )
    page = shown(done)
    assert "They replay their queue." in page
    assert "Mara Lindqvist, Support" in page
    assert "<script>alert" not in page


def test_a_note_that_says_nothing_is_refused(signed_in) -> None:
    assert "The note is empty." in text_of(
        signed_in("support").post(url("app-note"), {"text": "  "}, follow=True)
    )
    assert not AppNote.objects.exists()


def test_the_auditor_adds_no_note_and_is_told_who_can(signed_in) -> None:
    client = signed_in("auditor")
    assert client.post(url("app-note"), {"text": "x"}).status_code == 403
    assert 'disabled aria-describedby="who-notes"' in shown(client.get(url()))
    assert "Support, SRE, ML owner or Policy admin can do this." in text_of(client.get(url()))


@pytest.mark.parametrize("role", ROLES)
def test_who_sees_who_looked(signed_in, role: str) -> None:
    client = signed_in(role)
    sees = role in ("policy_admin", "auditor")
    assert ("Who looked at this app" in shown(client.get(url()))) is sees
    answer = client.get(url("app-looks"))
    assert answer.status_code == (200 if sees else 403)
    if sees:
        assert "Mara Lindqvist looked at Order sync last" in text_of(answer)


def test_nobody_looked_is_said(signed_in) -> None:
    assert "Nobody has looked at app_none" in text_of(
        signed_in("auditor").get(url("app-looks", app="app_none"))
    )


def test_the_page_says_which_looks_were_dropped_and_when(signed_in) -> None:
    at = datetime(2025, 1, 3, tzinfo=UTC)
    control_looks.record_all([(APP, "the page"), ("app_2", "the page")], by=SYSTEM, at=at)
    assert look_months.drop_old(31) == 1
    page = text_of(signed_in("auditor").get(url("app-looks")))
    assert "No look at" in page
    assert "Fri 3 Jan 2025, 00:00:00 UTC" in page
    assert "They are gone" in page
    assert f"{timezone.now():%d %b %Y}" in page


def test_polling_is_one_look(signed_in, stored) -> None:
    (one,) = [event()]
    stored([one])
    client = signed_in("support")
    name = format_decision_id(one.id)
    for _ in range(4):
        client.get(url())
        client.get(url("app-gauges"), **HTMX)
        client.get(reverse("decision", args=[name]))
    rows = Look.objects.order_by("seq")
    assert [row.what for row in rows] == ["the page", "the buckets", f"decision {name}"]
    assert {row.app for row in rows} == {APP}


def test_a_look_is_written_down_with_the_ticket_someone_works_on(signed_in) -> None:
    client = signed_in("support")
    kept = client.post(reverse("ticket"), {"ticket": " SUP-48119 ", "next": url()})
    assert kept["Location"] == url()
    page = shown(client.get(url()))
    assert 'value="SUP-48119"' in page
    assert Look.objects.get().ticket == "SUP-48119"
    client.post(reverse("ticket"), {"ticket": "", "next": url()})
    client.get(url())
    assert Look.objects.first().ticket == ""


def test_what_is_no_ticket_is_refused_and_the_old_one_stays(signed_in) -> None:
    client = signed_in("support")
    client.post(reverse("ticket"), {"ticket": "SUP-1"})
    page = client.post(reverse("ticket"), {"ticket": "<b>", "next": url()}, follow=True)
    assert "A ticket is letters, digits" in text_of(page)
    assert 'value="SUP-1"' in shown(page)


def test_nothing_is_shown_that_cannot_be_written_down(signed_in, monkeypatch) -> None:
    from control.audit import app_looks

    def full(*_: object, **__: object) -> None:
        raise OSError("no space")

    client = signed_in("support")
    monkeypatch.setattr(app_looks, "record_all", full)
    with pytest.raises(OSError, match="no space"):
        client.get(url())


@pytest.mark.parametrize("name", ["app", "app-gauges", "app-looks"])
def test_nobody_else_may(signed_in, name: str) -> None:
    assert signed_in("").get(url(name)).status_code == 403
    assert Client().get(url(name)).status_code == 302
    assert not Look.objects.exists()


@pytest.mark.parametrize(("name", "before"), [("app-note", ()), ("ticket", None)])
def test_changes_are_posted(signed_in, name: str, before) -> None:
    there = reverse(name) if before is None else url(name, *before)
    assert signed_in("support").get(there).status_code == 405


@pytest.mark.parametrize(
    "app", ["a/b/../c", "a\x00b", '"><script>alert(1)</script>', "x" * 3_000, "ü ñ"]
)
def test_hostile_names_are_shown_and_not_run(signed_in, decider, app: str) -> None:
    decider()
    client = signed_in("policy_admin")
    for name in ("app", "app-gauges", "app-looks"):
        answer = client.get(url(name, app=app))
        assert answer.status_code == 200
        assert "<script>alert" not in shown(answer)
