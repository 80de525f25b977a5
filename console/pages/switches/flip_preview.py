"""The preview of a flip: what it would have changed. The real policy function decides the stored
decisions of the last hour again.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Literal

from django.db.models import BigIntegerField, QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils import timezone

from console.frame import app_looks
from control.config import changes
from control.deciders import publish
from control.switches import switches
from decider.contracts.artifact import ArtifactError
from decider.contracts.config import Config, ModelRef
from decider.contracts.event import Event
from decider.contracts.vocabulary import Action, MlState, Tier
from decider.scoring.model import Model
from decider.whatif.replay import ReplayError, decide_under
from decisions.models import Decision

log = logging.getLogger(__name__)

WINDOW = timedelta(hours=1)
# Most decisions that one preview reads. Chosen: bounds its cost; the sample stands for the hour.
MOST_ROWS = 4_000
# Seconds that a preview may take. The decisions that were decided again by then are a fair sample,
# because their order is random.
MOST_S = 2.5
# Chosen: hardly anyone wants requests of this risk or more admitted.
RISKY = 0.9
# Chosen: enough to see which kind of request changes; the counts say how many.
EXAMPLES = 4
# The last 32 bits of a UUIDv7 are random, so they pick a uniform sample without sorting.
_TAIL = "('x' || right(decisions_decision.id::text, 8))::bit(32)::bigint"

Turn = Literal["engage", "clear"]


@dataclass(frozen=True)
class Example:
    """One stored decision whose action would have been another."""

    id: str
    app: str
    tier: Tier
    before: Action
    after: Action
    risk: float | None


@dataclass(frozen=True)
class ActionChange:
    """How the count of an action would change, weighted."""

    action: Action
    by: float


@dataclass(frozen=True)
class TierChange:
    """How many decisions of a tier would change, weighted."""

    tier: Tier
    count: float


@dataclass(frozen=True)
class Preview:
    """The effect of a flip on the last hour. Counts are weighted by the inverse of the inclusion
    probability.
    """

    stored: int
    """Decisions kept in the last hour."""
    looked_at: int
    """How many of them the preview tried to decide again, unreadable ones included."""
    unreadable: int
    """How many of these could not be decided again, such as those of another feature schema."""
    total: float
    """Decisions that the readable ones stand for."""
    changed: float
    """Decisions that would have had another action."""
    actions: tuple[ActionChange, ...]
    tiers: tuple[TierChange, ...]
    """Highest tier first."""
    risky: float
    """Newly admitted with a recorded risk of `RISKY` or more."""
    examples: tuple[Example, ...]

    @property
    def share(self) -> float:
        """Share of the hour's decisions that would change, 0 to 1."""
        return self.changed / self.total if self.total else 0.0

    @property
    def sampled(self) -> bool:
        """Whether the preview tried only a part of the stored decisions."""
        return self.looked_at < self.stored


def preview_for(request: HttpRequest, verb: switches.Verb) -> Preview:
    """Return the preview of a flip, and note the looks at the apps of its examples."""
    found = preview_all_ml("clear" if verb == "clear" else "engage")
    apps = (example.app for example in found.examples if example.app)
    app_looks.note_apps(request, apps, "an example of what a switch would change")
    return found


def preview_all_ml(turn: Turn) -> Preview:
    """Decide the last hour again with ML off (engage) or on (clear); return the differences."""
    config = changes.current()
    since = timezone.now() - WINDOW
    recent = Decision.objects.filter(at__gte=since)
    stored = recent.count()
    return compare_decisions(
        _sample(recent, stored),
        stored,
        config,
        turn,
        _model(config.model) if turn == "clear" else None,
    )


def compare_decisions(
    events: Iterable[Event], stored: int, config: Config, turn: Turn, model: Model | None
) -> Preview:
    """Decide each event again for up to `MOST_S`, and return the differences.

    The counts are scaled to all `stored` decisions.
    """
    live = MlState.LIVE if config.model else MlState.NO_MODEL
    state = MlState.SWITCHED_OFF if turn == "engage" else live
    stop, tally = math.inf, _Tally()
    for event in events:
        try:
            again = decide_under(event, config, model, ml_state=state)
        except ReplayError:
            tally.unreadable += 1
            continue
        tally.add(event, Action(again.action))
        now = time.monotonic()
        # The time counts from the first answer, which may have waited for the compiler.
        stop = min(stop, now + MOST_S)
        if now > stop:
            break
    return tally.preview(stored)


class _Tally:
    """The differences so far, weighted by 1/inclusion probability."""

    def __init__(self) -> None:
        self.unreadable, self.seen = 0, 0
        self.total = self.changed = self.risky = 0.0
        self.actions: defaultdict[Action, float] = defaultdict(float)
        self.tiers: defaultdict[Tier, float] = defaultdict(float)
        self.examples: list[Example] = []

    def add(self, event: Event, after: Action) -> None:
        """Add one decision; `after` is the action that it would have had."""
        before, tier = Action(event.action), Tier(event.tier)
        weight = 1.0 / event.inclusion_probability
        self.seen += 1
        self.total += weight
        if after == before:
            return
        self.changed += weight
        self.actions[before] -= weight
        self.actions[after] += weight
        self.tiers[tier] += weight
        if after == Action.ADMIT and event.risk is not None and event.risk >= RISKY:
            self.risky += weight
        self.examples.append(
            Example("dec_" + event.id.hex(), event.app, tier, before, after, event.risk)
        )

    def preview(self, stored: int) -> Preview:
        """Return the differences, scaled to all `stored` decisions."""
        readable = self.seen + self.unreadable
        scale = stored / readable if readable else 1.0
        # the highest tier first, within a tier the highest risk
        self.examples.sort(key=lambda e: (-e.tier, -(e.risk or 0.0)))
        return Preview(
            stored=stored,
            looked_at=readable,
            unreadable=self.unreadable,
            total=self.total * scale,
            changed=self.changed * scale,
            actions=tuple(ActionChange(a, self.actions[a] * scale) for a in Action),
            tiers=tuple(TierChange(t, self.tiers[t] * scale) for t in sorted(Tier, reverse=True)),
            risky=self.risky * scale,
            examples=tuple(self.examples[:EXAMPLES]),
        )


def _sample(recent: QuerySet[Decision], stored: int) -> list[Event]:
    """Return at most about `MOST_ROWS` events of the hour in a random order that is always the
    same.
    """
    rows = recent.annotate(tail=RawSQL(_TAIL, (), output_field=BigIntegerField()))  # noqa: S611 - a constant, no input in it
    if stored > MOST_ROWS:
        rows = rows.filter(tail__lt=(1 << 32) * MOST_ROWS // stored)
    events = [row.event() for row in rows]
    random.Random(0).shuffle(events)  # noqa: S311 - the same order each time, so that a preview read twice agrees
    return events


def _model(ref: ModelRef | None) -> Model | None:
    """Return the live model; None when there is none, or it cannot be read here."""
    if ref is None:
        return None
    try:
        return _load(ref.digest)
    except (OSError, ArtifactError) as error:
        log.warning("The preview decides without the live model: it cannot be read (%s).", error)
        return None


@lru_cache(maxsize=2)
def _load(digest: str) -> Model:
    """Load a model by its digest. The live one is kept for the next preview."""
    return Model.load(publish.model_path(digest).read_bytes(), digest)
