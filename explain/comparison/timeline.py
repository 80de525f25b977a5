"""Events of the app in the minutes around a decision, as dated lines under its chart."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from decider.contracts.ids import format_decision_id
from decider.contracts.signals import INDEX, unpack
from decider.contracts.units import told_apart
from decider.contracts.vocabulary import Action
from decisions.counts.estimate import of_row, total
from decisions.models import Decision
from decisions.search import lookup

# Seconds of the timeline before and after the decision. Chosen: what led to it and what followed.
SIDE_S = 120.0
# Most kept decisions read before and after the decision. It bounds the page's cost for a busy app.
MOST_ROWS = 400
# Most events shown. There are five kinds; the bound keeps the list short if kinds are added.
SHOWN_EVENTS = 7


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One event of an app near a decision."""

    at: datetime
    text: str
    name: str = ""
    """Id of the decision that the event is about; empty for the page's own decision."""
    here: bool = False


class _Kept(NamedTuple):
    """The columns of a stored decision that the lines need, in the order they are read."""

    id: uuid.UUID
    at: datetime
    action: int
    method: str
    endpoint: str
    inclusion_probability: float
    signals: bytes

    @property
    def name(self) -> str:
        return format_decision_id(self.id.bytes)

    @property
    def tokens(self) -> float | None:
        """Tokens in the bucket; None when the signals were recorded in another layout."""
        try:
            return float(unpack(self.signals)[INDEX["tokens"]])
        except ValueError:
            return None


def build_timeline(d: Decision, http: str) -> tuple[TimelineEvent, ...]:
    """Return the events around a decision, oldest first, at most SHOWN_EVENTS. `http` says what its
    client received.
    """
    at = d.at.timestamp()
    near = lookup.within(lookup.beside(d).filter(app=d.app), at - SIDE_S, at + SIDE_S).values_list(
        *_Kept._fields
    )
    # Both sides are read from the decision outwards, so that the limit cuts what is furthest away.
    before = [_Kept(*row) for row in near.filter(id__lt=d.id).order_by("-id")[:MOST_ROWS]][::-1]
    after = [_Kept(*row) for row in near.filter(id__gt=d.id).order_by("id")[:MOST_ROWS]]
    lines = [
        _first_refusal(before),
        _ran_empty(d, before),
        _this_decision(d, http),
        _next_answer(d, after),
        _last_refusal(d, after),
    ]
    # A stable sort: events of the same moment keep their order.
    found = sorted((line for line in lines if line), key=lambda line: line.at)
    return tuple(found[:SHOWN_EVENTS])


def _this_decision(d: Decision, http: str) -> TimelineEvent:
    return TimelineEvent(d.at, f"This decision: {Action(d.action).word}, {http}", here=True)


def _first_refusal(before: list[_Kept]) -> TimelineEvent | None:
    first = next((r for r in before if r.action != Action.ADMIT), None)
    return (
        TimelineEvent(first.at, f"First refusal kept: {Action(first.action).word}", first.name)
        if first
        else None
    )


def _ran_empty(d: Decision, before: list[_Kept]) -> TimelineEvent | None:
    """Return the first kept decision from which on the bucket never held a whole token until this
    one. Return None when that is not known or is this decision.
    """
    here = _Kept(
        d.id, d.at, d.action, d.method, d.endpoint, d.inclusion_probability, bytes(d.signals)
    )
    # One record of another layout breaks the chain: whether the bucket held a token is unknown.
    since: _Kept | None = None
    for row in [*before, here]:
        if row.tokens is None:
            return None
        since = (since or row) if row.tokens < 1.0 else None
    return (
        TimelineEvent(since.at, "Burst bucket is empty from here to this decision", since.name)
        if since and since.id != d.id
        else None
    )


def _next_answer(d: Decision, after: list[_Kept]) -> TimelineEvent | None:
    """Return the next kept request to the same endpoint that was answered the other way."""
    asked = (
        r
        for r in after
        if (r.method, r.endpoint) == (d.method, d.endpoint) and (r.action == 0) != (d.action == 0)
    )
    found = next(asked, None)
    if found is None:
        return None
    seconds, _ = told_apart((found.at - d.at).total_seconds(), 0.0, places=1)
    return TimelineEvent(
        found.at,
        f"Same endpoint again, {seconds} s later: {Action(found.action).word}",
        found.name,
    )


def _last_refusal(d: Decision, after: list[_Kept]) -> TimelineEvent | None:
    """Return the last kept refusal nearby, with the estimated number of refusals after this
    decision.
    """
    refused = [r for r in after if r.action != Action.ADMIT]
    if not refused or d.action == Action.ADMIT:
        return None
    more = total(of_row(r.inclusion_probability) for r in refused).words
    return TimelineEvent(
        refused[-1].at, f"Last kept refusal, of {more} after this decision", refused[-1].name
    )
