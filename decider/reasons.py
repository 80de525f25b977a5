"""What spoke most against a request: SHAP values grouped by cause, strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .artifact import Artifact
from .causes import CAUSES, OF_REASON, SIGNS_OF_ABUSE
from .features import FEATURES, Feature
from .vocabulary import Reason, Tier

MOST = 4
"""Findings told at most."""


class Finding(NamedTuple):
    """One adverse cause."""

    lead: int
    """The feature that weighs most in it, by its place in the registry."""
    high: bool
    """Whether its value is at least that of similar apps."""
    weight: float
    """The cause's SHAP values together, log-odds; above 0."""
    members: tuple[int, ...]
    """All features of the cause that spoke against the request, strongest first."""

    @property
    def feature(self) -> Feature:
        return FEATURES[self.lead]

    @property
    def code(self) -> str:
        """Stable reason code, for staff and receipts."""
        return f"{self.feature.code}_{'HIGH' if self.high else 'LOW'}"


_MEMBERS = [[k for k, feature in enumerate(FEATURES) if feature.cause == code] for code in CAUSES]


def typical(artifact: Artifact, tier: int) -> list[float] | None:
    """Medians of similar apps (same tier) in registry order, from the model card; None when it has none."""
    found = artifact.card.typical.get(Tier(tier).word)
    return found if found and len(found) == len(FEATURES) else None


def findings(contributions: Sequence[float], values: Sequence[float], usual: Sequence[float] | None) -> list[Finding]:
    """The adverse causes, at most MOST, largest first, of SHAP values and feature values in registry order.

    A cause whose values cancel out, or of which nothing is known (NaN), is no finding. `usual`: `typical`.
    """
    found = []
    for members in _MEMBERS:
        weight = sum(contributions[k] for k in members)
        if weight > 0.0 and (adverse := [k for k in members if contributions[k] > 0.0 and values[k] == values[k]]):
            adverse.sort(key=lambda k: -contributions[k])
            lead = adverse[0]
            found.append(Finding(lead, usual is None or values[lead] >= usual[lead], weight, tuple(adverse)))
    found.sort(key=lambda finding: -finding.weight)
    return found[:MOST]


def told(reason: Reason, found: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    """What a refused customer is told: code and sentence of each cause.

    Where the rule that was decisive names a cause, that alone; where the model's findings were decisive, those that may be told,
    and none when a sign of abuse weighs most: what came after it would be told as the reason, and is not.
    """
    if reason in OF_REASON:
        cause = CAUSES[OF_REASON[reason]]
        return ((cause.code, cause.high),)
    if reason != Reason.RISK_HIGH or not found or found[0].feature.name in SIGNS_OF_ABUSE:
        return ()
    causes = ((CAUSES[f.feature.cause], f.high) for f in found if f.feature.name not in SIGNS_OF_ABUSE)
    return tuple((cause.code, text) for cause, high in causes if (text := cause.high if high else cause.low))
