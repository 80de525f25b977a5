"""The fixed words of Sluice: actions, stages, tiers, reasons. One word per thing, everywhere.

The integer values are the wire and storage format; they are only ever appended to.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Action(IntEnum):
    """What is done with a request."""

    ADMIT = 0
    DEFER = 1
    BATCH = 2
    SHED = 3
    BLOCK = 4

    @property
    def word(self) -> str:
        return self.name.lower()

    @property
    def waits(self) -> bool:
        """Whether a wait helps: an admit needs none, and after a block no wait is ever promised."""
        return self not in (Action.ADMIT, Action.BLOCK)


# 429 asks for a later retry; 503 says that the service is at fault, not the client; 403 says that a
# retry will not help.
HTTP_STATUS: dict[Action, int] = {
    Action.ADMIT: 200,
    Action.DEFER: 429,
    Action.BATCH: 429,
    Action.SHED: 503,
    Action.BLOCK: 403,
}


class Stage(IntEnum):
    """The stages of a decision, in the order they are asked."""

    GUARD = 0
    OVERRIDE = 1
    TRIAGE = 2
    RANK = 3
    RERANK = 4
    FALLBACK = 5

    @property
    def label(self) -> str:
        return STAGE_LABELS[self]


STAGE_LABELS: dict[Stage, str] = {
    Stage.GUARD: "Guard",
    Stage.OVERRIDE: "Override",
    Stage.TRIAGE: "Triage",
    Stage.RANK: "ML ranking",
    Stage.RERANK: "Policy re-ranking",
    Stage.FALLBACK: "Fallback limiter",
}


class Tier(IntEnum):
    """Commercial tier of an app, lowest protection first."""

    FREE = 0
    STANDARD = 1
    PREMIUM = 2
    ENTERPRISE = 3

    @property
    def word(self) -> str:
        return self.name.lower()


class Arm(IntEnum):
    """Which model scored a request; NONE when no model was asked."""

    NONE = 0
    LIVE = 1


class MlState(IntEnum):
    """Whether ML could be asked for this request, and if not, why not."""

    LIVE = 0
    SWITCHED_OFF = 1
    NO_MODEL = 2
    LATE = 3
    BAD_SCORE = 4
    DECIDER_LATE = 5


ML_STATE_TEXT: dict[MlState, str] = {
    MlState.LIVE: "ML was live",
    MlState.SWITCHED_OFF: "ML was switched off by the switch “All ML”",
    MlState.NO_MODEL: "no usable model was loaded",
    MlState.LATE: "scoring took longer than its time limit",
    MlState.BAD_SCORE: "the model returned no usable score",
    MlState.DECIDER_LATE: "the decider was late and had no time to ask the model",
}


class ReasonInfo(NamedTuple):
    """Words for one machine reason."""

    stage: Stage
    text: str
    """One plain clause for staff, without a full stop; it continues "… because"."""


class Reason(IntEnum):
    """Machine reason of a decision: the finding that was decisive."""

    # numbered in tens by stage, to leave each stage room for more: stored numbers never change
    NONE = 0
    COMPLIANCE = 1
    BLOCK_LISTED = 2
    ALLOW_LISTED = 3
    QUOTA_EXHAUSTED = 4
    LEASE_AWAITED = 5
    UNKNOWN_APP = 6
    OVERRIDE_ADMIT = 10
    OVERRIDE_REFUSE = 11
    HARMLESS = 20
    BURST_EXHAUSTED = 21
    RISK_LOW = 30
    RISK_HIGH = 31
    VALUE_HIGH = 32
    VALUE_LOW = 33
    SERVICE_OVERLOADED = 40
    TENANT_OVER_SHARE = 41
    ERROR_BUDGET_SPENT = 42
    WAITED = 43
    TOKENS_LEFT = 50
    TOKENS_EMPTY = 51


REASONS: dict[Reason, ReasonInfo] = {
    Reason.NONE: ReasonInfo(Stage.GUARD, "no rule was decisive"),
    Reason.COMPLIANCE: ReasonInfo(Stage.GUARD, "a compliance rule forbids it"),
    Reason.BLOCK_LISTED: ReasonInfo(Stage.GUARD, "it is on the block list"),
    Reason.ALLOW_LISTED: ReasonInfo(Stage.GUARD, "it is on the allow list"),
    Reason.QUOTA_EXHAUSTED: ReasonInfo(Stage.GUARD, "its daily quota is used up"),
    Reason.LEASE_AWAITED: ReasonInfo(
        Stage.GUARD,
        "the part of its daily quota that this decider holds is used up, and no more of it has"
        " arrived yet",
    ),
    Reason.UNKNOWN_APP: ReasonInfo(
        Stage.GUARD, "its app id is unknown here, and unknown apps get no more just now"
    ),
    Reason.OVERRIDE_ADMIT: ReasonInfo(Stage.OVERRIDE, "an operator override admits it"),
    Reason.OVERRIDE_REFUSE: ReasonInfo(Stage.OVERRIDE, "an operator override refuses it"),
    Reason.HARMLESS: ReasonInfo(
        Stage.TRIAGE, "it is within its plan and nothing about it stands out"
    ),
    Reason.BURST_EXHAUSTED: ReasonInfo(Stage.TRIAGE, "its burst is used up"),
    Reason.RISK_LOW: ReasonInfo(Stage.RANK, "its risk is low enough for what it is worth"),
    Reason.RISK_HIGH: ReasonInfo(Stage.RANK, "its risk is too high for what it is worth"),
    Reason.VALUE_HIGH: ReasonInfo(Stage.RANK, "it is worth more than it costs"),
    Reason.VALUE_LOW: ReasonInfo(
        Stage.RANK, "it is worth less than what serving it costs while its service is short of room"
    ),
    Reason.SERVICE_OVERLOADED: ReasonInfo(
        Stage.RERANK, "the service behind it is overloaded, or was a moment ago"
    ),
    Reason.TENANT_OVER_SHARE: ReasonInfo(
        Stage.RERANK, "its tenant uses more than its fair share of a busy service"
    ),
    Reason.ERROR_BUDGET_SPENT: ReasonInfo(
        Stage.RERANK, "its error budget holds too few wrong refusals to refuse it"
    ),
    Reason.WAITED: ReasonInfo(
        Stage.RERANK, "it was refused before and waited as it was told, so a place was kept for it"
    ),
    Reason.TOKENS_LEFT: ReasonInfo(Stage.FALLBACK, "its token bucket had tokens left"),
    Reason.TOKENS_EMPTY: ReasonInfo(Stage.FALLBACK, "its token bucket was empty"),
}
