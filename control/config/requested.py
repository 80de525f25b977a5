"""Requests for changes of the config: asking, being overtaken by others, rebasing, applying."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.models import User
from django.utils import timezone

from control.approvals import mode, requests, reviews, voters
from control.approvals.models import Request, Review
from control.approvals.requests import Draft, NotApproved
from control.audit.actors import Actor
from control.config import beside, changes, gate, part_words, parts
from control.config.gate import NeedsSecondPerson, Wanted
from control.config.parts import Difference
from control.config.second_person import Verdict
from control.errors import Conflict, ControlError, NotAllowed, Refused
from control.models import ConfigVersion
from decider.contracts import config as document

log = logging.getLogger(__name__)

# Applies a request of which all parts are in one section of the document, or are the mode.
Effect = Callable[[Request], object]


@dataclass(frozen=True)
class Overtaking:
    """Somebody changed a part that an open request is about."""

    part: Difference
    """What was asked."""
    now: parts.Value
    """What the part is now."""
    by: str
    at: datetime | None
    version: int | None
    """Where it changed; None where no stored version says so."""


def ask(held: NeedsSecondPerson, *, by: User, reason: str, ticket: str = "") -> Request:
    """Open a request for a change that was held back, and return it. Raise Refused."""
    return requests.ask(held.draft, by=by, reason=reason, ticket=ticket)


def overtaken(row: Request, now: datetime) -> Overtaking | None:
    """Return the first part of a request that is not what it was when it was asked for."""
    config = changes.current()
    for found in parts.read_payload(row.payload):
        here = _here(found, config, now)
        if parts.digest_of(parts.canonical(here)) != row.base.get(found.part):
            return _who(row, found, here)
    return None


def _here(found: Difference, config: document.Config, now: datetime) -> parts.Value:
    """Return what a part is now."""
    if found.part == mode.PART:
        return mode.is_on()
    if found.path[0] in beside.SECTIONS:
        return beside.value_of(found.path)
    return parts.value_at(config, found.path, now.timestamp())


def _who(row: Request, found: Difference, here: parts.Value) -> Overtaking:
    """Return who changed a part last since a request was made."""
    if found.path[0] in beside.SECTIONS:
        # no config version says so
        return Overtaking(found, here, "", None, None)
    last: ConfigVersion | None = None
    was = found.before
    for version in ConfigVersion.objects.filter(made_at__gt=row.requested_at).order_by("version"):
        config = document.decode(bytes(version.payload))
        becomes = parts.value_at(config, found.path, version.made_at.timestamp())
        if becomes != was:
            last, was = version, becomes
    if last is None:
        # nobody did: an entry ended by itself
        return Overtaking(found, here, "", None, None)
    return Overtaking(found, here, last.by, last.made_at, last.version)


def rebase(row: Request, *, by: User, reason: str) -> Request:
    """Ask for the same wish from what is in force now, in place of an overtaken request, and return
    the new request. Whoever rebases is its proposer. Raise NotAllowed for a person who could not
    decide it and did not ask for it, Refused when nothing is left to ask.
    """
    now = timezone.now()
    if not may_rebase(by, row):
        raise NotAllowed(f"{by} may not rebase this request.")
    if overtaken(row, now) is None:
        raise Refused("Nothing that this request is about has changed, so it stands as it is.")
    return requests.replace(row.pk, _rebased(row, now), by=by, reason=reason)


def may_rebase(user: User, row: Request) -> bool:
    """Return whether this person may rebase a request: who asked, and who could decide it."""
    needed = gate.permissions_of(row)
    return row.requested_by_id == user.pk or any(user.has_perm(one) for one in needed)


def _rebased(row: Request, now: datetime) -> Draft:
    asked = parts.read_payload(row.payload)
    if asked[0].part == mode.PART:
        return mode.draft(bool(asked[0].after))
    config = changes.current()
    again = [
        Difference(found.path, here, found.after)
        for found in asked
        if (here := _here(found, config, now)) != found.after
    ]
    if not again:
        raise Refused("What was asked for is in force already. The request can be withdrawn.")
    wanted = Wanted(Actor.of(row.requested_by), row.reason, row.action, row.subject, row.summary)
    if asked[0].path[0] in beside.SECTIONS:
        needs = tuple(part_words.clause(found) for found in again)
        return gate.drafted(Verdict(tuple(again), needs), wanted, now.timestamp())
    patched = parts.patch(config, again, now.timestamp())
    verdict = gate.judge(config, patched, wanted.by, now)
    return gate.drafted(verdict, wanted, now.timestamp())


def apply(row: Request, effects: Mapping[str, Effect]) -> bool:
    """Make the change of an approved request. Return whether it was made; when it is impossible,
    the request ends as failed, with the reason. Raise NotApproved when it lacks approvals or was
    overtaken, and ControlError when something else is in the way and it may be tried again.
    """
    found = parts.read_payload(row.payload)
    sections = {one.path[0] for one in found}
    effect = effects.get(next(iter(sections))) if len(sections) == 1 else None
    try:
        if found[0].part != mode.PART and sections.isdisjoint(beside.SECTIONS):
            # what does not fit the document is told as such, whatever its effect would make of it
            parts.patch(changes.current(), found, timezone.now().timestamp())
        if effect is not None:
            effect(row)
        elif sections.isdisjoint(effects):
            _apply_parts(row)
        else:
            raise Refused(f"No change is of {' and '.join(sorted(sections))} at once.")
    except (NotApproved, Conflict, parts.Overtaken):
        raise
    except Refused as error:
        requests.fail(row.pk, str(error))
        return False
    return True


def _apply_parts(row: Request) -> None:
    """Put the parts of a request into the newest document, where nothing else belongs to them."""
    found, now = parts.read_payload(row.payload), timezone.now().timestamp()
    changes.make_version(
        by=Actor.of(row.requested_by),
        reason=row.reason,
        action=row.action,
        subject=row.subject,
        summary=row.summary,
        edit=lambda config: parts.patch(config, found, now),
        before={d.part: d.before for d in found},
        after={d.part: d.after for d in found},
        request=row,
    )


def apply_approved(effects: Mapping[str, Effect]) -> int:
    """Make the changes that were approved and not made yet, because a process ended in between;
    return how many. What cannot be made now is logged and tried again.
    """
    made = 0
    for row in requests.approved(timezone.now()):
        try:
            made += apply(row, effects)
        except ControlError as error:
            log.info("%s waits: %s", row, error)
    return made


def parts_of(row: Request) -> tuple[Difference, ...]:
    """Return what a request changes, part by part."""
    return parts.read_payload(row.payload)


def waiting_for(user: User) -> int:
    """Return how many requests and reviews wait for this person to decide."""
    asked = sum(
        not any(vote.voter_id == user.pk for vote in row.votes.all())
        and not voters.why_not(user, row, gate.permissions_of(row))
        for row in requests.waiting(timezone.now())
    )
    return asked + sum(may_close(user, row) for row in reviews.waiting())


def may_close(user: User, row: Review) -> bool:
    """Return whether this person may close a review. The button asks this, the endpoint asks
    `reviews.check_may_close`.
    """
    try:
        reviews.check_may_close(user, row, gate.permissions_for(row.payload))
    except (NotAllowed, Refused):
        return False
    return True
