"""Which of the ways and misses that a search found are shown, in which order, and what is said of
the request's strongest reason.
"""

from __future__ import annotations

from decider.contracts.event import Event
from decider.contracts.features import FEATURES, INDEX
from decider.contracts.vocabulary import Action
from decider.whatif.levers import BY_NAME
from explain.recourse.ways import Way

# Most ways shown. Chosen: people read a list of this length to its end.
SHOWN_WAYS = 4
# Most misses shown: levers that are not enough alone. Chosen: they only explain the ways.
SHOWN_MISSES = 2
# Levers whose miss is worth showing to an owner.
_TELLING = frozenset({"errors", "retries", "pace", "spread"})


def order_ways(ways: list[Way], event: Event, named: str) -> list[Way]:
    """Return the ways to show: those that change the feature `named` first, then the smallest
    change first. `named`: feature of the strongest reason, "" where the risk did not decide.
    """
    # The response asked for a batch, so what that leads to is always shown.
    asked = "batch" if event.action == Action.BATCH else ""
    ranked = sorted(
        ways,
        key=lambda way: (way.changes[0].lever != asked, not _touches(way, named), way.effort),
    )
    return sorted(ranked[:SHOWN_WAYS], key=lambda way: (not _touches(way, named), way.effort))


def choose_misses(missed: list[Way], ways: list[Way], event: Event, named: str) -> list[Way]:
    """Return misses that tell the owner something: a lever that lowers the risk but is not enough
    alone, and that no shown way uses. The batch that the response asked for comes first, then what
    changes the feature `named`.
    """
    # Below 0.01 of risk nothing can be seen on the page's scale.
    before = 1.0 if event.risk is None else event.risk
    used = {change.lever for way in ways for change in way.changes}
    asked = {"batch"} - used if event.action == Action.BATCH else set()
    found = [
        way
        for way in missed
        if (way.changes[0].lever in _TELLING or _touches(way, named))
        and way.changes[0].lever not in used
        and way.risk is not None
        and way.risk < before - 0.01
    ]
    # Both are about the pace: a miss of one beside a way by the other would contradict it.
    if used & {"pace", "spread"}:
        found = [way for way in found if way.changes[0].lever not in ("pace", "spread")]
    found.sort(key=lambda way: not _touches(way, named))
    found = [way for way in missed if way.changes[0].lever in asked] + [
        way for way in found if way.changes[0].lever not in asked
    ]
    # The batch that was asked for has room beside any number of ways.
    room = max(len(asked & {way.changes[0].lever for way in found}), SHOWN_WAYS - len(ways))
    return found[: min(room, SHOWN_MISSES)]


def describe_named(ways: list[Way], missed: list[Way], named: str) -> str:
    """Return a sentence where no shown way changes the feature `named`; else "". `missed`: the
    shown misses.
    """
    if not named or not ways or any(_touches(way, named) for way in ways):
        return ""
    feature = FEATURES[INDEX[named]]
    strongest = f"its strongest reason, “{feature.label}”"
    if any(_touches(way, named) for way in missed):
        return f"To change {strongest}, alone would not have been enough."
    if feature.source == "profile":
        return f"None of these changes {strongest}: its owner cannot change it."
    return f"None of these changes {strongest}, and none has to: each is enough without it."


def _touches(way: Way, named: str) -> bool:
    return any(named in BY_NAME[change.lever].features for change in way.changes)
