"""The rules of a config document that a gateway holds to by itself, in the order in which the
policy looks at them: who is refused whatever happens, who is allowed, and what operators asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from decider.contracts.config import (
    OBSERVE_ONLY,
    Config,
    ListEntry,
    Override,
    engaged,
    in_force,
)
from decider.contracts.normalise import addresses
from decider.contracts.vocabulary import Action

# Subjects that a gateway is given at most. Chosen: Envoy takes them in within a second, in 60 MB;
# what it cannot hold, deciders still do.
MOST = 50_000

Kind = Literal["app", "tenant", "source"]
_KINDS: tuple[Kind, ...] = ("app", "tenant", "source")


class Level(NamedTuple):
    """Subjects of one kind, looked up together. The first level that has one decides."""

    kind: Kind
    refused: dict[str, bool]
    """Whether a subject is refused; one that is not is let on."""


@dataclass(frozen=True)
class Held:
    """What a gateway holds to."""

    levels: tuple[Level, ...] = ()
    left_out: int = 0
    """Subjects beyond MOST, which only deciders know."""

    @property
    def subjects(self) -> int:
        return sum(len(level.refused) for level in self.levels)


def held(config: Config | None, now: float) -> Held:
    """Return what a gateway holds to at `now` (unix seconds). In observe-only mode it refuses
    nobody, as deciders do.
    """
    if config is None or engaged(config, OBSERVE_ONLY, now):
        return Held()
    entries, overrides = in_force(config.lists, now), in_force(config.overrides, now)
    levels = list(_listed(entries, {"block", "compliance"}, refused=True))
    # who is allowed, and other overrides, matter only where an operator's override refuses
    if any(override.action == Action.BLOCK for override in overrides):
        levels += _listed(entries, {"allow"}, refused=False)
        levels += _overridden(overrides)
    return _cut(levels)


def _listed(entries: Iterable[ListEntry], verdicts: set[str], *, refused: bool) -> Iterator[Level]:
    found: dict[Kind, dict[str, bool]] = {kind: {} for kind in _KINDS}
    for entry in entries:
        if entry.verdict in verdicts and (subject := _subject(entry)) is not None:
            found[entry.kind][subject] = refused
    yield from (Level(kind, subjects) for kind, subjects in found.items() if subjects)


def _subject(entry: ListEntry) -> str | None:
    """Return what a gateway looks for; None for an old entry that finds nobody."""
    if entry.kind != "source":
        return entry.subject
    try:
        return str(addresses.network(entry.subject))
    except addresses.AddressError:
        return None


def _overridden(overrides: Iterable[Override]) -> Iterator[Level]:
    """Yield the overrides of apps, then those of tenants. Of two about one subject the last
    counts.
    """
    found: dict[str, dict[str, bool]] = {"app": {}, "tenant": {}}
    for override in overrides:
        found[override.kind][override.subject] = override.action == Action.BLOCK
    if found["app"]:
        yield Level("app", found["app"])
    if found["tenant"]:
        yield Level("tenant", found["tenant"])


def _cut(levels: list[Level]) -> Held:
    """Return at most MOST subjects, those that are looked up first."""
    kept, room = [], MOST
    for level in levels:
        subjects = dict(list(level.refused.items())[:room])
        room -= len(subjects)
        if subjects:
            kept.append(Level(level.kind, subjects))
    total = sum(len(level.refused) for level in levels)
    return Held(tuple(kept), total - (MOST - room))
