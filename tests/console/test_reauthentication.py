"""Clearing a switch needs a password of the last minutes; engaging one does not."""

from __future__ import annotations

import time

import pytest
from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.urls import reverse

from console.frame import sessions
from console.frame.sign_in import reauthentication
from control.audit.actors import SYSTEM
from control.config import changes
from control.models import SwitchFlip
from control.people import guessing
from tests.console.conftest import PASSWORD
from tests.pages import shown

CLEAR = "/switches/all_ml/clear"
ENGAGED = {"reason": "INC-7", "ends": "2h", "confirm": "all ml"}
CLEARED = {"reason": "It was the feed", "confirm": "all ml"}


@pytest.fixture
def sre(signed_in, installation, settings) -> Client:
    """An SRE who signed in just now, with the switch engaged."""
    settings.SLUICE_MODELS = installation / "models"
    changes.first(by=SYSTEM, reason="A new installation")
    client = signed_in("sre")
    assert client.post("/switches/all_ml/engage", ENGAGED).status_code == 302
    return client


def age(client: Client, seconds: float) -> None:
    """Make the last sign-in older."""
    session = client.session
    session["proved_at"] = time.time() - seconds
    session.save()


def cleared() -> bool:
    return not SwitchFlip.objects.filter(ended_at=None).exists()


def test_who_signed_in_just_now_clears_at_once(sre) -> None:
    assert sre.get(CLEAR).status_code == 200
    assert sre.post(CLEAR, CLEARED)["Location"] == reverse("switches")
    assert cleared()


def test_later_the_password_is_asked_for_and_then_one_is_back_at_the_form(sre) -> None:
    age(sre, settings.REAUTHENTICATION_S + 1)
    there = sre.get(CLEAR)["Location"]
    assert there == "/confirm?next=%2Fswitches%2Fall_ml%2Fclear"
    assert "Nothing was changed yet." in shown(sre.get(there))
    key = sre.session.session_key
    done = sre.post(reverse("confirm"), {"password": PASSWORD, "next": CLEAR})
    assert done["Location"] == CLEAR
    assert sre.session.session_key != key
    assert sre.post(CLEAR, CLEARED).status_code == 302
    assert cleared()


def test_a_form_that_is_posted_late_changes_nothing(sre) -> None:
    age(sre, settings.REAUTHENTICATION_S + 1)
    assert sre.post(CLEAR, CLEARED)["Location"].startswith("/confirm?")
    assert not cleared()


def test_a_sheet_leads_the_whole_page_to_the_question(sre) -> None:
    age(sre, settings.REAUTHENTICATION_S + 1)
    answer = sre.get(CLEAR, headers={"hx-request": "true"})
    assert answer["HX-Redirect"] == "/confirm?next=%2Fswitches%2Fall_ml%2Fclear"


def test_engaging_never_waits_for_a_password(sre) -> None:
    sre.post(CLEAR, CLEARED)
    age(sre, settings.REAUTHENTICATION_S + 1)
    assert sre.post("/switches/all_ml/engage", ENGAGED)["Location"] == reverse("switches")
    assert not cleared()


@pytest.mark.parametrize("kept", [None, "text", float("nan"), -1.0, True])
def test_a_session_that_does_not_say_when_is_asked(sre, kept) -> None:
    session = sre.session
    session["proved_at"] = kept
    session.save()
    assert sre.get(CLEAR)["Location"].startswith("/confirm")


def test_a_time_ahead_of_the_clock_is_not_believed(sre) -> None:
    age(sre, -3600)
    assert sre.get(CLEAR)["Location"].startswith("/confirm")


def test_wrong_passwords_wait_there_as_they_do_at_sign_in(sre) -> None:
    age(sre, settings.REAUTHENTICATION_S + 1)
    for _ in range(guessing.FREE_OF_NAME):
        wrong = sre.post(reverse("confirm"), {"password": "not-it", "next": CLEAR})
        assert (wrong.status_code, "do not match" in shown(wrong)) == (422, True)
    waits = sre.post(reverse("confirm"), {"password": PASSWORD, "next": CLEAR})
    assert (waits.status_code, waits["Retry-After"]) == (429, "1")
    assert sre.get(CLEAR)["Location"].startswith("/confirm")


def test_it_takes_no_other_persons_password_and_leads_nowhere_else(sre, person) -> None:
    other = person("support")
    other.set_password("another-password-here")
    other.save()
    age(sre, settings.REAUTHENTICATION_S + 1)
    answer = sre.post(
        reverse("confirm"), {"email": other.username, "password": "another-password-here"}
    )
    assert answer.status_code == 422
    away = {"password": PASSWORD, "next": "https://evil.example/"}
    assert sre.post(reverse("confirm"), away)["Location"] == "/"


def test_nobody_else_sees_the_question(client, db) -> None:
    assert client.get(reverse("confirm"))["Location"].startswith("/login")


def test_an_operation_of_the_api_is_refused_with_what_to_do(rf) -> None:
    request = rf.post("/api/v1/x")
    request.session = {}
    with pytest.raises(PermissionDenied, match=r"Give your password again at /confirm first"):
        reauthentication.require_recent(request)
    sessions.note_proof(request)
    reauthentication.require_recent(request)
