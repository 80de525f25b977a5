"""What needs attention of the way of sampled decisions into the database."""

from __future__ import annotations

from dataclasses import dataclass

from decider.contracts.units import span
from monitoring.attention_item import AttentionItem


@dataclass(frozen=True)
class Storing:
    """What became of sampled decisions that are not stored."""

    at: float
    """Unix seconds of the reading."""
    buried: int = 0
    """Those that the database cannot hold and nobody has dealt with yet."""
    buried_at: float = 0.0
    """When the last of them came, unix seconds."""
    lost: int = 0
    """Those gone from the stream, of deciders that lost some within a day."""


def find(storing: Storing) -> list[AttentionItem]:
    """Return the lines about storing."""
    return [*_buried(storing), *_lost(storing)]


def _buried(storing: Storing) -> list[AttentionItem]:
    if not storing.buried:
        return []
    # chosen: above lag (60): a lag ends by itself, but what was set aside waits for a person
    plural = "s" if storing.buried > 1 else ""
    title = f"{storing.buried:,} sampled decision{plural} could not be stored"
    detail = (
        f"The last {span(storing.at - storing.buried_at)} ago. They are kept aside with the"
        " reason, to be replayed or discarded; all others were stored."
    )
    return [AttentionItem(71, "alert", title, detail, "SRE", "storing")]


def _lost(storing: Storing) -> list[AttentionItem]:
    if not storing.lost:
        return []
    # chosen: as dropped ones (45): nobody can bring back what is lost
    title = f"{storing.lost:,} sampled decision{'s' if storing.lost > 1 else ''} were lost"
    detail = (
        "They left the stream in Valkey before they were stored: it was full while PostgreSQL was"
        " away, or was emptied. Counts are too low by that much."
    )
    return [AttentionItem(46, "alert", title, detail, "SRE", "storing")]
