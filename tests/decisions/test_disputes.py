"""A dispute goes from open to one verdict by a second person, exactly once, and the verdict is an
outcome with its weight.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.utils import timezone

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from control.models import AuditEntry
from decider.contracts.vocabulary import Action
from decisions.models import Decision, Dispute, Outcome
from decisions.models.outcome import OutcomeKind, State
from decisions.outcomes import disputes, reports
from tests.database import as_owner
from tests.decisions.factory import event, unranked

MARA = Actor("Mara Lindqvist", "mara@example.org", "Support")
PRIYA = Actor("Priya Raman", "priya@example.org", "Policy admin")
DELE = Actor("Dele Okafor", "dele@example.org", "SRE")


@pytest.fixture
def refused(store) -> Decision:
    """A stored refusal that was kept 1 in 4."""
    return stored(store, event(inclusion_probability=0.25, at=time.time() - 600))


def stored(store, made) -> Decision:
    store([made])
    return Decision.objects.get(id=uuid.UUID(bytes=made.id))


def opened(d: Decision, by: Actor = MARA) -> Dispute:
    return disputes.open_dispute(
        d, by=by, reason="It is a nightly batch the customer announced", ticket="SUP-48121"
    )


@pytest.mark.django_db
def test_an_upheld_dispute_becomes_one_matured_outcome_with_the_weight_of_its_decision(
    refused,
) -> None:
    dispute = opened(refused)
    done = disputes.adjudicate(dispute.pk, "uphold", by=PRIYA, reason="The batch was announced")
    outcome = Outcome.objects.get()
    assert (done.state, done.decided_name, done.outcome) == (State.UPHELD, "Priya Raman", outcome)
    assert (outcome.kind, outcome.weight, outcome.decision, outcome.app) == (
        OutcomeKind.FALSE_THROTTLE,
        4.0,
        refused.id,
        refused.app,
    )
    assert (outcome.occurred_at, outcome.is_mature) == (refused.at, True)
    assert [e.action for e in AuditEntry.objects.order_by("seq")] == [
        "dispute.open",
        "dispute.uphold",
    ]
    assert AuditEntry.objects.first().after["outcome"] == outcome.key
    assert chain.verify().broken is None
    assert [one.about for one in reports.of_decision(refused)] == ["this decision"]


@pytest.mark.django_db
def test_a_declined_dispute_is_an_outcome_too_and_may_be_disputed_again(refused) -> None:
    disputes.adjudicate(opened(refused).pk, "decline", by=PRIYA, reason="Nothing was announced")
    assert Outcome.objects.get().kind == OutcomeKind.CORRECT_REFUSAL
    second = opened(refused, DELE)
    disputes.adjudicate(second.pk, "uphold", by=PRIYA, reason="The announcement was found")
    with pytest.raises(Refused, match="was found wrong already, by Priya Raman"):
        opened(refused)
    assert Outcome.objects.count() == 2


@pytest.mark.django_db
def test_nobody_decides_a_dispute_they_opened(refused) -> None:
    dispute = opened(refused, PRIYA)
    with pytest.raises(Refused, match="You opened this dispute"):
        disputes.adjudicate(dispute.pk, "uphold", by=PRIYA, reason="I am sure")
    assert not Outcome.objects.exists()


@pytest.mark.django_db
def test_a_verdict_is_final(refused) -> None:
    dispute = opened(refused)
    disputes.adjudicate(dispute.pk, "decline", by=PRIYA, reason="Correct")
    for verdict in ("uphold", "decline"):
        with pytest.raises(Refused, match="was decided by Priya Raman: declined"):
            disputes.adjudicate(dispute.pk, verdict, by=DELE, reason="No")
    assert (Outcome.objects.count(), AuditEntry.objects.count()) == (1, 2)


@pytest.mark.django_db
def test_what_cannot_be_disputed_is_refused(store, refused) -> None:
    for admitted in (unranked(), event(observed=True)):
        with pytest.raises(Refused, match="was admitted"):
            opened(stored(store, admitted))
    opened(refused)
    with pytest.raises(
        Refused, match="Mara Lindqvist has opened a dispute about this decision already"
    ):
        opened(refused, DELE)
    with pytest.raises(Refused, match="There is no dispute 999"):
        disputes.adjudicate(999, "uphold", by=PRIYA, reason="x")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("reason", "ticket"),
    [(" ", ""), ("x" * 1001, ""), ("a\x00b", ""), ("fine", "x" * 101), ("fine", "a\x00")],
)
def test_texts_that_cannot_be_kept_are_refused_and_leave_nothing(
    refused, reason: str, ticket: str
) -> None:
    with pytest.raises(Refused):
        disputes.open_dispute(refused, by=MARA, reason=reason, ticket=ticket)
    assert not Dispute.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
def test_a_dispute_outlives_its_decision(refused) -> None:
    dispute = opened(refused)
    with as_owner():
        Decision.objects.filter(id=refused.id).delete()
    assert disputes.adjudicate(dispute.pk, "uphold", by=PRIYA, reason="Wrong").outcome.weight == 4.0


def test_the_lifecycle_has_no_way_back_and_every_verdict_an_outcome() -> None:
    assert set(disputes.TRANSITIONS) == set(State)
    reached = {to for ways in disputes.TRANSITIONS.values() for to in ways.values()}
    assert reached == set(State) - {State.OPEN}
    assert all(not disputes.TRANSITIONS[state] for state in reached)
    assert set(disputes.KINDS) == set(disputes.TRANSITIONS[State.OPEN])


def illegal(dispute: Dispute, outcome: Outcome) -> list[dict]:
    decided = {
        "decided_at": timezone.now(),
        "decided_by": "dele",
        "decided_name": "Dele",
        "verdict_reason": "x",
        "outcome": outcome,
    }
    return [
        {"state": "upheld"},
        {"state": "maybe", **decided},
        {"state": "open", **decided},
        {"state": "upheld", **decided, "outcome": None},
        {"state": "upheld", **decided, "decided_by": ""},
        {"state": "upheld", **decided, "decided_by": dispute.opened_by},
        {"state": "upheld", **decided, "verdict_reason": ""},
        {"state": "upheld", **decided, "decided_at": dispute.opened_at - timedelta(seconds=1)},
        {"action": int(Action.ADMIT)},
        {"weight": 0.5},
        {"claim": ""},
    ]


@pytest.mark.django_db
def test_the_database_refuses_every_illegal_state(store, refused) -> None:
    dispute = opened(refused)
    other = stored(store, event())
    outcome = Outcome.objects.create(
        key="x",
        kind=OutcomeKind.CHURN,
        occurred_at=refused.at,
        reported_at=timezone.now(),
        matured_at=timezone.now(),
        app="a",
        digest="x",
    )
    for change in illegal(dispute, outcome):
        with pytest.raises(IntegrityError), transaction.atomic():
            Dispute.objects.filter(pk=dispute.pk).update(**change)
    another = opened(other)
    with pytest.raises(IntegrityError, match="one_standing_dispute"), transaction.atomic():
        Dispute.objects.filter(pk=another.pk).update(decision=refused.id)
    with pytest.raises(DatabaseError, match="is fixed"), transaction.atomic(), as_owner():
        dispute.delete()
    disputes.adjudicate(dispute.pk, "decline", by=PRIYA, reason="Correct")
    with pytest.raises(DatabaseError, match="is fixed"), transaction.atomic():
        Dispute.objects.filter(pk=dispute.pk).update(verdict_reason="changed")


@pytest.mark.django_db(transaction=True)
def test_of_two_adjudicators_at_once_exactly_one_decides(store) -> None:
    dispute = opened(stored(store, event(inclusion_probability=0.5)))

    def decide(k: int) -> str:
        try:
            return disputes.adjudicate(
                dispute.pk,
                ("uphold", "decline")[k % 2],
                by=Actor(f"A{k}", f"a{k}@example.org", "SRE"),
                reason=f"Found {k}",
            ).decided_name
        except Refused:
            return ""
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        decided = [name for name in pool.map(decide, range(6)) if name]
    assert len(decided) == Outcome.objects.count() == 1
    assert Dispute.objects.get().decided_name == decided[0]
    assert AuditEntry.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_who_dispute_at_once_exactly_one_opens(store) -> None:
    d = stored(store, event())

    def say(k: int) -> bool:
        try:
            return bool(opened(d, Actor(f"A{k}", f"a{k}@example.org", "Support")))
        except Refused:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(say, range(4))) == 1
    assert Dispute.objects.count() == AuditEntry.objects.count() == 1


@pytest.mark.django_db
def test_the_update_itself_gives_way_when_another_verdict_came_first(refused, monkeypatch) -> None:
    """With neither the lock nor the first look, the compare-and-set alone keeps the first
    verdict.
    """
    dispute = opened(refused)
    stale = disputes.by_number(dispute.pk)
    disputes.adjudicate(dispute.pk, "decline", by=PRIYA, reason="Correct")
    monkeypatch.setattr(disputes, "_found", lambda *_: stale)
    monkeypatch.setattr(disputes, "KEY_PREFIX", "other:")
    with pytest.raises(Refused, match="in the meantime"):
        disputes.adjudicate(dispute.pk, "uphold", by=DELE, reason="Wrong")
    assert (Outcome.objects.count(), Dispute.objects.get().state) == (1, State.DECLINED)


@pytest.mark.django_db
def test_the_queue_is_oldest_first_and_knows_whose_is_whose(store) -> None:
    first, second, third = (opened(stored(store, event()), by) for by in (MARA, MARA, DELE))
    Dispute.objects.filter(pk=first.pk).update(opened_at=timezone.now() - timedelta(days=2))
    disputes.adjudicate(second.pk, "uphold", by=DELE, reason="Wrong")
    assert [d.pk for d in disputes.queue("open", "")] == [first.pk, third.pk]
    assert [d.pk for d in disputes.queue("mine", MARA.login)] == [first.pk, second.pk]
    assert [d.pk for d in disputes.queue("mine", DELE.login)] == [third.pk, second.pk]
    assert [d.pk for d in disputes.queue("decided", "")] == [second.pk]
    waiting = disputes.waiting()
    assert (waiting.open, waiting.old) == (2, 1)
    assert waiting.oldest_at == Dispute.objects.get(pk=first.pk).opened_at
