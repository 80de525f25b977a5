"""Outcomes and disputes over REST."""

from __future__ import annotations

import pytest

from decisions.models import Dispute, Outcome
from tests.api.conftest import problem
from tests.decisions.factory import event

OUTCOMES, DISPUTES = "/api/v1/outcomes", "/api/v1/disputes"


def report(key: str = "cb-1", **changes: object) -> dict:
    one = {
        "key": key,
        "kind": "chargeback",
        "occurred_at": "2026-11-01T12:00:00Z",
        "app": "app_7q2m4kx9",
    } | changes
    return {"outcomes": [one], "reason": "the bank's daily file"}


def test_a_report_sent_again_changes_nothing_and_another_content_is_a_conflict(caller) -> None:
    client = caller("ml_owner")
    assert client.post(OUTCOMES, report(), format="json").json() == {"stored": 1, "repeated": 0}
    assert client.post(OUTCOMES, report(), format="json").json() == {"stored": 0, "repeated": 1}
    assert problem(client.post(OUTCOMES, report(weight=2.0), format="json"))["status"] == 409
    assert Outcome.objects.count() == 1
    assert [
        row["key"] for row in client.get(OUTCOMES, {"app": "app_7q2m4kx9"}).json()["results"]
    ] == ["cb-1"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"kind": "rumour"}, "/outcomes/0/kind"),
        ({"kind": "false_throttle"}, "/outcomes/0/kind"),
        ({"kind": "correct_refusal"}, "/outcomes/0/kind"),
        ({"weight": -1}, "/outcomes/0/weight"),
        ({"weight": 1e9}, "/outcomes/0/weight"),
        ({"receipt": "not a receipt"}, "/outcomes/0/receipt"),
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


def test_what_is_not_tied_is_told_and_listed_alone(caller) -> None:
    client = caller("ml_owner")
    client.post(OUTCOMES, report("tied"), format="json")
    client.post(OUTCOMES, report("lost", app="", request_id="req_1"), format="json")
    (lost,) = client.get(OUTCOMES, {"tie": "unknown"}).json()["results"]
    assert (lost["key"], lost["tie"], lost["tied_app"], lost["tied_by"]) == (
        "lost",
        "unknown",
        "",
        "",
    )
    assert lost["tried_next"] is not None
    (tied,) = client.get(OUTCOMES, {"tie": "tied"}).json()["results"]
    assert (tied["tied_app"], tied["tied_by"], tied["tried_next"]) == ("app_7q2m4kx9", "app", None)
    assert problem(client.get(OUTCOMES, {"tie": "maybe"}))["status"] == 400


def test_support_reads_outcomes_and_reports_none(caller) -> None:
    client = caller("support")
    assert client.get(OUTCOMES).json() == {"results": [], "next": None}
    assert problem(client.post(OUTCOMES, report(), format="json"))["status"] == 403


def test_a_dispute_is_opened_by_one_and_decided_by_another(caller, store) -> None:
    (refused,) = store([event()])
    support, other = caller("support"), caller("sre")
    asked = {
        "decision": f"dec_{refused.id.hex()}",
        "reason": "a nightly batch, agreed with us",
        "ticket": "SUP-1",
    }
    opened = support.post(DISPUTES, asked, format="json")
    assert opened.status_code == 201
    number = opened.json()["number"]
    assert [row["number"] for row in support.get(DISPUTES).json()["results"]] == [number]
    verdict = {"verdict": "uphold", "reason": "it was announced"}
    assert (
        problem(support.post(f"{DISPUTES}/{number}/verdict", verdict, format="json"))["status"]
        == 403
    )
    assert (
        other.post(f"{DISPUTES}/{number}/verdict", verdict, format="json").json()["state"]
        == "upheld"
    )
    assert (
        problem(other.post(f"{DISPUTES}/{number}/verdict", verdict, format="json"))["status"] == 409
    )
    assert Outcome.objects.get().kind == "false_throttle"


