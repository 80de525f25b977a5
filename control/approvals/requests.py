"""Asking for a change that needs a second person, deciding it, and ending it.

Each verb is one transaction with its entry in the audit log. What states there are and what leads
from one to the next stands in `lifecycle`; the database holds all of it, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import IntegrityError
from django.db.models import Count, F, Q, QuerySet
from django.utils import timezone

from control.approvals import lifecycle, voters
from control.approvals.lifecycle import State
from control.approvals.models import Request, Vote
from control.audit import chain
from control.audit.actors import SYSTEM, Actor
from control.errors import Conflict, Refused

# How long a request may wait. Chosen: each shift sees it once; what nobody decided in a day was
# not urgent, or was forgotten.
WAITS = timedelta(hours=24)
# Characters, as wide as the column.
TICKET_MAX = 40
OUTCOME_MAX = 1000  # as wide as the column


class NotApproved(Refused):
    """A request that may not be applied now: it is closed, lacks approvals that count, or is for
    another change. Nothing is wrong with its change.
    """


@dataclass(frozen=True)
class Draft:
    """What is asked for."""

    action: str
    """Machine name, "noun.verb"."""
    subject: str
    summary: str
    """What the audit log will say, a sentence without its actor."""
    payload: str
    """The change in canonical JSON; its SHA-256 is `digest`."""
    digest: str
    base: dict[str, str]
    """Digest of each part as it is now."""
    expires_at: datetime | None = None
    """When the change would make no sense any more; at most WAITS ahead."""


@dataclass(frozen=True)
class Ballot:
    """What a person says of a request."""

    verdict: Vote.Verdict
    digest: str
    """What they have read: the digest of the content."""
    reason: str
    how: Vote.How = Vote.How.SESSION
    assertion: bytes | None = None


def ask(draft: Draft, *, by: User, reason: str, ticket: str = "") -> Request:
    """Open a request and return it. Raise Refused when a text cannot be stored, Conflict when the
    same change is asked for already.
    """
    reason, ticket, now = chain.check_reason(reason), _checked_ticket(ticket), timezone.now()
    try:
        with chain.changing():
            made = Request.objects.create(
                action=draft.action,
                subject=draft.subject,
                summary=draft.summary,
                payload=draft.payload,
                digest=draft.digest,
                base=draft.base,
                requested_by=by,
                requested_at=now,
                reason=reason,
                ticket=ticket,
                expires_at=min(now + WAITS, draft.expires_at or now + WAITS),
            )
            _note(made, "ask", by=Actor.of(by), reason=reason, said="asked for a second person to")
    except IntegrityError as error:
        if (there := Request.objects.filter(digest=draft.digest, state=State.OPEN).first()) is None:
            raise
        raise Conflict(
            f"{there.requested_by} asked for the same change: request {there.pk}."
        ) from error
    return made


def vote(number: int, ballot: Ballot, *, by: User, needed: Callable[[Request], set[str]]) -> Vote:
    """Keep a person's verdict on an open request and return it. A veto ends the request.

    `needed`: the permissions that the content of a request needs. Raise NotAllowed, or Refused when
    the request is closed or has other content than the ballot, it is the person's own, or they have
    voted.
    """
    reason, now = chain.check_reason(ballot.reason), timezone.now()
    with chain.changing():
        row = _held(number)
        check_open(row, now)
        voters.check_may_approve(by, row, needed(row))
        if ballot.digest != row.digest:
            raise Refused("This request has other content than you have read. Look at it again.")
        if row.votes.filter(voter=by).exists():
            raise Refused("You have voted on this request already.")
        made = Vote.objects.create(
            request=row,
            voter=by,
            digest=ballot.digest,
            verdict=ballot.verdict,
            reason=reason,
            how=ballot.how,
            assertion=ballot.assertion,
            at=now,
        )
        if ballot.verdict == Vote.Verdict.VETO:
            _close(row, State.VETOED, f"{Actor.of(by).name}: {reason}", now)
        said = "vetoed the request to" if row.state == State.VETOED else "approved the request to"
        _note(row, str(ballot.verdict), by=Actor.of(by), reason=reason, said=said)
    return made


def withdraw(number: int, *, by: User, reason: str) -> Request:
    """End one's own open request and return it. Raise Refused when it is another's or closed."""
    reason, now = chain.check_reason(reason), timezone.now()
    with chain.changing():
        row = _held(number)
        check_open(row, now)
        if row.requested_by_id != by.pk:
            raise Refused(f"Only {row.requested_by} can withdraw this request. You can veto it.")
        _close(row, State.WITHDRAWN, reason, now)
        _note(row, "withdraw", by=Actor.of(by), reason=reason, said="withdrew the request to")
    return row


def replace(number: int, draft: Draft, *, by: User, reason: str) -> Request:
    """Open a request with the same wish and other content in place of an open one; its votes begin
    anew. Return the new one. Raise Refused when the old one is closed.
    """
    now = timezone.now()
    with chain.changing():
        row = _held(number)
        check_open(row, now)
        # closed first: there may be one open request for a change
        _close(row, State.WITHDRAWN, f"Rebased by {Actor.of(by).name}.", now)
        _note(row, "rebase", by=Actor.of(by), reason=reason, said="rebased the request to")
        return ask(draft, by=by, reason=reason, ticket=row.ticket)


def take(number: int, digest: str, needed: Callable[[Request], set[str]]) -> Request:
    """Mark a request as applied and return it, inside the transaction of the change. Raise Refused
    unless it is open, of this digest, and approved by enough people who may still decide it.
    """
    now, row = timezone.now(), _held(number)
    check_open(row, now)
    if row.digest != digest:
        raise NotApproved("This change is not the one that was approved. Rebase the request.")
    if not row.requested_by.is_active:
        raise NotApproved(f"{row.requested_by} asked for this and is not active any more.")
    approved = voters.counted(row, needed(row))
    if voters.missing(row, needed(row)):
        lost = _lost(row, approved)
        enough = "" if len(approved) < row.needs else " It needs someone of another role as well."
        count = f"{len(approved)} of {row.needs} approvals count.{enough}"
        raise NotApproved(f"{count} {lost}".strip())
    names = ", ".join(Actor.of(vote.voter).name for vote in approved)
    _close(row, State.APPLIED, f"Approved by {names}.", now)
    return row


def fail(number: int, why: str) -> Request:
    """End an approved request whose change is impossible, and return it."""
    with chain.changing():
        row = _held(number)
        check_open(row, timezone.now())
        _close(row, State.FAILED, why, timezone.now())
        _note(row, "fail", by=SYSTEM, reason=why, said="could not apply the request to")
    return row


def expire(now: datetime) -> int:
    """End the requests whose time has run out; return how many. Each is a transaction of its own,
    so that one that is being decided holds no other up.
    """
    ended = 0
    for number in Request.objects.filter(state=State.OPEN, expires_at__lte=now).values_list(
        "pk", flat=True
    ):
        with chain.changing():
            row = _held(number)
            if row.state != State.OPEN:
                continue
            _close(row, State.EXPIRED, "Nobody decided in time.", max(now, row.expires_at))
            why = "Its time ran out"
            _note(row, "expire", by=SYSTEM, reason=why, said="ended, undecided, the request to")
            ended += 1
    return ended


def check_open(row: Request, now: datetime) -> None:
    """Raise NotApproved unless a request can still be decided at `now`."""
    if row.state != State.OPEN:
        raise NotApproved(f"This request is closed. {State(row.state).label}: {row.outcome}")
    if now >= row.expires_at:
        raise NotApproved(f"This request ended undecided at {row.expires_at:%d %b %H:%M} UTC.")


def found(number: int) -> Request:
    """Return the request of this number. Raise Refused when there is none."""
    row = Request.objects.select_related("requested_by").filter(pk=number).first()
    if row is None:
        raise Refused(f"There is no request {number}.")
    return row


def waiting(now: datetime) -> QuerySet[Request]:
    """Return the requests that can be decided at `now`, oldest first, with proposers and votes."""
    rows = Request.objects.filter(state=State.OPEN, expires_at__gt=now)
    return rows.select_related("requested_by").prefetch_related("votes__voter").order_by("pk")


def approved(now: datetime) -> list[Request]:
    """Return the open requests that as many people approved as they need, whether or not each vote
    still counts.
    """
    said = Count("votes", filter=Q(votes__verdict=Vote.Verdict.APPROVE))
    rows = Request.objects.filter(state=State.OPEN, expires_at__gt=now).annotate(said=said)
    return list(rows.filter(said__gte=F("needs")).order_by("pk"))


def closed(since: datetime) -> QuerySet[Request]:
    """Return the requests that were closed at or after `since`, the latest first."""
    rows = Request.objects.exclude(state=State.OPEN).filter(closed_at__gte=since)
    return (
        rows.select_related("requested_by")
        .prefetch_related("votes__voter")
        .order_by("-closed_at", "-pk")
    )


def _held(number: int) -> Request:
    """Return a request whose row is held until the transaction ends, so that of two verdicts the
    second finds the first. Raise Refused when there is none.
    """
    row = Request.objects.select_for_update(of=("self",)).filter(pk=number).first()
    if row is None:
        raise Refused(f"There is no request {number}.")
    return row


def _close(row: Request, state: State, outcome: str, now: datetime) -> None:
    lifecycle.check(State(row.state), state)
    row.state, row.outcome, row.closed_at = state, outcome[:OUTCOME_MAX], now
    row.save(update_fields=["state", "outcome", "closed_at"])


def _note(row: Request, verb: str, *, by: Actor, reason: str, said: str) -> None:
    """Append what happened to a request. What it asks for follows `said`, as it will be told."""
    chain.append(
        by=by,
        reason=reason,
        action=f"approval.{verb}",
        subject=f"request {row.pk}",
        # as wide as the column
        summary=f"{said} get this done: {row.summary}"[:500],
        after={"request": row.pk, "digest": row.digest, "state": str(row.state)},
    )


def _lost(row: Request, approved: list[Vote]) -> str:
    gone = [
        str(vote.voter)
        for vote in row.votes.filter(verdict=Vote.Verdict.APPROVE).select_related("voter")
        if vote not in approved
    ]
    return f"The vote of {', '.join(gone)} does not count any more." if gone else ""


def _checked_ticket(ticket: str) -> str:
    ticket = ticket.strip()
    if len(ticket) > TICKET_MAX:
        raise Refused(f"The ticket has {len(ticket):,} characters; the limit is {TICKET_MAX}.")
    if not ticket.isprintable():
        raise Refused("The ticket contains a control character. Remove it.")
    return ticket
