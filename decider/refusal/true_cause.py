"""The one cause of a refusal. Every audience is told this cause or none.

Staff, the response, the receipt and the reply to the customer differ in words, never in cause. All
of them ask `find_true_cause`. Where the customer may not be told the cause, no other cause takes
its place, because the request was not refused for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.contracts.features import FEATURES, Feature
from decider.contracts.vocabulary import Action, Reason
from decider.refusal.causes import CAUSES, OF_REASON, SIGNS_OF_ABUSE, TELLING, Cause

_SIDES = ("high", "low")
# The feature of each reason code of this registry. Receipts and stored decisions may hold codes of
# an older one, which are ignored.
_FEATURE_OF: dict[str, Feature] = {
    f"{f.code}_{side.upper()}": f for f in FEATURES for side in _SIDES
}
# Reason codes of signs of abuse, both sides.
ABUSE_CODES = frozenset(code for code, f in _FEATURE_OF.items() if f.name in SIGNS_OF_ABUSE)
# The cause that each reason code is told as; codes that are not here are not told.
TOLD_AS: dict[str, Cause] = {
    f"{f.code}_{side.upper()}": CAUSES[f.cause]
    for f in FEATURES
    for side in _SIDES
    if f"{f.name}:{side}" in TELLING
}


class TrueCause(NamedTuple):
    """Why a request was refused."""

    code: str
    """Code of the cause in `CAUSES`; empty when it is not known, because the score was not
    explained.
    """
    finding: str = ""
    """Reason code of the strongest finding where the findings are the cause; empty where a rule or
    the service is.
    """
    added: tuple[str, ...] = ()
    """Reason codes of the further findings, strongest first. They added to the risk, and none of
    them is the cause.
    """

    def sentence(self, action: Action) -> str:
        """Return the sentence with which the response tells the cause; empty where the customer may
        not be told it.
        """
        if not self.code or (self.finding and self.finding not in TOLD_AS):
            return ""
        cause = CAUSES[self.code]
        said = cause.low if self.finding.endswith("_LOW") else cause.high
        # Only what may be admitted later is told to wait (`Action.waits`).
        return f"{said} {cause.wait}" if said and cause.wait and action.waits else said


def find_true_cause(action: Action, reason: Reason, codes: Sequence[str]) -> TrueCause:
    """Return the cause of a refusal. `codes`: reason codes of its findings, strongest first; empty
    when nobody explained its score.

    A rule that was decisive is the cause. Where risk was decisive, the strongest finding is the
    cause, and the others added to the risk.
    """
    known = [code for code in codes if code in _FEATURE_OF]
    if reason != Reason.RISK_HIGH:
        return TrueCause(OF_REASON.get(reason, ""))
    # Policy sheds only when the service is short of room, whoever asks. Risk chose which request to
    # refuse, but with room none would have been shed.
    if action == Action.SHED:
        return TrueCause("SERVICE", added=tuple(known))
    if not known:
        return TrueCause("")
    return TrueCause(_FEATURE_OF[known[0]].cause, known[0], tuple(known[1:]))


def told_code(codes: Sequence[str]) -> str:
    """Return the strongest of `codes` that this registry knows when a customer may be told it; else
    an empty text.
    """
    strongest = next((code for code in codes if code in _FEATURE_OF), "")
    return strongest if strongest in TOLD_AS else ""
