"""Stored outcomes for tests: reported ones with their tie, and verdicts with their dispute."""

from __future__ import annotations

import itertools
import uuid
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from decider.contracts.vocabulary import Action, Reason
from decisions.models import Dispute, Outcome, OutcomeTie
from decisions.models.outcome import OutcomeKind, State
from decisions.outcomes import evidence, ties

_count = itertools.count(1)


def stored_outcome(**fields: object) -> Outcome:
    """Stores an outcome as a report does; any field may be given."""
    now = timezone.now()
    usual = {
        "key": f"key-{next(_count)}",
        "kind": OutcomeKind.CHARGEBACK,
        "occurred_at": now,
        "reported_at": now,
        "matured_at": now,
        "source": "csv",
        "by": "x",
        "digest": "",
    }
    row = Outcome.objects.create(**(usual | fields))
    (found,) = evidence.gather([row])
    tie = ties.make(row, found, now)
    tie.outcome = row
    tie.save()
    return row


def stored_verdict(
    app: str,
    occurred_at: datetime,
    *,
    decision: uuid.UUID | None = None,
    matured_at: datetime | None = None,
    wrong: bool = True,
) -> Outcome:
    """Stores the verdict of a dispute that was opened and decided."""
    now, about = timezone.now(), decision or uuid.uuid4()
    with transaction.atomic():
        dispute = Dispute.objects.create(
            decision=about,
            at=occurred_at,
            app=app,
            action=int(Action.DEFER),
            reason_code=int(Reason.RISK_HIGH),
            weight=1.0,
            claim="It was announced",
            opened_by="olu@example.org",
            opened_name="Olu Ade",
            opened_at=now - timedelta(minutes=5),
            state=State.OPEN,
        )
        outcome = Outcome.objects.create(
            key=f"dispute:{dispute.pk}",
            kind=OutcomeKind.FALSE_THROTTLE if wrong else OutcomeKind.CORRECT_REFUSAL,
            occurred_at=occurred_at,
            reported_at=now,
            matured_at=matured_at or now,
            source="dispute",
            app=app,
            decision=about,
            by="Priya Raman",
            digest="",
        )
        OutcomeTie.objects.create(
            outcome=outcome,
            app=app,
            decision=about,
            state="tied",
            how="decision",
            occurred_at=occurred_at,
            since=now,
        )
        Dispute.objects.filter(pk=dispute.pk).update(
            state=State.UPHELD if wrong else State.DECLINED,
            decided_by="priya@example.org",
            decided_name="Priya Raman",
            decided_at=now,
            verdict_reason="It was announced",
            outcome=outcome,
        )
    return outcome
