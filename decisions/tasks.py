"""Housekeeping of the decision tables."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from control import installation
from decisions.counts import rollup, seen_tokens
from decisions.models import IngestedBatch
from decisions.outcomes import ties
from decisions.store import buried, ledger, retention

log = logging.getLogger("sluice.outcomes")

# Batch ids are kept far longer than a batch can stay in the stream, which holds 20,000 of them: an
# id that is forgotten too early would let its batch be stored twice.
KEEP_BATCHES_DAYS = 7


# celery publishes no types, hence the ignore
@shared_task(name="decisions.tasks.keep_partitions")  # type: ignore[untyped-decorator]
def keep_partitions() -> dict[str, int]:
    """Make the partitions of the days ahead, and drop what is older than is kept or more than the
    disk's budget holds. Return how many partitions were made and dropped, and how many
    batch ids were deleted.
    """
    keep_days = installation.keep_days()
    run = retention.keep()
    rollup.drop(keep_days, time.time())
    seen_tokens.drop(keep_days, time.time())
    ledger.drop(keep_days)
    buried.drop(keep_days)
    forgotten, _ = IngestedBatch.objects.filter(
        stored_at__lt=timezone.now() - timedelta(days=KEEP_BATCHES_DAYS)
    ).delete()
    return {"made": run.made, "dropped": run.dropped, "batches_forgotten": forgotten}


@shared_task(name="decisions.tasks.compact_counts")  # type: ignore[untyped-decorator]
def compact_counts() -> int:
    """Add up the counts of the minutes that are over. Return how many rows were compacted."""
    return rollup.compact(time.time())


@shared_task(name="decisions.tasks.tie_outcomes")  # type: ignore[untyped-decorator]
def tie_outcomes() -> dict[str, int]:
    """Look again for the apps of outcomes that are not tied to one for sure. Return how many were
    tried, and what became of them.
    """
    done = ties.try_again()
    if done.tied or done.untied or done.given_up:
        log.info(
            "Outcomes tried again: %d; %d are tied to an app now, %d proved to be about several,"
            " %d stay unknown.",
            done.tried,
            done.tied,
            done.untied,
            done.given_up,
        )
    return asdict(done)
