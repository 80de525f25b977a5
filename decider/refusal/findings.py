"""Findings: the SHAP values that spoke against a request, grouped by cause, strongest first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from decider.contracts.artifact import Artifact
from decider.contracts.features import FEATURES, Feature, format_value
from decider.contracts.vocabulary import Action, Reason, Tier
from decider.refusal.causes import CAUSES
from decider.refusal.true_cause import find_true_cause

# Findings kept for one request, at most. Chosen: the receipt must fit a header, and support reads
# the few causes that weigh most; the decision page shows every feature anyway.
MOST = 4


# Features that tell one finding, at most, and the least that each weighs as a share of the
# strongest. Chosen: what is named adds up to what is claimed, and many small effects of one cause
# do not outweigh a strong one that nobody then reads of.
MOST_MEMBERS, LEAST_SHARE = 3, 1.0 / 3.0
# A value stands out from what was usual by more than this share of it. Chosen: nobody who reads
# "only 0.17, usual 0.2" takes that for a reason.
LEAST_DIFFERENCE = 0.2
# Units whose numbers stand for words, so that a difference as a share of the number means nothing.
_WORDS = ("hour", "level", "flag")


# What a high value of a feature says of an app's pace: 1 faster, -1 slower. The others say neither.
_FASTER = {
    k: -1 if feature.name == "seconds_since_last" else 1
    for k, feature in enumerate(FEATURES)
    if feature.name.startswith(("rate_", "pace_over_", "cost_rate_", "seconds_since_last"))
}


class Finding(NamedTuple):
    """One adverse cause."""

    lead: int
    """The feature that weighs most in it, by its place in the registry."""
    high: bool
    """Whether its value is at least what was usual in training."""
    weight: float
    """Sum of its members' SHAP values, log-odds, or of all the cause's if that is less; above 0."""
    members: tuple[int, ...]
    """The features that tell it, strongest first: of those that stand out and spoke against the
    request, the strongest, and others that weigh nearly as much. None says fast where another says
    slow.
    """

    @property
    def feature(self) -> Feature:
        return FEATURES[self.lead]

    @property
    def code(self) -> str:
        """Stable reason code, for staff and receipts."""
        return code_of(self.feature, high=self.high)


def code_of(feature: Feature, *, high: bool) -> str:
    """Return the reason code of a feature and a side."""
    return f"{feature.code}_{'HIGH' if high else 'LOW'}"


def is_high(k: int, value: float, usual: Sequence[float] | None) -> bool:
    """Return whether an adverse value of feature `k` counts as high: only one that is known to be
    below the usual counts as low.
    """
    return usual is None or not value < usual[k]


# Places in the registry of each cause's features, computed once: `findings` runs for every refusal
# that is explained.
_MEMBERS = [[k for k, feature in enumerate(FEATURES) if feature.cause == code] for code in CAUSES]


def typical(artifact: Artifact, tier: int) -> list[float] | None:
    """Return what was usual in training: medians of the tier in registry order, from the model
    card; None when the card has none.
    """
    # The length is checked because a card may come from a model of another registry.
    found = artifact.card.typical.get(Tier(tier).word)
    return found if found and len(found) == len(FEATURES) else None


def stands_out(k: int, value: float, usual: float) -> bool:
    """Return whether a reader would see that the value of feature `k` differs from what was usual
    in training.

    An unknown value (NaN) never stands out. Where the usual one is unknown, every known value does.
    """
    if value != value:
        return False
    if usual != usual:
        return True
    feature = FEATURES[k]
    if feature.unit not in _WORDS and abs(value - usual) <= LEAST_DIFFERENCE * abs(usual):
        return False
    return format_value(feature, value) != _usual_text(k, usual)


# Every refusal that is explained asks again for the few medians of its tier.
@lru_cache(maxsize=1024)
def _usual_text(k: int, usual: float) -> str:
    return format_value(FEATURES[k], usual)


def findings(
    contributions: Sequence[float], values: Sequence[float], usual: Sequence[float] | None
) -> list[Finding]:
    """Return the adverse causes, at most MOST, largest first.

    `contributions`: SHAP values, log-odds; `values`: feature values; `usual`: medians from
    `typical`, None when unknown. All in registry order. A cause is left out when its SHAP values
    cancel out, or when none of its adverse features stands out: a usual value is no reason and adds
    to none.
    """
    heavy = []
    for members in _MEMBERS:
        adverse = [
            k
            for k in members
            if contributions[k] > 0.0
            and stands_out(k, values[k], math.nan if usual is None else usual[k])
        ]
        # Features that speak for the request count too: two that describe the same traffic can take
        # opposite signs, and only their sum means something. Adverse features with a usual value do
        # not count: they would lend their weight to a feature that hardly matters.
        weight = sum(contributions[k] for k in members if contributions[k] < 0.0 or k in adverse)
        if adverse and weight > 0.0:
            named = _members(adverse, contributions, values, usual)
            heavy.append((min(weight, sum(contributions[k] for k in named)), named))
    heavy.sort(key=lambda one: -one[0])
    found = []
    for weight, named in heavy[:MOST]:
        lead = named[0]
        high = is_high(lead, values[lead], usual)
        found.append(Finding(lead, high, weight, tuple(named)))
    return found


def _members(
    adverse: list[int],
    contributions: Sequence[float],
    values: Sequence[float],
    usual: Sequence[float] | None,
) -> list[int]:
    """Return the features that tell a finding, strongest first."""
    ordered = sorted(adverse, key=lambda k: -contributions[k])
    least, told, pace = LEAST_SHARE * contributions[ordered[0]], [], 0
    for k in ordered:
        its = _FASTER.get(k, 0) * (1 if is_high(k, values[k], usual) else -1)
        if contributions[k] < least or its * pace < 0:
            continue
        told.append(k)
        pace = pace or its
    return told[:MOST_MEMBERS]


def told(action: Action, reason: Reason, found: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    """Return what a refused customer is told: code and sentence of the one cause
    (`true_cause.find_true_cause`), or nothing where the customer may not be told it.
    """
    cause = find_true_cause(action, reason, [finding.code for finding in found])
    sentence = cause.sentence(action)
    return ((cause.code, sentence),) if sentence else ()
