"""Refused attempts are in the audit log, a few of each person."""

from __future__ import annotations

import logging

import pytest
from django.db import DatabaseError

from control.audit import chain, denials
from control.models import AuditEntry

pytestmark = pytest.mark.django_db
FLIP = "/switches/all-ml/engage"


def denied() -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(action=denials.ACTION).order_by("seq"))


def test_a_page_that_refuses_someone_writes_it_down(browser) -> None:
    answer = browser("support").post(FLIP, {"reason": "x"})
    assert answer.status_code == 403
    (entry,) = denied()
    assert entry.actor_login.startswith("support") and entry.actor_role == "Support"
    assert entry.subject == "POST switches/<slug:name>/<slug:verb>"
    assert entry.summary == f"was refused {entry.subject}"
    assert "SRE" in entry.reason
    assert chain.verify().broken is None


def test_the_api_does_too(browser) -> None:
    answer = browser("auditor").post(
        "/api/v1/disputes", {"decision": "x"}, content_type="application/json"
    )
    assert answer.status_code == 403
    (entry,) = denied()
    assert entry.subject.startswith("POST ") and "disputes" in entry.subject
    assert entry.reason == answer.json()["detail"]


def test_nobody_fills_the_log(browser) -> None:
    support, sre = browser("support"), browser("auditor")
    for _ in range(denials.MOST + 5):
        assert support.post(FLIP).status_code == 403
    found = denied()
    assert len(found) == denials.MOST
    assert [entry.summary.endswith("no more are written down") for entry in found] == [
        *[False] * (denials.MOST - 1),
        True,
    ]
    # another person's attempts are written down all the same
    sre.post(FLIP)
    assert len(denied()) == denials.MOST + 1


def test_someone_signed_out_leaves_no_entry(client) -> None:
    client.post(FLIP)
    assert not denied()


def test_an_answer_does_not_fail_for_it(browser, monkeypatch, caplog) -> None:
    def fail(**_: object) -> bool:
        raise DatabaseError("away")

    monkeypatch.setattr(denials, "record", fail)
    with caplog.at_level(logging.WARNING, logger="sluice.denials"):
        answer = browser("support").post(FLIP)
    assert answer.status_code == 403
    assert "not in the audit log: away" in caplog.text
