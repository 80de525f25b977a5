"""Background work of the control room."""

from __future__ import annotations

import logging

from celery import shared_task
from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from control.audit import anchoring, look_months
from control.deciders import known_apps, publish
from control.directory import app_import
from control.errors import ControlError
from control.switches import offline

log = logging.getLogger(__name__)

# Seconds. Chosen: a change that Valkey missed arrives soon after Valkey is back; a run with nothing
# to do costs two look-ups.
PUBLISH_EVERY_S = 2.0


# celery publishes no types, hence the ignore
@shared_task(name="control.tasks.publish_pending", expires=10)  # type: ignore[untyped-decorator]
def publish_pending() -> None:
    """Import flips made while PostgreSQL was down. Then publish what is committed but not
    published, and the table of known apps.

    A journal entry that cannot be imported is logged in every run and does not stop publishing.
    """
    try:
        for said in offline.reconcile():
            log.warning("%s", said)
    except ControlError as error:
        log.error("the journal cannot be imported: %s", error)
    try:
        for did in (publish.pending(), known_apps.pending()):
            if did:
                log.info("%s", did)
    except ControlError as error:
        log.warning("publishing failed and is retried in %.0f s: %s", PUBLISH_EVERY_S, error)


@shared_task(name="control.tasks.publish_import")  # type: ignore[untyped-decorator]
def publish_import(number: int) -> int:
    """Tell deciders of the apps of one import, and return how many those are. When Valkey does not
    answer, `publish_imports` does it later.
    """
    try:
        return app_import.publish_import(number)
    except ControlError as error:
        log.warning("import %d is stored and will be published later: %s", number, error)
        return 0


@shared_task(name="control.tasks.publish_imports", expires=60)  # type: ignore[untyped-decorator]
def publish_imports() -> None:
    """Tell deciders of imported apps where the import itself did not come to it."""
    try:
        if did := app_import.pending(timezone.now()):
            log.info("%s", did)
    except ControlError as error:
        log.warning("imported apps could not be published and are tried again: %s", error)


@shared_task(name="control.tasks.keep_looks", expires=3600)  # type: ignore[untyped-decorator]
def keep_looks() -> dict[str, int]:
    """Make the months ahead of the data-access log, and drop what is older than
    SLUICE_KEEP_LOOKS_DAYS. Return how many were made and dropped.

    A month that cannot be dropped is logged in every run, an hour apart, and stays.
    """
    made, dropped = look_months.ensure(), 0
    try:
        dropped = look_months.drop_old(settings.SLUICE_KEEP_LOOKS_DAYS)
    except (ControlError, OperationalError) as error:
        log.error("old looks cannot be dropped and are kept: %s", error)
    return {"made": made, "dropped": dropped}


@shared_task(name="control.tasks.anchor_audit", expires=600)  # type: ignore[untyped-decorator]
def anchor_audit() -> dict[str, int]:
    """Anchor the end of the audit log outside the database, and send anchors that wait. Return how
    many were sent ever, and wait. What fails is kept for home, logged and tried again.
    """
    report = anchoring.run()
    return {"sent": report.sent, "waiting": report.waiting}
