"""The page about storing: what became of sampled decisions, and what could not be stored."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from control import disk
from control.models import AuditEntry
from decider.contracts.event import encode_event
from decisions.models import BuriedEvent, DeciderRun, Decision
from tests.decisions.factory import event, id_at
from tests.pages import shown

pytestmark = pytest.mark.django_db
SETTLE = {"reason": "OPS-71, the decider was updated"}


def buried(raw: bytes = b"rubbish", **fields) -> BuriedEvent:
    base = {
        "whole": False,
        "entry": "1732790000000-0",
        "node": "d01",
        "raw": raw,
        "size": len(raw),
        "sqlstate": "",
        "reason": "Expected `int` <= 3 - at `tier`",
    }
    return BuriedEvent.objects.create(**(base | fields))


@pytest.fixture
def client_of(person):
    def make(role: str) -> Client:
        client = Client()
        client.force_login(person(role), backend="django.contrib.auth.backends.ModelBackend")
        return client

    return make


def test_with_nothing_stored_it_says_so(client_of) -> None:
    answer = client_of("support").get(reverse("storing"))
    assert answer.status_code == 200
    text = shown(answer)
    assert "Nothing was sampled yet" in text
    assert "No decider has sent any yet." in text


def test_it_says_what_became_of_each_deciders_sample(client_of) -> None:
    DeciderRun.objects.create(
        run="0190b5b4-0000-7000-8000-000000000001",
        node="d01",
        sent=1_000,
        stored=990,
        lost=10,
        dropped=7,
    )
    text = shown(client_of("auditor").get(reverse("storing")))
    assert "98.31% of sampled decisions are stored" in text
    for figure in ("1,007", "990", "10", "7"):
        assert figure in text


def test_it_lists_what_could_not_be_stored_with_the_reason(client_of) -> None:
    buried()
    buried(whole=True, node="", reason="These bytes are no batch", entry="2-0")
    text = shown(client_of("support").get(reverse("storing")))
    assert "2 sampled decisions could not be stored and wait" in text
    assert "at `tier`" in text
    assert "These bytes are no batch" in text
    assert "SRE or Policy admin can do this" in text


@pytest.mark.parametrize("role", ["support", "ml_owner", "auditor"])
def test_the_wrong_role_can_neither_replay_nor_discard(client_of, role) -> None:
    one = buried()
    answer = client_of(role).post(reverse("storing"), {**SETTLE, "do": "discard", "number": one.pk})
    assert answer.status_code == 403
    assert BuriedEvent.objects.exists()


@pytest.mark.parametrize("role", ["sre", "policy_admin"])
def test_what_can_be_stored_by_now_is_stored(client_of, role) -> None:
    made = event()
    one, other = buried(encode_event(made)), buried()
    client = client_of(role)
    there = reverse("storing")
    answer = client.post(
        there, {**SETTLE, "do": "replay", "number": [one.pk, other.pk]}, follow=True
    )
    assert "Stored: 1. 1 still cannot be stored." in shown(answer)
    assert Decision.objects.filter(id=made.id.hex()).exists()
    assert AuditEntry.objects.get(action="buried.replay").reason == SETTLE["reason"]


def test_what_is_discarded_is_gone(client_of) -> None:
    one = buried()
    answer = client_of("sre").post(
        reverse("storing"), {**SETTLE, "do": "discard", "number": one.pk}, follow=True
    )
    assert "Discarded: 1." in shown(answer)
    assert "Whatever arrived is stored." in shown(answer)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reason": ""}, "Say why; it is kept in the audit log."),
        ({"number": []}, "Choose at least one."),
        ({"number": ["9" * 40]}, "9999 is not one of the available choices"),
        ({"do": "burn"}, "Choose to replay or to discard."),
        ({"do": ""}, "Choose to replay or to discard."),
        ({"do": "replay"}, "None of them can be stored yet."),
    ],
)
def test_a_mistake_is_said_and_keeps_what_was_written(client_of, change, said) -> None:
    one = buried()
    given = {**SETTLE, "do": "discard", "number": [one.pk], **change}
    answer = client_of("sre").post(reverse("storing"), given)
    assert answer.status_code == 422
    text = shown(answer)
    assert said in text
    if given["reason"]:
        assert f'value="{SETTLE["reason"]}"' in text
    assert BuriedEvent.objects.exists()
    assert not AuditEntry.objects.exists()


def test_what_somebody_else_dealt_with_meanwhile_is_said(client_of) -> None:
    one = buried()
    client = client_of("sre")
    given = {**SETTLE, "do": "discard", "number": [one.pk]}
    client.post(reverse("storing"), given)
    answer = client.post(reverse("storing"), given)
    assert answer.status_code == 422


def test_home_leads_here_while_something_is_buried_or_lost(client_of) -> None:
    buried()
    DeciderRun.objects.create(
        run=id_at(1.7e9).hex(), node="d01", sent=10, stored=7, lost=3, lost_at="2999-01-01T00:00Z"
    )
    text = shown(client_of("sre").get(reverse("home")))
    assert "1 sampled decision could not be stored" in text
    assert "3 sampled decisions were lost" in text
    assert f'href="{reverse("storing")}"' in text


@pytest.fixture
def used(monkeypatch):
    """Has this much of the disk's 20 GB used."""

    def make(gb: float) -> None:
        use = disk.DiskUse(20 * disk.GB, int(gb * disk.GB), 0, 0, None)
        monkeypatch.setattr(disk, "_last", [])
        monkeypatch.setattr(disk, "measure", lambda: use)

    return make


@pytest.mark.parametrize(
    ("gb", "said"),
    [
        (17.5, "Admits are no longer stored"),
        (18.5, "No decision is stored any more"),
        (19.5, "nothing can be changed but from a shell"),
    ],
)
def test_home_and_the_page_say_what_has_stopped_for_lack_of_disk(client_of, used, gb, said) -> None:
    used(gb)
    client = client_of("sre")
    for name in ("home", "storing"):
        assert said in shown(client.get(reverse(name)))
    assert f"The disk has {20 - gb:.1f} GB left for Sluice" in shown(client.get(reverse("home")))
    assert f"{gb} GB of 20 GB of disk are used." in shown(client.get(reverse("home")))


def test_with_room_nothing_is_said_to_have_stopped(client_of, used) -> None:
    used(5)
    client = client_of("sre")
    assert "left for Sluice" not in shown(client.get(reverse("home")))
    assert "Nothing has stopped for lack of disk." in shown(client.get(reverse("storing")))


def test_in_the_last_gigabyte_a_change_is_answered_with_a_sentence(client_of, used) -> None:
    one = buried()
    used(19.5)
    answer = client_of("sre").post(
        reverse("storing"), {**SETTLE, "do": "discard", "number": one.pk}
    )
    assert answer.status_code == 422
    assert "The disk is full up to its last gigabyte" in shown(answer)
    assert BuriedEvent.objects.exists()
