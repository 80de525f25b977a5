"""What needs attention of the anchors of the audit log."""

from __future__ import annotations

from dataclasses import dataclass

from decider.contracts.units import span
from monitoring.attention_item import AttentionItem

# Seconds without an anchor after which nobody seems to make any. Chosen: as the check of the log
# (control.audit.anchors.TOO_OLD).
SILENT_S = 7_200.0


@dataclass(frozen=True)
class Anchoring:
    """How anchoring went last."""

    at: float
    """Unix seconds of the reading; likewise the others."""
    anchored_at: float
    """When the worker last had the end of the log anchored."""
    failing_since: float = 0.0
    """0 while all goes well."""
    why: str = ""
    waiting: int = 0
    """Anchors that are not sent yet."""


def find(anchoring: Anchoring) -> list[AttentionItem]:
    """Return the line about anchors, if something is wrong."""
    silent_s = anchoring.at - anchoring.anchored_at
    if anchoring.failing_since:
        title = "The end of the audit log is not anchored as it should be"
        waiting = f" {anchoring.waiting} wait to be sent." if anchoring.waiting else ""
        lasts = span(anchoring.at - anchoring.failing_since)
        detail = f"{anchoring.why} It began {lasts} ago.{waiting} Run manage.py audit verify."
    elif silent_s > SILENT_S:
        title = "The audit log was not anchored lately"
        detail = f"For {span(silent_s)}, though one an hour is due. Do worker and beat run?"
    else:
        return []
    # chosen: something is broken (70), and traffic goes on
    return [AttentionItem(70, "alert", title, detail, "SRE", "storing")]
