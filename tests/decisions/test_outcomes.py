"""Outcomes are stored once by their key, whole or not at all, under the audit log, and found again
by what they are about.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Conflict, Refused
from control.models import AuditEntry
from decisions.models import Decision, Outcome
from decisions.models.outcome import OutcomeKind
from decisions.outcomes import reports as outcome_reports
from decisions.outcomes.reports import Invalid, Report
from tests.database import as_owner
from tests.decisions.factory import event

PRIYA = Actor("Priya Raman", "priya@example.org", "Policy admin")
WHEN = datetime.now(UTC) - timedelta(hours=2)


def a_report(key: str = "cb-1", **fields) -> Report:
    return Report(
        **({"key": key, "kind": "chargeback", "occurred_at": WHEN, "app": "app_7q2m4kx9"} | fields)
    )


def send(*reports: Report, reason: str = "Chargebacks of October"):
    return outcome_reports.report_all(reports, by=PRIYA, reason=reason, source="csv")


@pytest.mark.django_db
def test_an_outcome_is_stored_with_its_audit_row() -> None:
    done = outcome_reports.report_all(
        [a_report(note="PAY-812")], by=PRIYA, reason="By hand", source="api"
    )
    row = Outcome.objects.get()
    assert (done.stored, done.repeated) == (1, 0)
    assert (row.kind, row.app, row.weight, row.by, row.source) == (
        OutcomeKind.CHARGEBACK,
        "app_7q2m4kx9",
        1.0,
        "Priya Raman",
        "api",
    )
    assert row.matured_at == row.reported_at > row.occurred_at
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.subject, entry.summary, entry.reason) == (
        "outcome.report",
        "cb-1",
        "reported 1 outcome: 1 chargeback",
        "By hand",
    )


@pytest.mark.django_db
def test_the_same_report_again_changes_nothing_not_even_the_log() -> None:
    send(a_report("a"), a_report("b"))
    assert send(a_report("b"), a_report("a")).repeated == 2
    assert (Outcome.objects.count(), AuditEntry.objects.count()) == (2, 1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        {"kind": "churn"},
        {"occurred_at": WHEN - timedelta(seconds=1)},
        {"weight": 2.0},
        {"note": "other"},
        {"app": "app_other"},
        {"request_id": "r"},
        {"decision": uuid.uuid4()},
        {"token_digest": "0" * 32},
        {"receipt": "A" * 100},
        {"reported_at": WHEN},
        {"matured_at": WHEN},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_key_that_stands_for_something_else_is_a_conflict_and_nothing_is_stored(
    change: dict,
) -> None:
    send(a_report("a"))
    with pytest.raises(Conflict, match="The key a was used before"):
        send(a_report("new"), a_report("a", **change))
    assert Outcome.objects.count() == 1


@pytest.mark.django_db
def test_a_key_twice_in_one_report_counts_once_or_conflicts() -> None:
    assert (send(a_report("a"), a_report("a")).stored, Outcome.objects.count()) == (1, 1)
    with pytest.raises(Conflict):
        send(a_report("b"), a_report("b", note="other"))
    assert Outcome.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": "=1"}, "key"),
        ({"key": "x" * 201}, "key"),
        ({"key": "Dispute:7"}, "key"),
        ({"kind": "bad luck"}, "kind"),
        ({"kind": "false_throttle"}, "kind"),
        ({"kind": "correct_refusal"}, "kind"),
        ({"receipt": "not a receipt"}, "receipt"),
        ({"receipt": "A" * 301}, "receipt"),
        ({"app": ""}, "app"),
        ({"app": "a b"}, "app"),
        ({"token_digest": "secret-token"}, "token_digest"),
        ({"request_id": "x\n"}, "request_id"),
        ({"note": "\x00"}, "note"),
        ({"note": "x" * 501}, "note"),
        ({"weight": 0.0}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"weight": 1000.5}, "weight"),
        ({"weight": 1e9}, "weight"),
        ({"occurred_at": datetime.now(UTC) + timedelta(days=1)}, "occurred_at"),
        ({"occurred_at": datetime(1999, 1, 1, tzinfo=UTC)}, "occurred_at"),
        ({"occurred_at": WHEN.replace(tzinfo=None)}, "occurred_at"),
        ({"reported_at": WHEN - timedelta(days=1)}, "reported_at"),
        ({"matured_at": WHEN - timedelta(days=1)}, "matured_at"),
    ],
)
def test_what_cannot_be_is_refused_by_field_and_nothing_is_stored(change: dict, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        send(a_report("good"), a_report(**change))
    assert [(p.number, p.field) for p in caught.value.problems] == [(1, field)]
    assert not Outcome.objects.exists()


@pytest.mark.django_db
def test_a_raw_credential_is_not_even_quoted_back() -> None:
    with pytest.raises(Invalid) as caught:
        send(a_report(token_digest="sk_live_very_secret"))
    assert "sk_live" not in "".join(p.text for p in caught.value.problems)


@pytest.mark.django_db
def test_a_blank_reason_and_too_many_at_once_are_refused(monkeypatch) -> None:
    with pytest.raises(Refused, match="A reason is needed"):
        send(a_report(), reason=" ")
    monkeypatch.setattr(outcome_reports, "MOST", 1)
    with pytest.raises(Refused, match="send at most 1"):
        send(a_report("a"), a_report("b"))


@pytest.mark.django_db
def test_when_the_audit_log_cannot_be_written_nothing_is(monkeypatch) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("the log is full")

    monkeypatch.setattr(chain, "append", fail)
    with pytest.raises(RuntimeError, match="the log is full"):
        send(a_report())
    assert not Outcome.objects.exists()


@pytest.mark.django_db
def test_the_app_is_told_by_the_stored_decision_and_may_not_contradict_it(store) -> None:
    made = event(request_id="req_known")
    store([made])
    decision = uuid.UUID(bytes=made.id)
    send(
        a_report("by-decision", app="", decision=decision),
        a_report("by-request", app="", request_id="req_known"),
    )
    told = Outcome.objects.order_by("key").values_list("app", "tie__app", "tie__how")
    assert list(told) == [
        ("", "app_7q2m4kx9", "decision"),
        ("", "app_7q2m4kx9", "request"),
    ]
    with pytest.raises(Invalid, match="another app"):
        send(a_report("wrong", app="app_other", decision=decision))


@pytest.mark.django_db
def test_a_decision_finds_what_came_of_it_nearest_first_and_nothing_of_others(store) -> None:
    made = event(at=time.time() - 3600, request_id="req_1", token_digest="9f20" * 8)
    store([made])
    d = Decision.objects.get(id=uuid.UUID(bytes=made.id))
    later, before = d.at + timedelta(minutes=5), d.at - timedelta(minutes=5)
    send(
        a_report("app", occurred_at=later),
        a_report("app-before", occurred_at=before),
        a_report("token", app="", token_digest=d.token_digest, occurred_at=later),
        a_report("request", app="", request_id="req_1"),
        a_report("decision", app="", decision=d.id),
        a_report("other-decision", decision=uuid.uuid4()),
        a_report("other-app", app="app_other", occurred_at=later),
        a_report("same-request-other-app", app="app_other", request_id="req_1"),
    )
    found = outcome_reports.of_decision(d)
    assert [(one.outcome.key, one.about) for one in found] == [
        ("decision", "this decision"),
        ("request", "this request"),
        ("token", "its credential"),
        ("app", "its app"),
    ]
    assert {o.key for o in outcome_reports.of_app("app_7q2m4kx9")} == {
        "app",
        "app-before",
        "token",
        "request",
        "decision",
        "other-decision",
    }


@pytest.mark.django_db
def test_the_database_refuses_illegal_outcomes_and_changes() -> None:
    send(a_report())
    row = Outcome.objects.get()
    wrong = [
        {"kind": "luck"},
        {"key": ""},
        {"app": ""},
        {"weight": 0},
        {"weight": float("nan")},
        {"weight": 1000.5},
        {"kind": OutcomeKind.FALSE_THROTTLE},
        {"kind": OutcomeKind.CORRECT_REFUSAL},
        {"source": "dispute"},
        {"reported_at": WHEN - timedelta(days=1)},
        {"matured_at": WHEN - timedelta(days=1)},
        {"key": row.key},
    ]
    for change in wrong:
        fields = {
            f.name: getattr(row, f.name)
            for f in Outcome._meta.fields
            if f.name not in ("id", "stored_at")
        }
        with pytest.raises(IntegrityError), transaction.atomic():
            Outcome.objects.create(**(fields | {"key": "new"} | change))
    with pytest.raises(DatabaseError, match="is fixed"), transaction.atomic(), as_owner():
        Outcome.objects.update(weight=9)


@pytest.mark.django_db(transaction=True)
def test_the_same_reports_at_once_are_stored_once() -> None:
    def one(_: int) -> int:
        try:
            return send(*(a_report(f"k{n}") for n in range(20))).stored
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(one, range(4))) == [0, 0, 0, 20]
    assert (Outcome.objects.count(), AuditEntry.objects.count()) == (20, 1)


REPORTS = st.builds(
    a_report,
    st.sampled_from(["a", "b"]),
    kind=st.sampled_from(OutcomeKind.values),
    note=st.text(alphabet="ab", max_size=1),
    weight=st.sampled_from([1.0, 1, 2.0]),
    occurred_at=st.sampled_from(
        [WHEN, WHEN.astimezone(datetime.now().astimezone().tzinfo), WHEN - timedelta(seconds=1)]
    ),
)


@given(REPORTS, REPORTS)
def test_equal_reports_and_only_those_have_equal_digests(one: Report, other: Report) -> None:
    other = replace(other, key=one.key)
    assert (outcome_reports.digest(one) == outcome_reports.digest(other)) == (one == other)


def test_a_report_of_before_there_were_receipts_keeps_its_digest() -> None:
    """It may be sent again after an update, and must not be taken for another one."""
    report = Report(
        "cb-1",
        "chargeback",
        datetime(2026, 1, 14, 9, 30, tzinfo=UTC),
        app="app_1",
        decision=uuid.UUID("0197a5b2-c3d4-7e8f-9a0b-1c2d3e4f5a6b"),
        weight=2,
        note="PAY-812",
    )
    # as the version before wrote it
    assert outcome_reports.digest(report) == (
        "557d3de14295f0075665e15ff10c9836adf6b5cb6289292f97d7d0fb204d2761"
    )
