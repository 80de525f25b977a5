"""Storing over REST: the account, what is buried, replays and discards."""

from __future__ import annotations

import pytest
from django.urls import reverse

from decider.contracts.event import encode_event
from decisions.models import BuriedEvent, DeciderRun, Decision
from tests.decisions.factory import event, id_at

pytestmark = pytest.mark.django_db


def buried(raw: bytes = b"rubbish") -> BuriedEvent:
    return BuriedEvent.objects.create(
        whole=False, entry="1-0", node="d01", raw=raw, size=len(raw), sqlstate="", reason="bad"
    )


def post(client, name: str, numbers: list, reason: str = "OPS-1"):
    return client.post(reverse(name), {"numbers": numbers, "reason": reason}, format="json")


def test_the_account_adds_up(caller) -> None:
    DeciderRun.objects.create(
        run=id_at(1.7e9).hex(), node="d01", sent=10, stored=7, lost=1, buried=1, dropped=2
    )
    found = caller("support").get(reverse("api-storing")).json()
    assert found["total"] == {
        "node": "All",
        "sampled": 12,
        "stored": 7,
        "buried": 1,
        "discarded": 0,
        "withheld": 0,
        "lost": 1,
        "dropped": 2,
        "on_their_way": 1,
    }
    assert found["deciders"][0]["node"] == "d01"
    assert found["waiting"] == 0


def test_buried_events_are_listed_in_pages_without_their_bytes(caller) -> None:
    made = [buried().pk for _ in range(3)]
    client = caller("auditor")
    first = client.get(reverse("api-buried"), {"limit": "2"}).json()
    assert [row["number"] for row in first["results"]] == made[:0:-1]
    assert "raw" not in first["results"][0]
    rest = client.get(reverse("api-buried"), {"before": first["next"]}).json()
    assert [row["number"] for row in rest["results"]] == made[:1]
    assert client.get(reverse("api-buried"), {"before": "x"}).status_code == 400


def test_an_event_is_stored_after_all(caller) -> None:
    made = event()
    answer = post(caller("sre"), "api-buried-replay", [buried(encode_event(made)).pk])
    assert answer.json() == {"stored": 1, "kept": 0}
    assert Decision.objects.filter(id=made.id.hex()).exists()


def test_what_cannot_be_stored_is_a_conflict_that_says_why(caller) -> None:
    answer = post(caller("sre"), "api-buried-replay", [buried().pk])
    assert answer.status_code == 409
    assert "None of them can be stored yet." in answer.json()["detail"]


def test_discarding_is_for_those_who_may(caller) -> None:
    one = buried()
    assert post(caller("auditor"), "api-buried-discard", [one.pk]).status_code == 403
    assert post(caller("policy_admin"), "api-buried-discard", [one.pk]).json() == {"discarded": 1}
    assert post(caller("policy_admin"), "api-buried-discard", [one.pk]).status_code == 409


@pytest.mark.parametrize("numbers", [[], [0], ["x"], [2**63], list(range(1, 202)), "1", None])
def test_numbers_are_checked(caller, numbers) -> None:
    assert post(caller("sre"), "api-buried-discard", numbers).status_code == 400
