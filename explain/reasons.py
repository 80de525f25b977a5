"""Reason codes: what spoke most against a request, in the feature registry's own words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decider.artifact import Artifact
from decider.features import FEATURES, Feature, format_value
from decider.vocabulary import Tier

from .waterfall import Waterfall

MOST = 4
"""Reasons shown at most."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One adverse finding."""

    code: str
    text: str
    """One or two sentences for staff."""
    effect: float
    """Risk points, as in its row of the waterfall."""
    feature: Feature
    value: float
    typical: float | None
    """Median of similar apps; None when the model card has none."""


def typical(artifact: Artifact, tier: int) -> list[float] | None:
    """Medians of similar apps (same tier) in registry order, from the model card; None when it has none."""
    found = artifact.card.typical.get(Tier(tier).word)
    return list(found) if found and len(found) == len(FEATURES) else None


def ranked(fall: Waterfall) -> list[Reason]:
    """The strongest adverse findings of a waterfall, at most MOST, largest effect first.

    A finding that moves risk by less than can be shown is left out, unless it would leave nothing.
    """
    adverse = [row for row in fall.rows if row.contribution > 0 and not math.isnan(row.value)]
    visible = [row for row in adverse if row.effect > 0] or adverse[:1]
    strongest = sorted(visible, key=lambda row: -row.effect)[:MOST]
    return [_reason(row.feature, row.value, row.typical, row.effect) for row in strongest]


_BEHAVIOUR = frozenset({"request", "counters", "feedback"})
_ENOUGH = 0.3
"""Share of the strongest effect from which a finding about behaviour leads."""


def leading(found: list[Reason]) -> Reason:
    """The finding that a sentence opens with: the strongest one about behaviour, unless who the app is weighs far more."""
    behaviour = (r for r in found if r.feature.source in _BEHAVIOUR and r.effect >= _ENOUGH * found[0].effect)
    return next(behaviour, found[0])


def _reason(feature: Feature, value: float, usual: float | None, effect: float) -> Reason:
    high = usual is None or value >= usual
    sentence = (feature.high if high else feature.low).format(
        value=format_value(feature, value), typical=format_value(feature, usual) if usual is not None else "unknown"
    )
    if usual is None:
        sentence = sentence.split(". ")[0].rstrip(".") + "."
    return Reason(f"{feature.code}_{'HIGH' if high else 'LOW'}", sentence, effect, feature, value, usual)


def clause(reason: Reason) -> str:
    """A reason as it continues "because": its first sentence, and how many times the usual it was."""
    first = reason.text.split(". ")[0].rstrip(".")
    first = first[0].lower() + first[1:]
    if times := _times(reason):
        return f"{first}, {times} times {_WHAT.get(reason.feature.unit, 'the usual of similar apps')}"
    if reason.typical is not None and reason.feature.unit in ("share", "count", "ratio"):
        return f"{first}, similar apps {format_value(reason.feature, reason.typical)}"
    return first


_WHAT = {"per_s": "what similar apps send", "cost_per_s": "what similar apps ask for"}


def _times(reason: Reason) -> str:
    """How many times the usual, from 1.5 on, in words a person would say; empty where that would mislead."""
    if reason.feature.unit not in ("per_s", "cost_per_s", "count") or not reason.typical or reason.typical <= 0:
        return ""
    times = reason.value / reason.typical
    if times < 1.5:
        return ""
    return f"{times:,.0f}" if times >= 3 else f"{times:.1f}"
