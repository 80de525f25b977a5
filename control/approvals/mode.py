"""Whether four eyes is on. A new installation begins in single-person mode: changes that need a
second person apply at once, and are marked. Turning it on or off takes two people, always.
"""

from __future__ import annotations

import hashlib
import json

from django.contrib.auth.models import User
from django.utils import timezone

from control import locks
from control.approvals import requests
from control.approvals.models import Mode, Request
from control.approvals.requests import Draft
from control.audit import chain
from control.audit.actors import Actor
from control.errors import NotAllowed, Refused
from control.locks import Lock

PERMISSION = "approvals.approve_rule"
# The part of a request's payload that stands for the mode.
PART = "/four_eyes"


def is_on() -> bool:
    """Return whether a change that needs a second person waits for one."""
    newest = Mode.objects.order_by("-pk").first()
    return newest is not None and newest.on


def check_may_ask(user: User) -> None:
    """Raise NotAllowed for a person who may not ask to turn four eyes on or off."""
    if not user.has_perm(PERMISSION):
        raise NotAllowed(f"{user} may not turn four eyes on or off.")


def draft(on: bool) -> Draft:
    """Return the change of the mode as a request has it. Raise Refused when it is none."""
    if is_on() == on:
        raise Refused(f"Four eyes is {_word(on)} already.")
    payload = json.dumps([[PART, not on, on]], separators=(",", ":"))
    return Draft(
        action=f"four_eyes.{_word(on)}",
        subject="four eyes",
        summary=f"turned four eyes {_word(on)}",
        payload=payload,
        digest=_digest(payload),
        base={PART: _digest(json.dumps(not on))},
    )


def ask(on: bool, *, by: User, reason: str) -> Request:
    """Open a request to turn four eyes on or off and return it. Raise NotAllowed, Refused."""
    check_may_ask(by)
    return requests.ask(draft(on), by=by, reason=reason)


def apply_request(row: Request) -> Mode:
    """Turn four eyes on or off as an approved request says, and return the new mode. Raise Refused
    when it is not approved or changes nothing.
    """
    on = bool(json.loads(row.payload)[0][2])
    with chain.changing():
        # no change of the config is being judged by the old mode meanwhile
        locks.hold(Lock.CONFIG)
        wanted = draft(on)
        taken = requests.take(row.pk, wanted.digest, lambda _: {PERMISSION})
        made = Mode.objects.create(on=on, at=timezone.now(), request=taken)
        chain.append(
            by=Actor.of(taken.requested_by),
            reason=taken.reason,
            action=wanted.action,
            subject=wanted.subject,
            summary=wanted.summary,
            before={"on": not on},
            after={"on": on, "request": taken.pk, "approved": taken.outcome},
        )
    return made


def _word(on: bool) -> str:
    return "on" if on else "off"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()
