"""A file is planned and applied over the API as by the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.urls import reverse

from console.pages.declaration import effect
from control.audit.actors import SYSTEM
from control.config import changes
from control.models import AuditEntry, ConfigVersion, Look
from decider.contracts.vocabulary import Action, Tier
from decisions.counts.estimate import Estimate
from decisions.preview import Example, Preview
from tests.api.conftest import problem

FILE = """\
sluice: 1
services:
  shop: {routes: [/shop], capacity: 250, latency_ms: 20}
"""


@pytest.fixture
def first(db, settings, tmp_path: Path, keys: Path) -> ConfigVersion:
    settings.SLUICE_KEYS, settings.SLUICE_MODELS = keys, tmp_path
    row = changes.first(by=SYSTEM, reason="A new installation")
    assert row is not None
    return row


def post(client, name: str, **body: object):
    return client.post(reverse(name), {"text": FILE} | body, format="json")


def test_a_file_is_planned_then_applied(first, caller) -> None:
    client = caller("policy_admin")
    plan = post(client, "api-declaration-plan").json()
    assert [(c["verb"], c["part"]) for c in plan["plan"]["changes"]] == [("add", "service shop")]
    assert plan["plan"]["changes"][0]["lines"][1] == "capacity: 250"
    assert plan["effect"] == [
        "No decision was stored in the last hour, so nothing can be said about it."
    ]
    assert changes.latest() == first
    done = post(client, "api-declaration-apply", reason="CHG-7").json()
    assert done["config_version"] == changes.current().version == 2
    assert AuditEntry.objects.first().action == "declaration.apply"
    text = client.get(reverse("api-declaration")).json()["text"]
    assert "  shop:\n    routes: [/shop]\n" in text
    again = post(client, "api-declaration-plan", text=text).json()
    assert (again["plan"]["changes"], again["effect"]) == ([], [])


def test_the_examples_of_a_plan_are_looks_at_their_apps(first, caller, monkeypatch) -> None:
    example = Example("dec_" + "0" * 32, "app_7", Tier.FREE, Action.ADMIT, Action.DEFER, None)
    seen = Preview(1, 1, 0, 1.0, Estimate(1.0, 1.0, 1), (), (), 0.0, (example,))
    monkeypatch.setattr(effect, "preview_of", lambda planned: seen)
    plan = post(caller("policy_admin"), "api-declaration-plan").json()
    assert "admit, would have been defer" in plan["effect"][-2]
    look = Look.objects.get()
    assert (look.app, look.what) == ("app_7", "an example of what a file would change")


def test_a_wrong_file_names_line_and_column(first, caller) -> None:
    answer = post(caller("policy_admin"), "api-declaration-plan", text=FILE.replace("250", "2e2"))
    found = problem(answer)
    assert found["status"] == 400
    assert found["errors"][0]["pointer"] == "/text"
    assert found["errors"][0]["detail"].startswith("line 3, column 37: `2e2` is a number to some")


def test_what_the_console_changed_is_a_conflict(first, caller) -> None:
    client = caller("policy_admin")
    post(client, "api-declaration-apply", reason="x")
    other = FILE.replace("250", "300")
    post(client, "api-declaration-apply", reason="x", text=other)
    changes.make_version(
        by=SYSTEM,
        reason="x",
        action="x.y",
        subject="x",
        summary="x",
        edit=lambda old: changes.document.decode(bytes(ConfigVersion.objects.get(pk=2).payload)),
    )
    answer = post(client, "api-declaration-apply", reason="x", text=FILE.replace("250", "9"))
    assert (
        "service shop was changed in the console (capacity: 300, now 250)"
        in (problem(answer)["detail"])
    )
    assert answer.status_code == 409


def test_everybody_reads_and_a_policy_admin_applies(first, caller) -> None:
    for role in ("support", "sre", "ml_owner", "auditor"):
        client = caller(role)
        assert client.get(reverse("api-declaration")).status_code == 200
        assert post(client, "api-declaration-plan").status_code == 200
        answer = post(client, "api-declaration-apply", reason="x")
        assert "Policy admin can do this" in problem(answer)["detail"]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("api-declaration-plan", {"take": "mine"}),
        ("api-declaration-plan", {"text": None}),
        ("api-declaration-plan", {"text": 3}),
        ("api-declaration-plan", {"text": ""}),
        ("api-declaration-plan", {"text": FILE + "#" * 300_000}),
        ("api-declaration-apply", {}),
        ("api-declaration-apply", {"reason": ""}),
    ],
)
def test_values_are_checked(first, caller, name: str, body: dict[str, object]) -> None:
    assert problem(post(caller("policy_admin"), name, **body))["status"] == 400


def test_with_four_eyes_a_file_is_asked_for(first, caller, monkeypatch) -> None:
    monkeypatch.setattr("control.approvals.mode.is_on", lambda: True)
    answer = post(caller("policy_admin"), "api-declaration-apply", reason="CHG-7")
    assert (answer.status_code, answer.json()["state"]) == (202, "open")
    assert answer.json()["title"].startswith("Add service shop")
    assert changes.latest() == first
