"""Disputes: someone says that a refusal was wrong, a second person decides whether it was, and the
verdict becomes an outcome.

open --uphold--> upheld     the refusal was a false throttle
open --decline--> declined  the refusal was correct
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from django.db import IntegrityError
from django.db.models import Count, F, Min, Q, QuerySet
from django.utils import timezone

from control.audit import chain
from control.audit.actors import Actor
from control.errors import NotAllowed, Refused
from control.permissions import holds
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action
from decisions.models import Decision, Dispute, Outcome, OutcomeTie
from decisions.models.outcome import FROM_DISPUTE, KEY_PREFIX, OutcomeKind, State
from decisions.models.tie import TieHow, TieState

Verdict = Literal["uphold", "decline"]
OPEN_PERMISSION = "decisions.open_dispute"
ADJUDICATE_PERMISSION = "decisions.adjudicate_dispute"
# Characters, as wide as the column.
TICKET_MAX = 100
# From this age on an open dispute is shown as needing attention. Chosen: someone answers a customer
# within a working day.
OLD = timedelta(days=1)

# The whole lifecycle: which verdict leads from where to where.
TRANSITIONS: dict[State, dict[Verdict, State]] = {
    State.OPEN: {"uphold": State.UPHELD, "decline": State.DECLINED},
    State.UPHELD: {},
    State.DECLINED: {},
}
# The outcome that a verdict becomes.
KINDS: dict[Verdict, OutcomeKind] = {
    "uphold": OutcomeKind.FALSE_THROTTLE,
    "decline": OutcomeKind.CORRECT_REFUSAL,
}


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many disputes wait for a second person, and since when."""

    open: int
    old: int
    """Open for longer than OLD."""
    oldest_at: datetime | None


def check_may_open(user: object) -> None:
    """Raise NotAllowed for a person who may not open disputes."""
    if not holds(user, OPEN_PERMISSION):
        raise NotAllowed(f"{user} may not open disputes.")


def check_may_adjudicate(user: object) -> None:
    """Raise NotAllowed for a person who may not decide disputes."""
    if not holds(user, ADJUDICATE_PERMISSION):
        raise NotAllowed(f"{user} may not decide disputes.")


def check_can_open(d: Decision) -> None:
    """Raise Refused when a decision cannot be disputed: its request was admitted, it was made in a
    replay, or a dispute of it is open or was upheld.
    """
    if d.replayed:
        raise Refused("This decision was made in a replay of a log, so no client was refused.")
    if Action(d.action) == Action.ADMIT or d.observed:
        raise Refused("This request was admitted, so there is no refusal to dispute.")
    if (there := standing(d.id)) is not None:
        raise Refused(_already(there))


def check_can_adjudicate(dispute: Dispute, login: str) -> None:
    """Raise Refused unless the dispute is open and `login` is a second person."""
    if not TRANSITIONS[State(dispute.state)]:
        raise Refused(
            f"This dispute was decided by {dispute.decided_name}:"
            f" {dispute.get_state_display().lower()}."
        )
    if dispute.opened_by == login:
        raise Refused("You opened this dispute, so someone else must decide it.")


def can_adjudicate(dispute: Dispute, user: object) -> bool:
    """Return whether this person may decide this dispute now. The button asks this, the endpoint
    asks the two checks.
    """
    try:
        check_may_adjudicate(user)
        check_can_adjudicate(dispute, str(getattr(user, "username", "")))
    except (NotAllowed, Refused):
        return False
    return True


def open_dispute(d: Decision, *, by: Actor, reason: str, ticket: str = "") -> Dispute:
    """Record that someone says a refusal was wrong, and return the dispute. Raise Refused when the
    request was admitted, the decision is disputed already, or a text cannot be stored.
    """
    reason, ticket = chain.check_reason(reason), _checked_ticket(ticket)
    check_can_open(d)
    try:
        with chain.changing():
            dispute = _create(d, by, reason, ticket)
            chain.append(
                by=by,
                reason=reason,
                action="dispute.open",
                subject=d.name,
                summary=f"said that a refusal ({Action(d.action).word}) was wrong",
                after={"dispute": dispute.pk, "state": State.OPEN, "ticket": ticket},
            )
    except IntegrityError:
        # the database allows one standing dispute: someone opened it after the check
        check_can_open(d)
        raise
    return dispute


def _create(d: Decision, by: Actor, claim: str, ticket: str) -> Dispute:
    """Store an open dispute. It copies what it needs of the decision, as the decision's partition
    may be dropped before the dispute is decided.
    """
    return Dispute.objects.create(
        decision=d.id,
        at=d.at,
        app=d.app,
        action=d.action,
        reason_code=d.reason,
        weight=max(1.0, d.weight),
        claim=claim,
        ticket=ticket,
        opened_by=by.login,
        opened_name=by.name,
        opened_at=timezone.now(),
    )


def adjudicate(number: int, verdict: Verdict, *, by: Actor, reason: str) -> Dispute:
    """Decide an open dispute, once, as a second person, and return it. The verdict becomes a
    matured outcome in the same transaction.

    Raise Refused when there is no such dispute, it is decided already, `by` opened it, or the
    reason cannot be stored.
    """
    reason = chain.check_reason(reason)
    with chain.changing():
        # its row is held until the verdict is stored: of two verdicts the second finds the first
        dispute = _found(number, Dispute.objects.select_for_update(of=("self",)))
        check_can_adjudicate(dispute, by.login)
        state = TRANSITIONS[State(dispute.state)][verdict]
        now = max(timezone.now(), dispute.opened_at)
        outcome = _outcome(dispute, KINDS[verdict], by, now)
        changed = Dispute.objects.filter(pk=number, state=dispute.state).update(
            state=state,
            decided_by=by.login,
            decided_name=by.name,
            decided_at=now,
            verdict_reason=reason,
            outcome=outcome,
        )
        if changed != 1:
            raise Refused("Someone else has decided this dispute in the meantime.")
        _note_verdict(dispute, verdict, state, outcome, by, reason)
    dispute.refresh_from_db()
    return dispute


