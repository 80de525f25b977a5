"""Whether a refusal was wrong comes from a dispute and from nowhere else, and nothing weighs more
than it may.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from console.pages.app import last_day
from control.audit.actors import Actor
from decisions.models import Decision, Outcome
from decisions.models.outcome import VERDICTS, OutcomeKind
from decisions.outcomes import csv_file, disputes, reports, ties
from decisions.outcomes.csv_file import BadFile
from decisions.outcomes.reports import Invalid, Report
from tests.audited import append_entry, audited
from tests.database import as_owner
from tests.decisions.factory import event
from tests.decisions.outcome_rows import stored_verdict

PRIYA = Actor("Priya Raman", "priya@example.org", "Policy admin")
MARA = Actor("Mara Lindqvist", "mara@example.org", "Support")
APP = "app_7q2m4kx9"
WHEN = datetime.now(UTC) - timedelta(hours=2)


@pytest.fixture
def refused(store) -> Decision:
    """A stored refusal that was kept 1 in 4."""
    made = event(inclusion_probability=0.25, at=time.time() - 600)
    store([made])
    return Decision.objects.get(id=uuid.UUID(bytes=made.id))


def send(*some: Report) -> reports.Reported:
    return reports.report_all(some, by=MARA, reason="By hand", source="api")


@pytest.mark.django_db
@pytest.mark.parametrize("kind", VERDICTS)
def test_who_opened_a_dispute_cannot_report_its_verdict(refused, kind: OutcomeKind) -> None:
    disputes.open_dispute(refused, by=MARA, reason="It was announced")
    verdict = Report("mine-1", kind, refused.at, decision=refused.id, app=refused.app)
    many = [Report(f"mine-{k}", kind, refused.at, app=refused.app) for k in range(500)]
    with pytest.raises(Invalid, match="Only a dispute tells whether a refusal was wrong") as caught:
        send(Report("good", "churn", refused.at, app=refused.app), verdict, *many)
    assert [(p.number, p.field) for p in caught.value.problems] == [
        (number, "kind") for number in range(1, 502)
    ]
    assert not Outcome.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("kind", VERDICTS)
def test_a_file_with_a_verdict_names_its_line(kind: OutcomeKind) -> None:
    text = f"key,kind,occurred_at,app\na,churn,{WHEN:%Y-%m-%dT%H:%M:%SZ},app_1\n"
    text += f"b,{kind},{WHEN:%Y-%m-%dT%H:%M:%SZ},app_1\n"
    with pytest.raises(BadFile, match="Only a dispute") as caught:
        csv_file.upload(text.encode(), by=MARA, reason="By hand")
    assert [(p.line, p.column) for p in caught.value.problems] == [(3, "kind")]


def raw(**fields: object) -> None:
    """Insert an outcome past all code, as whoever holds the database's password can."""
    usual = {
        "key": "raw-1",
        "kind": OutcomeKind.CHARGEBACK,
        "occurred_at": WHEN,
        "reported_at": WHEN,
        "matured_at": WHEN,
        "source": "csv",
        "weight": 1.0,
        "app": APP,
        "token_digest": "",
        "request_id": "",
        "note": "",
        "by": "x",
        "digest": "",
    } | fields
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO decisions_outcome ({', '.join(usual)})"  # noqa: S608
            f" VALUES ({', '.join(['%s'] * len(usual))})",
            list(usual.values()),
        )


def try_raw(**fields: object) -> None:
    """Insert an outcome and end its transaction, as far as the database is concerned."""
    with transaction.atomic():
        append_entry()
        raw(**fields)
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "false_throttle"}, "outcome_verdict_from_dispute"),
        ({"kind": "correct_refusal", "source": "api"}, "outcome_verdict_from_dispute"),
        ({"source": "dispute"}, "outcome_verdict_from_dispute"),
        ({"kind": "false_throttle", "source": "dispute"}, "is no verdict of a dispute"),
        ({"weight": 1e9}, "outcome_weight_capped"),
        ({"weight": 1000.5}, "outcome_weight_capped"),
        ({"weight": float("nan")}, "outcome_weight_capped"),
        ({"weight": 0.0}, "outcome_weight_capped"),
        ({"app": ""}, "outcome_is_about_something"),
    ],
)
def test_the_database_takes_no_verdict_and_no_weight_by_the_back_door(fields, said) -> None:
    with pytest.raises(IntegrityError, match=said):
        try_raw(**fields)


@pytest.mark.django_db
def test_the_database_takes_a_verdict_only_as_its_dispute_has_it(refused) -> None:
    """An open dispute, another decision, another weight, the other verdict: none will do."""
    opened = disputes.open_dispute(refused, by=MARA, reason="It was announced")
    done = disputes.adjudicate(opened.pk, "uphold", by=PRIYA, reason="It was")
    verdict = {"source": "dispute", "kind": "false_throttle", "app": refused.app, "weight": 4.0}
    for change in ({}, {"decision": refused.id}, {"kind": "correct_refusal"}, {"weight": 5.0}):
        with pytest.raises(IntegrityError, match="is no verdict of a dispute"):
            try_raw(**(verdict | change))
    assert Outcome.objects.get() == done.outcome


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("about", "most"),
    [("decision", 4.0), ("request_id", 4.0), ("app", 1000.0)],
)
def test_a_weight_is_at_most_what_the_stored_decision_stands_for(refused, about, most) -> None:
    names = {"decision": refused.id, "request_id": refused.request_id, "app": APP}
    send(Report("fits", "churn", WHEN, weight=most, **{about: names[about]}))
    with pytest.raises(Invalid) as caught:
        send(Report("heavy", "churn", WHEN, weight=most * 1.05, **{about: names[about]}))
    assert [p.field for p in caught.value.problems] == ["weight"]
    assert Outcome.objects.get().key == "fits"


@pytest.fixture
def before_the_upgrade() -> Iterator[None]:
    with as_owner():
        call_command("migrate", "decisions", "0006_buried", verbosity=0)
    yield
    with as_owner():
        call_command("migrate", "decisions", verbosity=0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("before_the_upgrade")
def test_reported_verdicts_of_before_are_kept_and_count_nowhere() -> None:
    with audited():
        raw(key="verdict", kind="false_throttle", weight=1e9)
        raw(key="right", kind="correct_refusal")
        raw(key="heavy", kind="churn", weight=5000.0)
        raw(key="nameless", app="", request_id="req_1")
    with as_owner():
        call_command("migrate", "decisions", verbosity=0)
    with audited():
        stored_verdict(APP, WHEN)
    now = time.time()
    assert reports.found_wrong(now) == {APP: 1}
    known = reports.judged(WHEN - timedelta(hours=1), timezone.now())
    assert (known.wrong, known.right, known.wrong_weight) == (1, 0, 1.0)
    counted = last_day.labels(APP, now)
    assert dict(counted.counts) == {
        OutcomeKind.FALSE_THROTTLE: 1,
        OutcomeKind.CORRECT_REFUSAL: 0,
        OutcomeKind.FRAUD: 0,
        OutcomeKind.CHURN: 1,
    }
    kept = {o.key: (o.tie.app, o.tie.state, o.is_real) for o in reports.latest()}
    assert kept["verdict"] == (APP, "tied", False)
    assert kept["nameless"] == ("", "unknown", True)
    assert Outcome.objects.get(key="heavy").weight == 5000.0
    assert ties.try_again().tried == 1
