"""Who may approve or veto a request, and whose votes count when it is applied."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.contrib.auth.models import User

from control.approvals.models import Request, Vote
from control.errors import NotAllowed, Refused
from control.people.grants import granted_within

# How long after a role was granted neither of the two approves for the other. Chosen: whoever may
# grant roles could else make an approver, use them and take the role back before anyone looks.
GRANTED_HOURS = 24


def check_may_approve(voter: User, request: Request, permissions: Collection[str]) -> None:
    """Raise NotAllowed for a person who may not decide changes of this kind, Refused for one who
    may not decide this one.

    `permissions`: what the content of the request needs of those who decide it. Who holds one of
    several decides that part of it; together the approvers must hold all (`missing`).
    """
    if not voter.is_active or not any(voter.has_perm(one) for one in permissions):
        raise NotAllowed("You may not decide this request.")
    if voter.pk == request.requested_by_id:
        raise Refused("You asked for this, so someone else must decide.")
    proposer = request.requested_by
    for granter, grantee in ((voter, proposer), (proposer, voter)):
        if granted_within(granter, grantee, GRANTED_HOURS):
            raise Refused(
                f"{granter} gave {grantee} a role within the last {GRANTED_HOURS} hours, so neither"
                " decides for the other. Ask someone else."
            )


def why_not(voter: User, request: Request, permissions: Collection[str]) -> str:
    """Return why this person may not decide this request, a sentence; empty when they may. The
    button asks this, the endpoint asks `check_may_approve`.
    """
    try:
        check_may_approve(voter, request, permissions)
    except (NotAllowed, Refused) as error:
        return str(error)
    return ""


def counted(request: Request, permissions: Collection[str]) -> list[Vote]:
    """Return the approvals that count now: for this digest, by people who may still decide it."""
    votes = request.votes.filter(verdict=Vote.Verdict.APPROVE, digest=request.digest)
    # read anew: roles and accounts may have changed since the vote
    return [
        vote
        for vote in votes.select_related("voter")
        if not why_not(vote.voter, request, permissions)
    ]


@dataclass(frozen=True)
class Missing:
    """What a request still lacks before its change may be made."""

    people: int
    permissions: frozenset[str]
    """Those that nobody holds whose approval counts."""

    def __bool__(self) -> bool:
        return self.people > 0 or bool(self.permissions)


def missing(request: Request, permissions: Collection[str]) -> Missing:
    """Return what a request lacks now: people, and permissions that a change of several kinds
    needs.
    """
    approved = counted(request, permissions)
    lacked = {one for one in permissions if not any(vote.voter.has_perm(one) for vote in approved)}
    return Missing(max(0, request.needs - len(approved)), frozenset(lacked))
