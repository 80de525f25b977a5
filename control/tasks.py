"""Background work of the control room."""

from __future__ import annotations

import logging

from celery import shared_task

from control.deciders import publish
from control.errors import ControlError
from control.switches import offline

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 2.0


@shared_task(name="control.tasks.publish_pending", expires=10)
def publish_pending() -> None:
    """Takes in flips made while PostgreSQL was down, then publishes what is committed and not yet
    out.

    A journal entry that cannot be taken in is reported each time and does not hold up publishing.
    """
    try:
        for said in offline.reconcile():
            log.warning("%s", said)
    except ControlError as error:
        log.error("the journal is not taken in: %s", error)
    try:
        if did := publish.pending():
            log.info("%s", did)
    except ControlError as error:
        log.warning("publishing is retried in %.0f s: %s", PUBLISH_EVERY_S, error)
