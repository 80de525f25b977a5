"""The tables: stored decisions and ingested batches; what could not be stored; outcomes, the
apps they are about, and disputes.
"""

from decisions.models.decision import Decision, IngestedBatch, ReplayedDecision, utc
from decisions.models.ingest import BuriedEvent, DeciderRun, DroppedDay
from decisions.models.outcome import Dispute, Outcome
from decisions.models.tie import OutcomeTie

__all__ = [
    "BuriedEvent",
    "DeciderRun",
    "Decision",
    "Dispute",
    "DroppedDay",
    "IngestedBatch",
    "Outcome",
    "OutcomeTie",
    "ReplayedDecision",
    "utc",
]
