"""The sentences for a way back to admit: the change its owner would have made, and the behaviour
it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from decider.contracts.event import Event
from decider.contracts.features import FEATURES, INDEX, format_value
from decider.contracts.units import digits, wait_span
from decider.contracts.vocabulary import Action, Reason

# Distinct items are counted over the running window and the whole one before it: at most twice its
# length
# (`features_of._variety`).
MINUTES = "in two minutes"
TEN_MINUTES = "in twenty minutes"
# Waits that differ by no more seconds than this count as equal: rounding to whole seconds can make
# a difference of half a second.
SAME_S = 0.5


class PulledLever(Protocol):
    """The fields of a change that the sentences use. A protocol, because the class is in `search`,
    which imports this module.
    """

    @property
    def lever(self) -> str: ...
    @property
    def before(self) -> float: ...
    @property
    def after(self) -> float: ...


class WayText(NamedTuple):
    """A way in words."""

    sentence: str
    """The whole way, with its outcome."""
    short: str
    """The change alone, as it continues the action's word."""
    was: str
    """Notes on what the app did instead, and on what the way relies on."""


def describe_way(
    changes: Sequence[PulledLever],
    event: Event,
    batch: str,
    action: int,
    *,
    price: float,
    steady: bool = True,
    risk: float | None = None,
) -> WayText:
    """Return a way in words.

    `batch` is the endpoint's batch form. `price` is the service's price for the request; a way that
    waits counts on it to fall. `steady` and `risk` are as in `search.Way`.
    """
    short = _enumerate([_short(change) for change in changes])
    full = _enumerate([_full(change, batch) for change in changes])
    # Only a wait counts on the price to fall: other levers are verified at the recorded price.
    recovery = price > 0.0 and any(change.lever == "wait" for change in changes)
    hope = f", if {event.service} recovers as expected" if recovery else ""
    told = _beside_told(changes, event) if action == Action.ADMIT else ""
    if not steady:
        told += (
            " It is on the edge: with a little more of the same it would have been refused again."
        )
    return WayText(
        f"{full[:1].upper()}{full[1:]}, {_outcome(action, event)}{hope}.{told}",
        short,
        _notes(changes, event, recovery=recovery, steady=steady)
        + _why(changes, action, risk, event),
    )


def _why(changes: Sequence[PulledLever], action: int, risk: float | None, event: Event) -> str:
    """Return why a request would be admitted whose risk the change does not lower."""
    if action == Action.ADMIT and _told(event) and any(c.lever == "wait" for c in changes):
        return ". Who waited as told is not asked to wait again"
    return ". The risk rises, and the limit rises more" if _rises(action, risk, event) else ""


def _rises(action: int, risk: float | None, event: Event) -> bool:
    """Return whether a request would be admitted at a risk above that of its refusal."""
    # Chosen: a difference that the page's two digits show.
    visible = 0.01
    return (
        action == Action.ADMIT
        and risk is not None
        and event.risk is not None
        and risk > event.risk + visible
    )


