"""The life of a request: the one table of its states and of what leads from one to the next.

The verbs, the trigger in the database (`resources/approvals.sql`) and the diagram in
docs/approvals.md follow from this table.
"""

from __future__ import annotations

from django.db import models

from control.errors import Refused


class State(models.TextChoices):
    """How a request stands. Nothing leads out of any state but the first."""

    OPEN = "open", "Waiting"
    APPLIED = "applied", "Applied"
    VETOED = "vetoed", "Vetoed"
    EXPIRED = "expired", "Ended undecided"
    WITHDRAWN = "withdrawn", "Withdrawn"
    FAILED = "failed", "Approved, could not be applied"


# From state to state, with what leads there.
TRANSITIONS: dict[tuple[State, State], str] = {
    (State.OPEN, State.APPLIED): "enough people approved this digest",
    (State.OPEN, State.VETOED): "one person vetoed",
    (State.OPEN, State.EXPIRED): "its time ran out",
    (State.OPEN, State.WITHDRAWN): "the proposer withdrew or rebased it",
    (State.OPEN, State.FAILED): "approved, and impossible when it was applied",
}


def check(before: State, after: State) -> None:
    """Raise Refused when nothing leads from one state to the other."""
    if (before, after) not in TRANSITIONS:
        raise Refused(f"A request that is {before.label.lower()} cannot be {after.label.lower()}.")


def pairs_as_sql() -> str:
    """Return the table as the right side of an SQL comparison: "('open', 'applied'), ..."."""
    return ", ".join(f"('{before}', '{after}')" for before, after in TRANSITIONS)


def diagram() -> str:
    """Return the table as the lines of the diagram in docs/approvals.md."""
    width = max(len(after) for _, after in TRANSITIONS)
    return "\n".join(
        f"{before} --> {after:<{width}}  {why}" for (before, after), why in TRANSITIONS.items()
    )
