"""The tables: stored decisions and ingested batches; what could not be stored; outcomes and
disputes.
"""

from decisions.models.decision import Decision, IngestedBatch, ReplayedDecision, utc
from decisions.models.ingest import BuriedEvent, DeciderRun, DroppedDay
from decisions.models.outcome import Dispute, Outcome

__all__ = [
    "BuriedEvent",
    "DeciderRun",
    "Decision",
    "Dispute",
    "DroppedDay",
    "IngestedBatch",
    "Outcome",
    "ReplayedDecision",
    "utc",
]