def test_who_opened_a_dispute_does_not_decide_it(caller, store) -> None:
    (refused,) = store([event()])
    one = caller("sre")
    number = one.post(
        DISPUTES, {"decision": f"dec_{refused.id.hex()}", "reason": "odd"}, format="json"
    ).json()["number"]
    answer = one.post(
        f"{DISPUTES}/{number}/verdict", {"verdict": "uphold", "reason": "I say so"}, format="json"
    )
    assert problem(answer)["status"] == 409
    assert Dispute.objects.get().state == "open"


def test_a_dispute_that_is_not_there_is_a_404(caller) -> None:
    assert problem(caller().get(f"{DISPUTES}/999"))["status"] == 404


def walked(client, address: str, cursor: str, **asked: object) -> list[dict]:
    """All rows, page after page."""
    rows: list[dict] = []
    while True:
        page = client.get(address, asked | {"limit": 2}).json()
        rows += page["results"]
        if page["next"] is None:
            return rows
        asked[cursor] = page["next"]


@pytest.mark.parametrize("asked", [{}, {"app": "app_7q2m4kx9"}])
def test_outcomes_go_back_page_by_page_without_gap_or_repeat(caller, asked) -> None:
    client = caller("ml_owner")
    for key in range(7):  # two of each moment, stored in two reports
        at = f"2026-11-0{1 + key // 2}T12:00:00Z"
        assert (
            client.post(OUTCOMES, report(f"cb-{key}", occurred_at=at), format="json").status_code
            == 201
        )
    assert [row["key"] for row in walked(client, OUTCOMES, "before", **asked)] == [
        f"cb-{key}" for key in reversed(range(7))
    ]


@pytest.fixture
def queue(caller, store) -> tuple:
    """Someone who opened seven disputes, and a colleague who decided the even ones."""
    one, other = caller("sre"), caller("sre")
    numbers = [
        one.post(
            DISPUTES, {"decision": f"dec_{e.id.hex()}", "reason": "odd"}, format="json"
        ).json()["number"]
        for e in store([event() for _ in range(7)])
    ]
    for number in numbers[::2]:
        assert (
            other.post(
                f"{DISPUTES}/{number}/verdict", {"verdict": "uphold", "reason": "so"}, format="json"
            ).status_code
            == 200
        )
    return one, other, numbers


def test_each_queue_of_disputes_is_walked_without_gap_or_repeat(queue) -> None:
    one, _, numbers = queue
    waiting, decided = numbers[1::2], numbers[::2][::-1]
    told = {
        show: [row["number"] for row in walked(one, DISPUTES, "after", show=show)]
        for show in ("open", "decided", "mine")
    }
    assert told == {"open": waiting, "decided": decided, "mine": [*waiting, *decided]}


@pytest.mark.parametrize("show", ["open", "mine"])
def test_a_dispute_decided_between_two_pages_hides_none_that_waits(queue, show: str) -> None:
    one, other, numbers = queue
    page = one.get(DISPUTES, {"show": show, "limit": 2}).json()
    other.post(
        f"{DISPUTES}/{page['results'][-1]['number']}/verdict",
        {"verdict": "decline", "reason": "so"},
        format="json",
    )
    rest = one.get(DISPUTES, {"show": show, "after": page["next"]}).json()["results"]
    assert numbers[5] in [row["number"] for row in rest]


@pytest.mark.parametrize(
    ("place", "status"),
    [("x", 400), ("1", 400), ("\x00", 400), ("1dd", 400), ("٣o", 400), ("999o", 404)],
)
def test_what_is_no_place_in_a_list_is_refused(caller, place: str, status: int) -> None:
    client = caller("ml_owner")
    assert problem(client.get(DISPUTES, {"after": place}))["status"] == status
    assert problem(client.get(OUTCOMES, {"before": place}))["status"] == 404
