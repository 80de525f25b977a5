"""Deciding a request, for the page and REST alike: the vote, and the change that it allows."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from django.contrib.auth.models import User
from django.utils import timezone

from control.approvals import mode, requests, voters
from control.approvals.lifecycle import State
from control.approvals.models import Request
from control.approvals.requests import Ballot
from control.config import beside, gate, requested
from control.config.part_words import text
from control.config.requested import Effect, Overtaking
from control.declared import applying
from control.directory import app_import
from control.errors import ControlError, Refused
from control.switches import switches
from decider.contracts.config import version_text
from rollouts import registry

# What makes a change of each section of the config document, where more belongs to it than the
# document. A new kind of change gets its line here.
EFFECTS: Mapping[str, Effect] = {
    "switches": switches.apply_request,
    "model": registry.apply_request,
    "four_eyes": mode.apply_request,
    beside.INSTALLATION: applying.apply_request,
    beside.APPS: app_import.wait_for_file,
}


def approve(number: int, ballot: Ballot, *, by: User) -> Request:
    """Keep an approval, make the change when enough people approved, and return the request as it
    then stands. Raise NotAllowed, Refused; an overtaken request cannot be approved.
    """
    row = requests.found(number)
    if row.state == State.OPEN and (found := requested.overtaken(row, timezone.now())):
        raise Refused(f"{overtaken_text(found)} Rebase the request before anyone decides.")
    requests.vote(number, ballot, by=by, needed=gate.permissions_of)
    if not voters.missing(row, gate.permissions_of(row)):
        # the vote is kept whatever is in the way; a task tries again, and the page says what stands
        with contextlib.suppress(ControlError):
            requested.apply(row, EFFECTS)
    return requests.found(number)


def veto(number: int, ballot: Ballot, *, by: User) -> Request:
    """Keep a veto, which ends the request, and return it. Raise NotAllowed, Refused."""
    requests.vote(number, ballot, by=by, needed=gate.permissions_of)
    return requests.found(number)


def overtaken_text(found: Overtaking) -> str:
    """Return who overtook a request, when, and what the part is now: whole sentences."""
    now = text(found.part.path, found.now)
    if found.version is None or found.at is None:
        return f"It is not what it was any more; now it is {now}."
    return (
        f"{found.by} changed the same at {found.at:%H:%M} UTC (config"
        f" {version_text(found.version)}); now it is {now}."
    )
