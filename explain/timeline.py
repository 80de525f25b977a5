"""What happened to the app in the minutes around a decision, as dated lines under its chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from decider.vocabulary import Action
from decisions import lookup, why
from decisions.models import Decision

SIDE_S = 120.0
ROWS = 2_000
"""Kept decisions read at most."""
MOST = 7


@dataclass(frozen=True, slots=True)
class Happened:
    """One line."""

    at: datetime
    text: str
    name: str = ""
    """Id of the decision it is about, when that is another one."""
    here: bool = False


def of(d: Decision, http: str) -> tuple[Happened, ...]:
    """The lines around a decision, oldest first; `http` is what its client got."""
    at = d.at.timestamp()
    near = lookup.within(Decision.objects.filter(app=d.app), at - SIDE_S, at + SIDE_S).order_by("id")
    rows = list(near.defer("features")[:ROWS])
    before, after = [r for r in rows if r.id < d.id], [r for r in rows if r.id > d.id]
    lines = [_first_refusal(before), _ran_empty(d, before), _this(d, http), _next(d, after), _end(d, after)]
    found = sorted((line for line in lines if line), key=lambda line: (line.at, not line.here))
    return tuple(found[:MOST])


def _this(d: Decision, http: str) -> Happened:
    return Happened(d.at, f"This decision: {Action(d.action).word}, {http}", here=True)


def _first_refusal(before: list[Decision]) -> Happened | None:
    first = next((r for r in before if r.action != Action.ADMIT), None)
    return Happened(first.at, f"First refusal kept: {Action(first.action).word}", first.name) if first else None


def _ran_empty(d: Decision, before: list[Decision]) -> Happened | None:
    """The first kept decision from which on the burst bucket stayed without a whole token."""
    since = None
    for row in [*before, d]:
        seen = why.signals(row)
        if seen is None:
            return None
        since = (since or row) if seen["tokens"] < 1.0 else None
    return Happened(since.at, "Burst bucket is empty from here on", since.name) if since and since.id != d.id else None


def _next(d: Decision, after: list[Decision]) -> Happened | None:
    """The next kept request to the same endpoint that had another answer."""
    asked = (r for r in after if (r.method, r.endpoint) == (d.method, d.endpoint) and (r.action == 0) != (d.action == 0))
    found = next(asked, None)
    if found is None:
        return None
    seconds = (found.at - d.at).total_seconds()
    return Happened(found.at, f"Same endpoint again, {seconds:.1f} s later: {Action(found.action).word}", found.name)


def _end(d: Decision, after: list[Decision]) -> Happened | None:
    """The last refusal of the stretch, and how many there were after this one, estimated."""
    refused = [r for r in after if r.action != Action.ADMIT]
    if not refused or d.action == Action.ADMIT:
        return None
    count = sum(r.weight for r in refused)
    return Happened(refused[-1].at, f"Last refusal kept here. About {count:,.0f} more after this one", refused[-1].name)
