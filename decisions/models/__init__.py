"""The tables: stored decisions and ingested batches; outcomes and disputes."""

from decisions.models.decision import Decision, IngestedBatch, ReplayedDecision, utc
from decisions.models.outcome import Dispute, Outcome

__all__ = [
    "Decision",
    "Dispute",
    "IngestedBatch",
    "Outcome",
    "ReplayedDecision",
    "utc",
]
