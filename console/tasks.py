"""Background work that needs more than one room."""

from __future__ import annotations

import logging
import time

from celery import shared_task

from control.deciders import profiles
from control.errors import ControlError
from decisions.outcomes import reports

log = logging.getLogger(__name__)


# celery has no types
@shared_task(name="console.tasks.tell_found_wrong", expires=60)  # type: ignore[untyped-decorator]
def tell_found_wrong() -> int:
    """Tell the deciders of refusals that were found wrong. Return how many profiles changed.

    What fails is told a minute later: the schedule runs this again, and telling twice is harmless.
    """
    try:
        return profiles.tell_found_wrong(reports.found_wrong(time.time()))
    except ControlError as error:
        log.warning("Deciders are told of refusals found wrong next time: %s", error)
        return 0
