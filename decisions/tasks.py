"""Housekeeping of the decision tables."""

from __future__ import annotations

import time
from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from decisions.counts import rollup, seen_tokens
from decisions.models import IngestedBatch
from decisions.store import partitions

# Batch ids are kept far longer than a batch can stay in the stream, which holds 20,000 of them: an
# id that is forgotten too early would let its batch be stored twice.
KEEP_BATCHES_DAYS = 7


# celery publishes no types, hence the ignore
@shared_task(name="decisions.tasks.keep_partitions")  # type: ignore[untyped-decorator]
def keep_partitions() -> dict[str, int]:
    """Create the partitions of the days ahead, and drop what is older than SLUICE_KEEP_DAYS. Return
    how many partitions were created and dropped, and how many batch ids were deleted.
    """
    keep_days, tables = settings.SLUICE_KEEP_DAYS, (partitions.DECISIONS, partitions.REPLAYED)
    made = sum(partitions.ensure(table) for table in tables)
    dropped = sum(partitions.drop(table, keep_days) for table in tables)
    rollup.drop(keep_days, time.time())
    seen_tokens.drop(keep_days, time.time())
    forgotten, _ = IngestedBatch.objects.filter(
        stored_at__lt=timezone.now() - timedelta(days=KEEP_BATCHES_DAYS)
    ).delete()
    return {"made": made, "dropped": dropped, "batches_forgotten": forgotten}


@shared_task(name="decisions.tasks.compact_counts")  # type: ignore[untyped-decorator]
def compact_counts() -> int:
    """Add up the counts of the minutes that are over. Return how many rows were compacted."""
    return rollup.compact(time.time())