def _note_verdict(
    dispute: Dispute, verdict: Verdict, state: State, outcome: Outcome, by: Actor, reason: str
) -> None:
    """Record a verdict in the audit log. `dispute` is as it was before."""
    summary = f"decided a dispute that {dispute.opened_name} opened: {state.label.lower()}"
    chain.append(
        by=by,
        reason=reason,
        action=f"dispute.{verdict}",
        subject=format_decision_id(dispute.decision.bytes),
        # as wide as the column
        summary=summary[:500],
        before={"dispute": dispute.pk, "state": dispute.state},
        after={
            "dispute": dispute.pk,
            "state": state,
            "outcome": outcome.key,
            "weight": outcome.weight,
        },
    )


def _outcome(dispute: Dispute, kind: OutcomeKind, by: Actor, now: datetime) -> Outcome:
    """Store the verdict as an outcome. It matures at once, and has the weight of the decision that
    it is about.
    """
    key = f"{KEY_PREFIX}{dispute.pk}"
    outcome = Outcome.objects.create(
        key=key,
        kind=kind,
        occurred_at=dispute.at,
        reported_at=max(now, dispute.at),
        matured_at=max(now, dispute.at),
        source=FROM_DISPUTE,
        weight=dispute.weight,
        app=dispute.app,
        decision=dispute.decision,
        by=by.name,
        digest=key,
    )
    # the dispute copied the app when its decision was stored, so the decision tells it
    OutcomeTie.objects.create(
        outcome=outcome,
        app=dispute.app,
        decision=dispute.decision,
        state=TieState.TIED,
        how=TieHow.DECISION,
        occurred_at=outcome.occurred_at,
        since=now,
    )
    return outcome


def by_number(number: int) -> Dispute:
    """Return the dispute of this number. Raise Refused when there is none."""
    return _found(number, Dispute.objects.all())


def _found(number: int, among: QuerySet[Dispute]) -> Dispute:
    if (found := among.filter(pk=number).first()) is None:
        raise Refused(f"There is no dispute {number}.")
    return found


def standing(decision: uuid.UUID) -> Dispute | None:
    """Return a decision's open or upheld dispute; None when there is none. While there is one, no
    other can be opened.
    """
    return Dispute.objects.filter(decision=decision, state__in=(State.OPEN, State.UPHELD)).first()


def of_decision(decision: uuid.UUID) -> list[Dispute]:
    """Return all disputes of a decision, latest first."""
    return list(Dispute.objects.filter(decision=decision).order_by("-opened_at", "-pk"))


def queue(which: str, login: str) -> QuerySet[Dispute]:
    """Return disputes: `open` ones oldest first, `mine` (opened or decided by this person), or
    `decided` ones, latest verdict first.
    """
    if which == "mine":
        mine = Dispute.objects.filter(opened_by=login) | Dispute.objects.filter(decided_by=login)
        return mine.order_by(F("decided_at").desc(nulls_first=True), "opened_at", "pk")
    if which == "decided":
        return Dispute.objects.exclude(state=State.OPEN).order_by("-decided_at", "-pk")
    return Dispute.objects.filter(state=State.OPEN).order_by("opened_at", "pk")


def after(which: str, login: str, last: Dispute, was_open: bool) -> QuerySet[Dispute]:
    """Return the disputes that follow `last` in a queue. `was_open`: whether `last` was open when
    it was listed; it may have been decided since.
    """
    there = queue(which, login)
    opened = Q(opened_at__gt=last.opened_at) | Q(opened_at=last.opened_at, pk__gt=last.pk)
    if which == "decided":
        return there.filter(
            Q(decided_at__lt=last.decided_at) | Q(decided_at=last.decided_at, pk__lt=last.pk)
        )
    if which == "open":
        return there.filter(opened)
    if was_open:
        return there.filter(Q(decided_at=None) & opened | Q(decided_at__isnull=False))
    return there.filter(Q(decided_at__lt=last.decided_at) | Q(decided_at=last.decided_at) & opened)


def waiting(now: datetime | None = None) -> Waiting:
    """Return how many disputes wait for a second person, and since when."""
    old = Q(opened_at__lt=(now or timezone.now()) - OLD)
    there = Dispute.objects.filter(state=State.OPEN)
    return Waiting(
        **there.aggregate(open=Count("pk"), old=Count("pk", filter=old), oldest_at=Min("opened_at"))
    )


def _checked_ticket(ticket: str) -> str:
    ticket = ticket.strip()
    if len(ticket) > TICKET_MAX:
        raise Refused(f"The ticket has {len(ticket):,} characters; the limit is {TICKET_MAX}.")
    if not ticket.isprintable():
        raise Refused("The ticket contains a control character. Remove it.")
    return ticket


def _already(there: Dispute) -> str:
    if there.is_open:
        return (
            f"{there.opened_name} has opened a dispute about this decision already; it waits for a"
            " second person."
        )
    return f"This refusal was found wrong already, by {there.decided_name}."
