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
    stopped: int = 0
    """What has stopped for lack of disk: 0 nothing, 1 storing admits, 2 storing any decision, 3
    changes, too (`control.disk.Room`).
    """
    left: float = 0.0
    """Gigabytes of disk that are left."""


def find(storing: Storing) -> list[AttentionItem]:
    """Return the lines about storing."""
    return [*_disk(storing), *_buried(storing), *_lost(storing)]


# What stops at each level.
_STOPPED = (
    "",
    "Admits are no longer stored; refusals are.",
    "No decision is stored any more.",
    "No decision is stored, and nothing can be changed but from a shell.",
)


def _disk(storing: Storing) -> list[AttentionItem]:
    if not storing.stopped:
        return []
    # chosen: below traffic that is decided blindly (90), as deciding goes on
    title = f"The disk has {storing.left:.1f} GB left for Sluice"
    detail = (
        f"{_STOPPED[storing.stopped]} Deciders go on, and all is counted. Free disk, keep fewer"
        " days, or raise SLUICE_DISK_GB."
    )
    return [AttentionItem(86 + storing.stopped, "alert", title, detail, "SRE", "storing")]


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
