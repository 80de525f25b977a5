"""A line of what needs someone's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["SRE", "ML", "Support", "Policy"]
Where = Literal[
    "switches", "propagation", "ingest", "services", "guardrails", "lookup", "disputes", "storing"
]


@dataclass(frozen=True)
class AttentionItem:
    """One line: a finding, what is known about it, the role that acts on it, and the page to act
    on.
    """

    urgency: int
    """Higher comes first: 90 traffic is decided blindly, 70 something is broken, 50 late or
    degraded, 30 ends soon.
    """
    icon: str
    title: str
    detail: str
    role: Role
    where: Where
