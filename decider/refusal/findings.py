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


# A value stands out from what was usual by more than this share of it. Chosen: nobody who reads
# "only 0.19, usual 0.2" takes that for a reason.
LEAST_DIFFERENCE = 0.1
# Units whose numbers stand for words, so that a difference as a share of the number means nothing.
_WORDS = ("hour", "level", "flag")


class Finding(NamedTuple):
    """One adverse cause."""

    lead: int
    """The feature that weighs most in it, by its place in the registry."""
    high: bool
    """Whether its value is at least what was usual in training."""
    weight: float
    """Sum of the cause's SHAP values, log-odds; above 0."""
    members: tuple[int, ...]
    """All features of the cause that stand out and spoke against the request, strongest first."""

    @property
    def feature(self) -> Feature:
        return FEATURES[self.lead]

    @property
    def code(self) -> str:
        """Stable reason code, for staff and receipts."""
        return f"{self.feature.code}_{'HIGH' if self.high else 'LOW'}"


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
            heavy.append((weight, sorted(adverse, key=lambda k: -contributions[k])))
    heavy.sort(key=lambda one: -one[0])
    found = []
    for weight, adverse in heavy[:MOST]:
        lead = adverse[0]
        # A value counts as low only where it is known to be below the usual one.
        high = usual is None or not values[lead] < usual[lead]
        found.append(Finding(lead, high, weight, tuple(adverse)))
    return found


def told(action: Action, reason: Reason, found: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    """Return what a refused customer is told: code and sentence of the one cause
    (`true_cause.find_true_cause`), or nothing where the customer may not be told it.
    """
    cause = find_true_cause(action, reason, [finding.code for finding in found])
    sentence = cause.sentence(action)
    return ((cause.code, sentence),) if sentence else ()
