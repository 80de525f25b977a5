"""A way back in words: what the owner would have done, and what it did instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from decider.contracts.event import Event
from decider.contracts.units import rounded_span
from decider.contracts.vocabulary import Action, Reason
from decider.whatif.levers import RETRY_S

# Waits that differ by no more are one.
SAME_S = 0.5


class Pulled(Protocol):
    """What of a change is said."""

    @property
    def lever(self) -> str: ...
    @property
    def before(self) -> float: ...
    @property
    def after(self) -> float: ...


class Said(NamedTuple):
    """A way in words."""

    sentence: str
    short: str
    was: str


def of(
    changes: Sequence[Pulled],
    event: Event,
    batch: str,
    action: int,
    *,
    price: float,
    steady: bool = True,
) -> Said:
    """`batch`: the endpoint's batch form. `price`: of the service, which a wait expects to fall.
    `steady`: `way_back.Way`.
    """
    parts = [_short(change) for change in changes]
    short = " and ".join(parts)
    full = " and ".join(_full(change, batch) for change in changes)
    end = (
        "this request would have been admitted"
        if action == Action.ADMIT
        else f"it would still have been {_DID[Action(action)]}"
    )
    recovery = price > 0.0 and any(change.lever == "wait" for change in changes)
    hope = f", if {event.service} recovers as expected" if recovery else ""
    told = _beside_told(changes, event) if action == Action.ADMIT else ""
    notes = [_was(change, event) for change in changes] + (
        [f"Expects {event.service} to recover"] if recovery else []
    )
    if not steady:
        told += (
            " It is on the edge: with a little more of the same it would have been refused again."
        )
        notes.append("On the edge: with a little more it is refused again")
    return Said(
        f"{full[:1].upper()}{full[1:]}, {end}{hope}.{told}",
        short,
        ". ".join(note for note in notes if note),
    )


_DID = {
    Action.ADMIT: "admitted",
    Action.DEFER: "deferred",
    Action.BATCH: "asked to batch",
    Action.SHED: "shed",
    Action.BLOCK: "blocked",
}


def pace(per_second: float) -> str:
    """ "12 requests a second", or a minute where a second is too short to say it."""
    if per_second >= 0.995:
        figure = f"{per_second:,.3g}" if per_second < 999.5 else f"{per_second:,.0f}"
        return f"{figure} request{'' if figure == '1' else 's'} a second"
    minute = per_second * 60.0
    return f"{minute:,.2g} request{'' if math.isclose(round(minute, 1), 1.0) else 's'} a minute"


def percent(share: float) -> str:
    return f"{share * 100:.0f}%"


def _short(change: Pulled) -> str:
    after = change.after
    match change.lever:
        case "wait":
            return f"after waiting {rounded_span(after)}"
        case "spread":
            return f"at no more than {pace(after)}, same volume"
        case "pace":
            return f"at {pace(after)}, spread evenly"
        case "day":
            return f"at {pace(after)} over the day"
        case "batch":
            return f"with {after:.0f} items in a call"
        case "retries":
            return (
                "without asking again too soon"
                if after == 0
                else f"with {percent(after)} asked again too soon"
            )
        case "errors":
            return "without 4xx answers" if after == 0 else f"with {percent(after)} of answers 4xx"
        case "resources":
            return f"with {after:,.0f} different resource{_s(after)} a minute"
    return f"with {after:,.0f} credential{_s(after)} a minute"


def _full(change: Pulled, batch: str) -> str:
    before, after = change.before, change.after
    match change.lever:
        case "wait":
            return f"after waiting {rounded_span(after)}"
        case "spread":
            return (
                f"with the same requests spread evenly, at no more than {pace(after)} instead of"
                f" {pace(before)}"
            )
        case "pace":
            return f"at {pace(after)} instead of {pace(before)}, spread evenly"
        case "day":
            return f"at {pace(after)} over the whole day instead of {pace(before)}"
        case "batch":
            return f"with {after:.0f} items in each call{f' of {batch}' if batch else ''}"
        case "retries":
            if after == 0:
                return f"without sending requests again too soon, as {percent(before)} were"
            return (
                f"with {percent(after)} of its requests sent again too soon instead of"
                f" {percent(before)}"
            )
        case "errors":
            if after == 0:
                return f"without 4xx answers, which were {percent(before)}"
            return f"with {percent(after)} of its answers 4xx instead of {percent(before)}"
        case "resources":
            return (
                f"asking for {after:,.0f} different resource{_s(after)} a minute instead of"
                f" {before:,.0f}"
            )
    return f"with {after:,.0f} credential{_s(after)} in a minute instead of {before:,.0f}"


def _was(change: Pulled, event: Event) -> str:
    before = change.before
    match change.lever:
        case "wait":
            return _against_told(change.after, _told(event), event.reason)
        case "spread" | "pace" | "day":
            return f"It sent {pace(before)}"
        case "batch":
            return "It asked for one item in a call"
        case "retries" | "errors":
            return f"It was {percent(before)}"
    return f"It was {before:,.0f}"


def _told(event: Event) -> int:
    """Whole seconds of the Retry-After that was answered, 0 for none."""
    return 0 if event.observed else math.ceil(event.retry_after)


def _beside_told(changes: Sequence[Pulled], event: Event) -> str:
    """A second sentence where a way's wait is another than the one that was answered: nobody is to
    read one without the other.
    """
    seconds, told = (
        next((change.after for change in changes if change.lever == "wait"), 0.0),
        _told(event),
    )
    if not seconds or not told or abs(seconds - told) <= SAME_S:
        return ""
    if seconds > told and event.reason == Reason.LEASE_AWAITED:
        return (
            f" It was told {rounded_span(told)}, which was for its quota alone; other limits hold"
            " longer."
        )
    if seconds > told:
        return (
            f" It was told {rounded_span(told)}: the decider knew its counters better than this"
            " record, from which less cannot be said."
        )
    if seconds < RETRY_S:
        return (
            f" It was told {rounded_span(told)}, so this is an early retry, and is counted as one"
            " here and in its later requests."
        )
    return (
        f" It was told {rounded_span(told)}; after a minute of silence the decider no longer counts"
        " it as a retry."
    )


def _against_told(seconds: float, told: int, reason: int) -> str:
    """A wait beside the one that was answered, in a note. That one is a promise the decider keeps,
    not a limit.
    """
    if not told:
        return ""
    if abs(seconds - told) <= SAME_S:
        return "This is the Retry-After it got"
    if seconds < told:
        early = ", so it counts as an early retry" if seconds < RETRY_S else ""
        return f"Sooner than the Retry-After it got, {rounded_span(told)}{early}"
    if reason == Reason.LEASE_AWAITED:
        return (
            f"It was told {rounded_span(told)}, which was for its quota alone. Other limits hold"
            " longer"
        )
    return (
        f"It was told {rounded_span(told)}, a forecast for one that goes quiet at once. This record"
        " alone makes no less certain"
    )


def _s(count: float) -> str:
    return "" if count == 1 else "s"
