"""Apps are imported over the API as by the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import current_app
from django.urls import reverse
from kombu.exceptions import OperationalError as BrokerError

from control.audit.actors import SYSTEM
from control.config import changes
from control.models import App, AppImport
from tests.api.conftest import problem

ROWS = "id,tenant,tier\na1,acme,free\na2,acme,premium\n"


@pytest.fixture(autouse=True)
def first(db, settings, tmp_path: Path, keys: Path) -> None:
    settings.SLUICE_KEYS, settings.SLUICE_MODELS = keys, tmp_path
    changes.first(by=SYSTEM, reason="A new installation")


def post(client, **body: object):
    given = {"format": "csv", "rows": ROWS, "make_tenants": True, "reason": "CRM"}
    return client.post(reverse("api-app-imports"), given | body, format="json")


@pytest.fixture
def sent(monkeypatch) -> list:
    """What a worker is asked to do."""
    found: list = []
    monkeypatch.setattr(
        current_app, "send_task", lambda name, args, **_: found.append((name, args))
    )
    return found


def test_apps_are_imported_and_a_worker_tells_deciders(caller, sent: list) -> None:
    answer = post(caller("policy_admin"))
    assert answer.status_code == 201
    found = answer.json()
    assert (found["added"], found["changed"], found["same"], found["tenants"]) == (2, 0, 0, 1)
    assert sent == [("control.tasks.publish_import", [found["number"]])]
    line = '{"id": "a2", "tier": "free"}\n'
    found = post(caller("policy_admin"), format="jsonl", rows=line).json()
    assert (found["changed"], App.objects.get(pk="a2").tier) == (1, 0)


def test_a_dry_run_keeps_nothing(caller, sent: list) -> None:
    answer = post(caller("policy_admin"), dry_run=True)
    assert (answer.status_code, answer.json()["added"]) == (200, 2)
    assert not App.objects.exists() and sent == []


def test_without_a_broker_the_apps_are_stored_and_told_later(caller, monkeypatch) -> None:
    def away(*_, **__):
        raise BrokerError("away")

    monkeypatch.setattr(current_app, "send_task", away)
    assert post(caller("policy_admin")).status_code == 201
    assert AppImport.objects.get().published_at is None


def test_wrong_rows_are_told_by_line(caller) -> None:
    answer = post(caller("policy_admin"), rows=ROWS + "a3,acme,gold\n,acme,free\n")
    found = problem(answer)
    assert found["status"] == 400
    assert [(e["pointer"], e["detail"]) for e in found["errors"]] == [
        ("/rows", "line 4: tier: write free, standard, premium or enterprise"),
        ("/rows", "line 5: id is missing"),
    ]
    assert not App.objects.exists()


def test_too_many_apps_are_refused(caller) -> None:
    rows = "id,tenant,tier\n" + "".join(f"a{n},acme,free\n" for n in range(10_001))
    found = problem(post(caller("policy_admin"), rows=rows))
    assert found["detail"] == "These are 10,001 apps: send 10,000."


def test_only_who_may_import_does(caller) -> None:
    for role in ("support", "sre", "ml_owner", "auditor"):
        assert "Policy admin can do this" in problem(post(caller(role)))["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"format": "xlsx"},
        {"rows": ""},
        {"rows": 3},
        {"make_tenants": "true"},
        {"reason": ""},
        {"reason": None},
    ],
)
def test_values_are_checked(caller, body: dict[str, object]) -> None:
    assert problem(post(caller("policy_admin"), **body))["status"] == 400
