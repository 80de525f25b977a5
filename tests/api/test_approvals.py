"""Requests for a second person and kill switches over REST."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client

from console.frame import roles
from control.approvals.lifecycle import State
from control.approvals.models import Request
from control.audit import tokens
from control.audit.actors import SYSTEM
from control.config import changes
from control.models import AuditEntry
from tests.control.approvals.conftest import make_person, turn_on
from tests.control.approvals.test_requests import ask_for_burst

pytestmark = pytest.mark.django_db
API = "/api/v1"


@pytest.fixture(autouse=True)
def installation(settings, tmp_path: Path, keys: Path, valkey) -> None:
    settings.SLUICE_VAR, settings.SLUICE_KEYS = tmp_path, keys
    settings.SLUICE_MODELS = tmp_path / "models"
    roles.ensure()
    changes.first(by=SYSTEM, reason="A new installation")


@pytest.fixture
def people() -> dict[str, User]:
    made = {"dele": make_person("dele", "sre"), "noor": make_person("noor", "sre")}
    made["priya"] = make_person("priya", "policy_admin")
    turn_on(made["dele"], made["priya"])
    return made


def call(user: User, path: str, body: object = None):
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    if body is None:
        return client.get(f"{API}{path}")
    return client.post(f"{API}{path}", body, content_type="application/json")


def test_clearing_a_switch_of_someone_else_is_asked_for(people) -> None:
    dele, noor = people["dele"], people["noor"]
    body = {"reason": "Scores look wrong", "until": None}
    done = call(dele, "/switches/all_ml/engage", body)
    assert (done.status_code, done.json()["engaged"], done.json()["by"]) == (200, True, "Dele")
    asked = call(noor, "/switches/all_ml/clear", {"reason": "Well again"})
    assert asked.status_code == 202
    row = asked.json()
    assert row["parts"] == [
        {"part": "/switches/all_ml", "before": {"name": "all_ml"}, "after": None}
    ]
    assert call(dele, "/switches").json()[0]["engaged"]
    vote = {"reason": "I looked", "digest": row["digest"]}
    approved = call(dele, f"/approvals/{row['number']}/approve", vote)
    assert (approved.status_code, approved.json()["state"]) == (200, "applied")
    assert approved.json()["votes"][0]["how"] == "session"
    assert not call(dele, "/switches").json()[0]["engaged"]


def test_an_old_session_neither_clears_nor_approves_and_engages_at_once(people, settings) -> None:
    dele, noor = people["dele"], people["noor"]
    burst = ask_for_burst(dele)
    settings.REAUTHENTICATION_S = -1
    body = {"reason": "Scores look wrong", "until": None}
    assert call(dele, "/switches/all_ml/engage", body).status_code == 200
    refused = call(noor, "/switches/all_ml/clear", {"reason": "Well again"})
    assert (refused.status_code, "password again" in refused.json()["detail"]) == (403, True)
    vote = {"reason": "I looked", "digest": burst.digest}
    assert call(people["priya"], f"/approvals/{burst.pk}/approve", vote).status_code == 403
    burst.refresh_from_db()
    assert (burst.state, burst.votes.count()) == (State.OPEN, 0)


def test_whoever_engaged_it_clears_it_at_once(people) -> None:
    call(people["dele"], "/switches/all_ml/engage", {"reason": "x", "until": None})
    done = call(people["dele"], "/switches/all_ml/clear", {"reason": "The wrong one"})
    assert (done.status_code, done.json()["engaged"]) == (200, False)


@pytest.mark.parametrize(
    ("who", "verb", "body", "status"),
    [
        ("dele", "approve", {}, 409),
        ("noor", "approve", {}, 403),
        ("noor", "veto", {}, 403),
        ("priya", "approve", {"digest": "0" * 64}, 409),
        ("priya", "approve", {"digest": "no"}, 400),
        ("priya", "veto", {"reason": ""}, 400),
        ("priya", "withdraw", {}, 409),
        ("priya", "rebase", {}, 409),
        ("priya", "approve", {}, 200),
        ("priya", "veto", {}, 200),
        ("dele", "withdraw", {}, 200),
    ],
)
def test_each_verb_has_its_people(people, who, verb, body, status) -> None:
    people["dele"].groups.set(people["dele"].groups.all() | people["priya"].groups.all())
    row = ask_for_burst(people["dele"])
    given = {"reason": "I looked", "digest": row.digest} | body
    done = call(people[who], f"/approvals/{row.pk}/{verb}", given)
    assert done.status_code == status, done.content
    row.refresh_from_db()
    assert (row.state == State.OPEN) == (status != 200)
    denied = AuditEntry.objects.filter(action="access.denied").count()
    assert denied == (status in (403, 409))


def test_the_list_is_cut_into_pages_and_filtered(people) -> None:
    for factor in (2.0, 3.0, 4.0):
        ask_for_burst(people["dele"], factor)
    first = call(people["noor"], "/approvals?limit=2").json()
    rest = call(people["noor"], f"/approvals?limit=2&below={first['next']}").json()
    numbers = [row["number"] for page in (first, rest) for row in page["results"]]
    waiting = Request.objects.filter(state="open").order_by("-pk")
    assert numbers == list(waiting.values_list("pk", flat=True))
    assert rest["next"] is None
    closed = call(people["noor"], "/approvals?show=closed").json()["results"]
    assert [row["action"] for row in closed] == ["four_eyes.on"]
    assert len(call(people["noor"], "/approvals?show=all").json()["results"]) == 4
    for wrong in ("show=mine", "below=x", "below=0", "limit=0", "what=1"):
        assert call(people["noor"], f"/approvals?{wrong}").status_code == 400
    assert call(people["noor"], f"/approvals/{numbers[0]}").json()["title"].startswith("Raise ")
    assert call(people["noor"], "/approvals/999999999").status_code == 404


def test_a_vote_by_a_token_says_so(people) -> None:
    row = ask_for_burst(people["dele"])
    _, text = tokens.create(by=people["priya"], reason="scripts", days=1)
    done = Client().post(
        f"{API}/approvals/{row.pk}/approve",
        {"reason": "x", "digest": row.digest},
        content_type="application/json",
        HTTP_AUTHORIZATION=f"Token {text}",
    )
    assert (done.status_code, done.json()["votes"][0]["how"]) == (200, "token")


def test_who_may_not_flip_may_not_ask(people) -> None:
    for role in ("support", "auditor", "ml_owner"):
        other = make_person(role, role)
        assert call(other, "/switches/all_ml/clear", {"reason": "x"}).status_code == 403
        assert call(other, "/switches").status_code == 200
    assert call(people["dele"], "/switches/none/clear", {"reason": "x"}).status_code == 404
    assert call(people["dele"], "/switches/all_ml/clear", {"reason": "x"}).status_code == 409
