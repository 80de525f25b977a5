"""Background work that needs more than one room."""

from __future__ import annotations

import logging
import time

from celery import shared_task

from control.deciders import profiles
from control.errors import ControlError
from decisions.outcomes import reports

log = logging.getLogger(__name__)


@shared_task(name="console.tasks.tell_found_wrong", expires=60)
def tell_found_wrong() -> int:
    """Tells the deciders of refusals that were found wrong; one that fails is tried again. Returns
    how many profiles changed.
    """
    try:
        return profiles.tell_found_wrong(reports.found_wrong(time.time()))
    except ControlError as error:
        log.warning("refusals found wrong are told to the deciders next time: %s", error)
        return 0
