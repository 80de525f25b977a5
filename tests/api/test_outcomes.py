"""Outcomes and disputes over REST."""

from __future__ import annotations

import pytest

from decisions.models import Dispute, Outcome
from tests.api.conftest import problem
from tests.decisions.factory import event

OUTCOMES, DISPUTES = "/api/v1/outcomes", "/api/v1/disputes"


def report(key: str = "cb-1", **changes: object) -> dict:
    one = {"key": key, "kind": "chargeback", "occurred_at": "2026-11-01T12:00:00Z", "app": "app_7q2m4kx9"} | changes
    return {"outcomes": [one], "reason": "the bank's daily file"}


def test_a_report_sent_again_changes_nothing_and_another_content_is_a_conflict(caller) -> None:
    client = caller("ml_owner")
    assert client.post(OUTCOMES, report(), format="json").json() == {"stored": 1, "repeated": 0}
    assert client.post(OUTCOMES, report(), format="json").json() == {"stored": 0, "repeated": 1}
    assert problem(client.post(OUTCOMES, report(weight=2.0), format="json"))["status"] == 409
    assert Outcome.objects.count() == 1
    assert [row["key"] for row in client.get(OUTCOMES, {"app": "app_7q2m4kx9"}).json()] == ["cb-1"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"kind": "rumour"}, "/outcomes/0/kind"),
        ({"weight": -1}, "/outcomes/0/weight"),
        ({"decision": "dec_1"}, "/outcomes/0/decision"),
        ({"occurred_at": "2099-01-01T00:00:00Z"}, "/outcomes/0/occurred_at"),
        ({"app": ""}, "/outcomes/0/"),
    ],
)
def test_what_is_wrong_is_said_at_its_place_and_nothing_is_stored(caller, changes, pointer) -> None:
    answer = caller("ml_owner").post(OUTCOMES, report(**changes), format="json")
    assert answer.status_code == 400
    assert problem(answer)["errors"][0]["pointer"].startswith(pointer)
    assert not Outcome.objects.exists()


def test_support_reads_outcomes_and_reports_none(caller) -> None:
    client = caller("support")
    assert client.get(OUTCOMES).json() == []
    assert problem(client.post(OUTCOMES, report(), format="json"))["status"] == 403


def test_a_dispute_is_opened_by_one_and_decided_by_another(caller, store) -> None:
    (refused,) = store([event()])
    support, other = caller("support"), caller("sre")
    asked = {"decision": f"dec_{refused.id.hex()}", "reason": "a nightly batch, agreed with us", "ticket": "SUP-1"}
    opened = support.post(DISPUTES, asked, format="json")
    assert opened.status_code == 201
    number = opened.json()["number"]
    assert [row["number"] for row in support.get(DISPUTES).json()] == [number]
    verdict = {"verdict": "uphold", "reason": "it was announced"}
    assert problem(support.post(f"{DISPUTES}/{number}/verdict", verdict, format="json"))["status"] == 403
    assert other.post(f"{DISPUTES}/{number}/verdict", verdict, format="json").json()["state"] == "upheld"
    assert problem(other.post(f"{DISPUTES}/{number}/verdict", verdict, format="json"))["status"] == 409
    assert Outcome.objects.get().kind == "false_throttle"


def test_who_opened_a_dispute_does_not_decide_it(caller, store) -> None:
    (refused,) = store([event()])
    one = caller("sre")
    number = one.post(DISPUTES, {"decision": f"dec_{refused.id.hex()}", "reason": "odd"}, format="json").json()["number"]
    answer = one.post(f"{DISPUTES}/{number}/verdict", {"verdict": "uphold", "reason": "I say so"}, format="json")
    assert problem(answer)["status"] == 409
    assert Dispute.objects.get().state == "open"


def test_a_dispute_that_is_not_there_is_a_404(caller) -> None:
    assert problem(caller().get(f"{DISPUTES}/999"))["status"] == 404
