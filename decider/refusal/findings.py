"""What spoke most against a request: SHAP values grouped by cause, strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.contracts.artifact import Artifact
from decider.contracts.features import FEATURES, Feature
from decider.contracts.vocabulary import Action, Reason, Tier
from decider.refusal.causes import CAUSES, OF_REASON, SIGNS_OF_ABUSE, TELLING, Cause

# Findings told at most.
MOST = 4


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
    """Medians of similar apps (same tier) in registry order, from the model card; None when it has
    none.
    """
    found = artifact.card.typical.get(Tier(tier).word)
    return found if found and len(found) == len(FEATURES) else None


def findings(
    contributions: Sequence[float], values: Sequence[float], usual: Sequence[float] | None
) -> list[Finding]:
    """The adverse causes, at most MOST, largest first, of SHAP values and feature values in
    registry order.

    A cause whose values cancel out, or of which nothing is known (NaN), is no finding. `usual`:
    `typical`.
    """
    found = []
    for members in _MEMBERS:
        weight = sum(contributions[k] for k in members)
        if weight > 0.0 and (
            adverse := [k for k in members if contributions[k] > 0.0 and values[k] == values[k]]
        ):
            adverse.sort(key=lambda k: -contributions[k])
            lead = adverse[0]
            found.append(
                Finding(lead, usual is None or values[lead] >= usual[lead], weight, tuple(adverse))
            )
    found.sort(key=lambda finding: -finding.weight)
    return found[:MOST]


_SIDES = ("high", "low")
# Reason codes of signs of abuse.
ABUSE_CODES = frozenset(
    f"{f.code}_{side.upper()}" for f in FEATURES if f.name in SIGNS_OF_ABUSE for side in _SIDES
)
# The cause that each reason code is told as; codes that are not here are not told.
TOLD_AS: dict[str, Cause] = {
    f"{f.code}_{side.upper()}": CAUSES[f.cause]
    for f in FEATURES
    for side in _SIDES
    if f"{f.name}:{side}" in TELLING
}
_KNOWN = frozenset(f"{f.code}_{side.upper()}" for f in FEATURES for side in _SIDES)


def told_code(codes: Sequence[str]) -> str:
    """The one reason code, of `codes` strongest first, by which a customer is told why risk refused
    a request; "" for none.

    The strongest that may be told; none when a sign of abuse weighs most, because what came after
    it would be told as the reason, and is not. Body, receipt and reply all choose by this, so that
    one refusal has one story. Codes of another registry are passed by.
    """
    known = [code for code in codes if code in _KNOWN]
    if not known or known[0] in ABUSE_CODES:
        return ""
    return next((code for code in known if code in TOLD_AS), "")


def told(action: Action, reason: Reason, found: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    """What a refused customer is told: code and sentence of the cause, or nothing.

    That which the decisive rule names; where risk was decisive, by `told_code`. Shedding is chosen
    only when the service is short of room, whoever asks, so that is what is told of it.
    """
    if reason in OF_REASON:
        cause = CAUSES[OF_REASON[reason]]
        return ((cause.code, cause.high),)
    if reason != Reason.RISK_HIGH:
        return ()
    if action == Action.SHED:
        return (("SERVICE", CAUSES["SERVICE"].high),)
    code = told_code([finding.code for finding in found])
    if not code:
        return ()
    cause = TOLD_AS[code]
    return ((cause.code, cause.high if code.endswith("_HIGH") else cause.low),)