def _enumerate(parts: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


# What was tried, by lever, as it continues "Tried:".
_TRIED = {
    "wait": "a wait of up to twenty minutes",
    "spread": "a steadier pace",
    "pace": "a slower pace",
    "day": "a slower pace over the day",
    "batch": "several items in a call",
    "retries": "sending nothing more once refused",
    "errors": "no client errors",
    "resources": "fewer paths in two minutes",
    "paths": "fewer paths in twenty minutes",
    "addresses": "fewer IP addresses",
    "credentials": "fewer credentials",
}


def list_tried(levers: Iterable[str]) -> str:
    """Return a sentence that lists what a search has tried."""
    return f"Tried: {_enumerate([_TRIED[name] for name in levers])}."


def _outcome(action: int, event: Event) -> str:
    if action == Action.ADMIT:
        return "this request would have been admitted"
    if action == event.action:
        return f"it would still have been {DID[Action(action)]}"
    return f"it would have been {DID[Action(action)]} instead"


def _notes(changes: Sequence[PulledLever], event: Event, *, recovery: bool, steady: bool) -> str:
    notes = [_was(change, event) for change in changes]
    if recovery:
        notes.append(f"Expects {event.service} to recover")
    if not steady:
        notes.append("On the edge: with a little more it is refused again")
    return ". ".join(note for note in notes if note)


DID = {
    Action.ADMIT: "admitted",
    Action.DEFER: "deferred",
    Action.BATCH: "asked to batch",
    Action.SHED: "shed",
    Action.BLOCK: "blocked",
}


def format_pace(per_second: float, beside: float = 0.0) -> str:
    """Return "12 requests a second", or a figure a minute below one a second.

    `beside` is another pace, requests/s, that is told beside this one: both get the same unit.
    """
    # Chosen: just below one a second, where the figure a minute would round to 60.
    a_second = max(per_second, beside) >= 0.9995
    # Three digits: a pace 1% above its refill does not read like the refill.
    figure = digits(per_second if a_second else per_second * 60.0, 3)
    return f"{figure} request{'' if figure == '1' else 's'} a {'second' if a_second else 'minute'}"


def format_percent(share: float) -> str:
    """Return a share as text, in the form of the reasons that stand beside it."""
    return format_value(FEATURES[INDEX["client_error_share_60s"]], share)


def _short(change: PulledLever) -> str:
    after = change.after
    match change.lever:
        case "wait":
            return f"after waiting {wait_span(after)}"
        case "spread":
            return f"at no more than {format_pace(after, change.before)}, same volume"
        case "pace":
            return f"at {format_pace(after, change.before)}, spread over time"
        case "day":
            return f"at {format_pace(after, change.before)} over the day"
        case "batch":
            return f"with {after:.0f} items in a call"
        case "retries":
            return (
                "sending nothing more once refused"
                if after == 0
                else f"with {format_percent(after)} of requests refused or repeated"
            )
        case "errors":
            return (
                "without 4xx answers"
                if after == 0
                else f"with {format_percent(after)} of answers 4xx"
            )
        case "resources":
            return f"with {after:,.0f} different path{_plural(after)} {MINUTES}"
        case "paths":
            return f"with no more than {after:,.0f} path{_plural(after)} {TEN_MINUTES}"
        case "addresses":
            return f"from {after:,.0f} IP address{_plural(after, 'es')} {MINUTES}"
    return f"with {after:,.0f} credential{_plural(after)} {MINUTES}"


def _full(change: PulledLever, batch: str) -> str:
    before, after = change.before, change.after
    match change.lever:
        case "wait":
            return f"after waiting {wait_span(after)}"
        case "spread" | "pace" | "day":
            return _full_pace(change.lever, format_pace(before, after), format_pace(after, before))
        case "batch":
            return f"with {after:.0f} items in each call{f' of {batch}' if batch else ''}"
        case "retries" | "errors":
            return _full_share(change.lever, format_percent(before), after)
    return _full_count(change.lever, before, after)


def _full_count(lever: str, before: float, after: float) -> str:
    s, instead = _plural(after), f"instead of {before:,.0f}"
    match lever:
        case "resources":
            return f"asking for {after:,.0f} different path{s} {MINUTES} {instead}"
        case "paths":
            return (
                f"asking for no more than {after:,.0f} different path{s} {TEN_MINUTES} instead of"
                f" at least {before:,.0f}"
            )
        case "addresses":
            es = _plural(after, "es")
            return f"sending from {after:,.0f} IP address{es} {MINUTES} {instead}"
    return f"with {after:,.0f} credential{s} {MINUTES} {instead}"


def _full_pace(lever: str, before: str, after: str) -> str:
    if lever == "spread":
        return (
            f"with the same requests spread over time, at no more than {after} instead of {before}"
            " at its fastest"
        )
    if lever == "pace":
        return f"at {after}, spread over time, instead of {before} at its fastest"
    return f"at {after} over the whole day instead of {before}"


def _full_share(lever: str, before: str, after: float) -> str:
    # A share of zero reads as "without", because "0% of its answers" would sound rounded.
    if lever == "retries" and after == 0:
        return (
            f"sending nothing more once refused, instead of going on until {before} of its"
            " requests were refused or repeated refused ones"
        )
    if lever == "retries":
        return (
            f"with {format_percent(after)} of its requests refused or repeating refused ones"
            f" instead of {before}"
        )
    if after == 0:
        return f"without 4xx answers, which were {before}"
    return f"with {format_percent(after)} of its answers 4xx instead of {before}"


def _was(change: PulledLever, event: Event) -> str:
    before = change.before
    match change.lever:
        case "wait":
            return _against_told(change.after, _told(event), event.reason)
        case "spread" | "pace":
            return f"At its fastest it sent {format_pace(before, change.after)}"
        case "day":
            return f"Over the day it sent {format_pace(before, change.after)}"
        case "batch":
            return "It asked for one item in a call"
        case "retries":
            return f"{format_percent(before)} of its requests were refused or repeated refused ones"
        case "errors":
            return f"{format_percent(before)} of its answers were 4xx"
        case "resources":
            return f"It asked for {before:,.0f} different path{_plural(round(before))} {MINUTES}"
        case "paths":
            return f"It asked for at least {before:,.0f} paths {TEN_MINUTES}"
        case "addresses":
            return f"It sent from {before:,.0f} IP addresses {MINUTES}"
    return f"It used {before:,.0f} credential{_plural(round(before))} {MINUTES}"


def _told(event: Event) -> int:
    """Return the Retry-After that was answered, in whole seconds; 0 for none."""
    # In observe-only mode the request passed, so its client was told nothing.
    return 0 if event.observed else math.ceil(event.retry_after)


def _beside_told(changes: Sequence[PulledLever], event: Event) -> str:
    """Return a second sentence where the way's wait differs from the Retry-After that was answered,
    so that nobody reads one without the other.
    """
    seconds = next((change.after for change in changes if change.lever == "wait"), 0.0)
    told = _told(event)
    if not seconds or not told or abs(seconds - told) <= SAME_S:
        return ""
    if event.reason == Reason.LEASE_AWAITED:
        return (
            f" The response said {wait_span(told)}, for the quota alone. Other limits hold longer."
        )
    return (
        f" The response said {wait_span(told)}, which holds if the app sends nothing meanwhile."
        f" The record lacks some of the decider's counters, so from it only {wait_span(seconds)} is"
        " certain."
    )


def _against_told(seconds: float, told: int, reason: int) -> str:
    """Return a note that compares a wait with the Retry-After that was answered. Retry-After is a
    promise that the decider keeps, not a limit.
    """
    if not told:
        return ""
    if abs(seconds - told) <= SAME_S:
        return "This is the Retry-After it got"
    if reason == Reason.LEASE_AWAITED:
        return f"The response said {wait_span(told)}, for the quota alone. Other limits hold longer"
    return (
        f"The response said {wait_span(told)}, which holds if the app sends nothing meanwhile."
        f" The record lacks some of the decider's counters, so from it only {wait_span(seconds)} is"
        " certain"
    )


def _plural(count: float, many: str = "s") -> str:
    return "" if count == 1 else many
