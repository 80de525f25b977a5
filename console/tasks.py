"""Background work that needs more than one of the top-level packages (rooms)."""

from __future__ import annotations

import logging
import time

from celery import shared_task
from django.contrib.sessions.models import Session
from django.utils import timezone

from console.pages.approvals import deciding
from control.approvals import requests
from control.config import requested
from control.deciders import profiles
from control.errors import ControlError
from control.people import guessing
from decisions.outcomes import reports

log = logging.getLogger(__name__)


# celery has no types
@shared_task(name="console.tasks.tell_found_wrong", expires=60)  # type: ignore[untyped-decorator]
def tell_found_wrong() -> int:
    """Tell the deciders of refusals that were found wrong. Return how many profiles changed.

    Return 0 after a failure: the next run, a minute later, tells the same again.
    """
    try:
        return profiles.tell_found_wrong(reports.found_wrong(time.time()))
    except ControlError as error:
        log.warning(
            "The deciders were not told which refusals were found wrong; the next run tries again:"
            " %s",
            error,
        )
        return 0


@shared_task(name="console.tasks.forget_sign_ins", expires=3600)  # type: ignore[untyped-decorator]
def forget_sign_ins() -> int:
    """Delete sessions that have ended, and wrong tries to sign in that slow nobody down any more.
    Return how many rows.
    """
    now = timezone.now()
    return Session.objects.filter(expire_date__lt=now).delete()[0] + guessing.forget(now)


@shared_task(name="console.tasks.settle_requests", expires=60)  # type: ignore[untyped-decorator]
def settle_requests() -> dict[str, int]:
    """End requests whose time has run out, and make changes that were approved and not made because
    a process ended in between. Return how many of each.
    """
    return {
        "ended": requests.expire(timezone.now()),
        "made": requested.apply_approved(deciding.EFFECTS),
    }
