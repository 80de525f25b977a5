"""Findings: the SHAP values that spoke against a request, grouped by cause, strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.contracts.artifact import Artifact
from decider.contracts.features import FEATURES, Feature
from decider.contracts.vocabulary import Action, Reason, Tier
from decider.refusal.causes import CAUSES, OF_REASON, SIGNS_OF_ABUSE, TELLING, Cause

# Findings kept for one request, at most. Chosen: the receipt must fit a header, and support reads
# the few causes that weigh most; the decision page shows every feature anyway.
MOST = 4


class Finding(NamedTuple):
    """One adverse cause."""

    lead: int
    """The feature that weighs most in it, by its place in the registry."""
    high: bool
    """Whether its value is at least the median of similar apps."""
    weight: float
    """Sum of the cause's SHAP values, log-odds; above 0."""
    members: tuple[int, ...]
    """All features of the cause that spoke against the request, strongest first."""

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
    """Return medians of similar apps (same tier) in registry order, from the model card; None when
    the card has none.
    """
    # The length is checked because a card may come from a model of another registry.
    found = artifact.card.typical.get(Tier(tier).word)
    return found if found and len(found) == len(FEATURES) else None


def findings(
    contributions: Sequence[float], values: Sequence[float], usual: Sequence[float] | None
) -> list[Finding]:
    """Return the adverse causes, at most MOST, largest first.

    `contributions`: SHAP values, log-odds; `values`: feature values; `usual`: medians from
    `typical`, None when unknown. All in registry order. A cause whose SHAP values cancel out, or
    whose feature values are all unknown (NaN), is not a finding.
    """
    found = []
    for members in _MEMBERS:
        # The whole cause counts, its helpful features too: two that describe the same traffic
        # can take opposite signs, and only their sum means something.
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
# Reason codes of signs of abuse, both sides: `told_code` must not even hint at them.
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
# Codes of this registry. Receipts and stored decisions may hold codes of an older one.
_KNOWN = frozenset(f"{f.code}_{side.upper()}" for f in FEATURES for side in _SIDES)


def told_code(codes: Sequence[str]) -> str:
    """Return the one of `codes` (strongest first) that tells a customer why risk refused a request;
    "" for none.

    It is the strongest code that may be told. When a sign of abuse weighs most it is none, because
    the next code would be told as the reason, and is not. Body, receipt and reply all choose by
    this function, so that one refusal has one story. Codes of another registry are ignored.
    """
    known = [code for code in codes if code in _KNOWN]
    if not known or known[0] in ABUSE_CODES:
        return ""
    return next((code for code in known if code in TOLD_AS), "")


def told(action: Action, reason: Reason, found: Sequence[Finding]) -> tuple[tuple[str, str], ...]:
    """Return what a refused customer is told: code and sentence of one cause, or nothing.

    Where a rule was decisive, the rule names the cause. Where risk was decisive, `told_code`
    chooses it.
    """
    if reason in OF_REASON:
        cause = CAUSES[OF_REASON[reason]]
        return ((cause.code, cause.high),)
    if reason != Reason.RISK_HIGH:
        return ()
    # Policy sheds only when the service is short of room, whoever asks. So the service is the
    # cause, not the customer.
    if action == Action.SHED:
        return (("SERVICE", CAUSES["SERVICE"].high),)
    code = told_code([finding.code for finding in found])
    if not code:
        return ()
    cause = TOLD_AS[code]
    return ((cause.code, cause.high if code.endswith("_HIGH") else cause.low),)
