"""What in a change of the config document needs a second person: the table, over two documents.

Nobody declares whether a change is one: it is computed here from the documents themselves, so no
verb, form or job can leave it out. What the table does not name needs a second person.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from control.config import part_words, parts
from control.config.parts import Difference
from decider.contracts.config import Config
from decider.contracts.vocabulary import Action

# How long whoever engaged a switch may take it back alone. An end within that time counts as
# clearing the switch: else an end in one second would go round the rule.
TAKE_BACK = timedelta(minutes=10)
# A model that was live within that time is known to work, so going back to it takes one person.
KNOWN_MODEL = timedelta(days=30)


class Kind(Enum):
    """What a change is about, which says who may approve it."""

    SWITCHES = "switches"
    POLICIES = "policies"
    ROLLOUTS = "rollouts"
    RULE = "rule"


@dataclass(frozen=True)
class Circumstances:
    """What the table asks that is not in the documents."""

    is_own: Callable[[str], bool] = lambda _: False
    """Whether whoever makes the change engaged a switch, by its part, within TAKE_BACK."""
    was_live: Callable[[str], bool] = lambda _: False
    """Whether a model, by its digest, was live within KNOWN_MODEL."""
    is_enterprise: Callable[[str, str], bool] = lambda *_: False
    """Whether an app or a tenant ("app" or "tenant", and its id) is of the enterprise tier."""


@dataclass(frozen=True)
class Verdict:
    """A change, and what in it needs a second person."""

    change: tuple[Difference, ...]
    needs: tuple[str, ...]
    """Clauses: it clears the switch “All ML”."""

    @property
    def payload(self) -> str:
        """The change in canonical JSON."""
        return parts.payload(self.change)

    @property
    def digest(self) -> str:
        """Digest of the change; the empty change has one, too."""
        return parts.digest_of(self.payload)

    @property
    def base(self) -> dict[str, str]:
        """Digest of what each part is now, by part."""
        return {d.part: parts.digest_of(parts.canonical(d.before)) for d in self.change}


# What begins the parts of each kind. Everything else is a policy.
_KINDS = {
    "switches": Kind.SWITCHES,
    "services": Kind.SWITCHES,
    "model": Kind.ROLLOUTS,
    "four_eyes": Kind.RULE,
}


def kinds_of(change: tuple[Difference, ...]) -> frozenset[Kind]:
    """Return what a change is about; who approves it needs the permission for each."""
    return frozenset(_KINDS.get(d.path[0], Kind.POLICIES) for d in change)


def second_person(before: Config, after: Config, now: float, seen: Circumstances) -> Verdict:
    """Return the change from one document to another and what in it needs a second person. Both are
    as `decode` returns them; `now` is in unix seconds.
    """
    change = parts.differences(before, after, now)
    needs = tuple(
        part_words.clause(found) for found in change if not _takes_one_person(found, now, seen)
    )
    return Verdict(change, needs)


def _takes_one_person(found: Difference, now: float, seen: Circumstances) -> bool:
    rule = _RULES.get(found.path[0])
    return rule is not None and rule(found, now, seen)


def _switch(found: Difference, now: float, seen: Circumstances) -> bool:
    """Engaging, and shortening an end; clearing and extending by whoever engaged it just now."""
    # duplicates or an order: whatever it is, the table does not name it
    if len(found.path) != 2:
        return False
    if found.before is None or seen.is_own(found.part):
        return True
    return _is_shorter(found, now + TAKE_BACK.total_seconds())


def _service(found: Difference, now: float, seen: Circumstances) -> bool:
    """Lowering a capacity."""
    return (
        len(found.path) == 3
        and found.path[2] == "capacity"
        and isinstance(found.before, int | float)
        and isinstance(found.after, int | float)
        and found.after < found.before
    )


def _model(found: Difference, now: float, seen: Circumstances) -> bool:
    """Going back to a model that was live lately."""
    return isinstance(found.after, dict) and seen.was_live(str(found.after.get("digest")))


def _exemption(found: Difference, now: float, seen: Circumstances) -> bool:
    """Shortening the end of an exemption of an app or tenant that is not enterprise; taking it out
    ends it now.
    """
    if len(found.path) != 2 or not isinstance(found.before, dict) or not _exempts(found.before):
        return False
    kind, subject = str(found.before["kind"]), str(found.before["subject"])
    if kind == "source" or seen.is_enterprise(kind, subject):
        return False
    return found.after is None or _is_shorter(found, now)


def _exempts(entry: dict[str, object]) -> bool:
    """Return whether an override or a list entry lets through more than the plan does."""
    if "verdict" in entry:
        return entry["verdict"] == "allow"
    if (action := entry.get("action")) is not None:
        return action == Action.ADMIT
    multiplier = entry.get("multiplier", 1.0)
    return isinstance(multiplier, int | float) and multiplier >= 1


def _is_shorter(found: Difference, earliest: float) -> bool:
    """Return whether an entry only ends earlier, and not before `earliest` (unix seconds)."""
    if not isinstance(found.before, dict) or not isinstance(found.after, dict):
        return False
    was, becomes = dict(found.before), dict(found.after)
    old, new = was.pop("until", None), becomes.pop("until", None)
    old, new = (math.inf if end is None else float(end) for end in (old, new))
    return was == becomes and earliest <= new < old


# What one person may do, by the first step of a part.
_RULES: dict[str, Callable[[Difference, float, Circumstances], bool]] = {
    "switches": _switch,
    "services": _service,
    "model": _model,
    "overrides": _exemption,
    "lists": _exemption,
}
