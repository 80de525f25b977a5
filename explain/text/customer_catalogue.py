"""The reviewed catalogue of what a customer may be told, and when each text applies.

Texts hold no figure of their own: every number comes in by one of the fields in FIELDS, which are
the customer's own affairs (the wait they were told, their allowance, their own pace over it) or
what they hold already (time, status, reference). Whoever changes a text raises VERSION.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from decider.contracts.features import FEATURES
from decider.contracts.vocabulary import Action
from decider.refusal.causes import SIGNS_OF_ABUSE, TELLING

# Version of the catalogue, shown beside each text: a reply can be traced to its wording.
VERSION = 10

# Every field that a text may name. A closed list, so that a new text cannot tell more by mistake.
FIELDS = frozenset(
    {
        "app",
        "when",
        "status",
        "wait",
        "wait_words",
        "rate",
        "burst",
        "quota",
        "pace",
        "batch",
        "reference",
    }
)


class Cause(Enum):
    """The cause that the customer is told. UNSAID stands for a cause that is not told, because
    telling it would help those who mean harm.
    """

    ACCEPTED = auto()
    QUOTA = auto()
    QUOTA_PART = auto()
    UNKNOWN = auto()
    LEGAL = auto()
    BARRED = auto()
    HELD = auto()
    ALLOWANCE = auto()
    BUSY = auto()
    SHARE = auto()
    CHOSEN = auto()
    BEHIND = auto()
    PACE = auto()
    BURST = auto()
    WORK = auto()
    ERRORS = auto()
    OUR_ERRORS = auto()
    RETRIES = auto()
    SIZE = auto()
    UNSAID = auto()


# Code of a cause that is no finding (`decider.refusal.true_cause`) -> cause that the customer is
# told. The empty code stands for a score without an explanation.
OF_RULE: dict[str, Cause] = {
    "LEGAL": Cause.LEGAL,
    "LISTED": Cause.BARRED,
    "QUOTA": Cause.QUOTA,
    "LEASE": Cause.QUOTA_PART,
    "UNKNOWN_APP": Cause.UNKNOWN,
    "HELD": Cause.HELD,
    "PACE": Cause.ALLOWANCE,
    "VALUE": Cause.BEHIND,
    "SERVICE": Cause.BUSY,
    "TENANT": Cause.SHARE,
    "": Cause.UNSAID,
}

# Cause that the customer is told -> findings that it stands for, as feature and direction. These
# are all findings that may be told (`decider.refusal.causes.TELLING`).
_SAID = {
    Cause.PACE: (
        "rate_1s:high",
        "rate_10s:high",
        "rate_60s:high",
        "rate_600s:high",
        "seconds_since_last:low",
        *("pace_over_tier:high", "pace_over_tenant:high"),
        *("pace_over_own_hours:high", "pace_over_own_days:high"),
    ),
    Cause.BURST: ("burst_ratio:high", "gap_cv:high"),
    Cause.WORK: ("cost_rate_60s:high", "request_cost:high"),
    Cause.ERRORS: (
        "error_share_60s:high",
        "client_error_share_60s:high",
        "client_errors_60s:high",
        "client_error_share_600s:high",
        "client_errors_600s:high",
    ),
    Cause.OUR_ERRORS: (
        "server_error_share_60s:high",
        "service_error_share:high",
        "service_latency_ratio:high",
    ),
    Cause.RETRIES: (
        *("refused_share_60s:high", "retry_share_60s:high", "early_retry_share_60s:high"),
        *("refused_60s:high", "retries_60s:high", "early_retries_60s:high"),
    ),
    Cause.SIZE: ("payload_mean_60s:high", "payload_now:high"),
    Cause.CHOSEN: ("service_utilisation:high",),
    Cause.SHARE: ("tenant_share:high",),
}

# Never told, in whichever direction: signs of abuse, who the app is, and what others did.
_UNTOLD = SIGNS_OF_ABUSE | frozenset(
    {
        "quota_used",
        "quota_pace",
        "seconds_since_first",
        "hour_of_week",
        "tier",
        "app_age",
        "verified",
        "cohort_prior",
        "false_throttle_history",
        "feedback_age",
    }
)


def _findings() -> dict[str, Cause]:
    """Return the cause of every reason code. Raises KeyError at import when a feature is in neither
    list above, or when the response tells another set of findings.
    """
    told = {one: cause for cause, ones in _SAID.items() for one in ones}
    if differ := set(told) ^ TELLING:
        raise KeyError(
            "the customer catalogue (_SAID) and the response (causes.TELLING) must tell the same"
            f" findings; only one of them has {sorted(differ)}"
        )
    found: dict[str, Cause] = {}
    for feature in FEATURES:
        sides = {side: told.get(f"{feature.name}:{side}") for side in ("high", "low")}
        if not any(sides.values()) and feature.name not in _UNTOLD:
            raise KeyError(
                f"the customer catalogue must list {feature.name} in _SAID or in _UNTOLD"
            )
        found |= {
            f"{feature.code}_{side.upper()}": cause or Cause.UNSAID for side, cause in sides.items()
        }
    return found


# Reason code (`reason_codes.ReasonCode.code`) -> cause that the customer is told.
FINDINGS: dict[str, Cause] = _findings()


class CauseTexts(NamedTuple):
    """Texts of one cause. Each is one or more whole sentences."""

    why: str
    line: str
    """The same in a clause, for one line."""
    advice: str
    """What the customer can do so that it does not happen again."""
    why_known: str = ""
    """In place of `why` when the figures it names are known."""


# Advice where the cause lies with us.
PATIENCE = "Your integration does not need to change, as long as it waits when it is told to."
# Used instead of PATIENCE if the record shows that the app does not wait.
HURRIED = (
    "Some of your app’s latest requests were sent again before Retry-After had passed. Please let"
    " it wait as long as that field says."
)
# Added where a simpler limit decided because we were late.
LATE = "We had no time for our usual check, so only this simpler limit applied."
REVIEW = "If you think this was wrong, reply with the reference below and a person will look at it."

CAUSE_TEXTS: dict[Cause, CauseTexts] = {
    Cause.ACCEPTED: CauseTexts(
        "No limit was applied to it.",
        "The request was accepted; no limit was applied to it.",
        "There is nothing to change.",
    ),
    Cause.QUOTA: CauseTexts(
        "No more of the daily quota of your plan can be given out today.",
        "No more of the daily quota of your plan can be given out today",
        "To stay within the quota, spread the work over the day or leave out requests you do not"
        " need. If you need more, ask us about a larger plan.",
        "No more of the daily quota of your plan, {quota} requests, can be given out today.",
    ),
    Cause.QUOTA_PART: CauseTexts(
        "We give out the daily quota of your plan in parts, and the next part was not at hand yet.",
        "We give out the daily quota of your plan in parts and the next part was not at hand yet",
        PATIENCE,
    ),
    Cause.UNKNOWN: CauseTexts(
        "We do not know the app id that it came with, and such requests share a small allowance.",
        "We do not know the app id that this request came with, and such requests share a small"
        " allowance",
        "Please send your own app id with each request. If you have just signed up, try again in a"
        " minute.",
    ),
    Cause.LEGAL: CauseTexts(
        "A legal rule that we have to follow does not let us serve it.",
        "A legal rule that we have to follow does not let us serve this request",
        REVIEW,
    ),
    Cause.BARRED: CauseTexts(
        "Our team has stopped requests from this app, organisation or network address.",
        "Our team has stopped requests from this app, organisation or network address",
        "Reply with the reference below and a person will tell you what is needed to lift it.",
    ),
    Cause.HELD: CauseTexts(
        "Our team has limited requests from this app or organisation for some time, by hand.",
        "Our team has limited requests from this app or organisation for some time",
        "Reply with the reference below and a person will tell you why and until when.",
    ),
    Cause.ALLOWANCE: CauseTexts(
        "More requests had arrived than your plan allows at once.",
        "More requests arrived than your plan allows at once",
        "To avoid this, spread your requests over time.",
        "Your allowance at this time is a burst of {burst} requests, refilled at {rate} a second,"
        " and it was used up.",
    ),
    Cause.BUSY: CauseTexts(
        "Our service was busy and could not take every request.",
        "Our service was busy",
        PATIENCE,
    ),
    Cause.SHARE: CauseTexts(
        "Our service was busy, and the apps of your organisation together were over their share of"
        " what was left of it.",
        "Our service was busy and your organisation’s apps together were over their share of it",
        "Spread the work of your apps over time, and do what is not urgent at another hour.",
    ),
    Cause.CHOSEN: CauseTexts(
        "Our service was busy, and our automatic protection put other requests first.",
        "Our service was busy and other requests were put first",
        "To lower the chance of this, spread your requests over time.",
    ),
    Cause.BEHIND: CauseTexts(
        "Our service was busy and served other requests first.",
        "Our service was busy and served other requests first",
        "To lower the chance of this, do what is not urgent at another hour.",
    ),
    Cause.PACE: CauseTexts(
        "Our automatic protection limited it, mainly because of how quickly requests from your app"
        " were arriving.",
        "Requests from your app were arriving quickly and our automatic protection limited them",
        "To avoid this, spread your requests over time.",
        "Our automatic protection limited it, mainly because of how quickly requests from your app"
        " were arriving: about {pace} a second, where your allowance is refilled at {rate} a"
        " second.",
    ),
    Cause.BURST: CauseTexts(
        "Our automatic protection limited it, mainly because requests from your app arrived in a"
        " sudden burst.",
        "Requests from your app arrived in a sudden burst and our automatic protection limited"
        " them",
        "To avoid this, spread your requests over time instead of sending many at the same moment.",
    ),
    Cause.WORK: CauseTexts(
        "Our automatic protection limited it, mainly because the requests from your app take a lot"
        " of work to answer.",
        "Requests from your app take a lot of work to answer and our automatic protection limited"
        " them",
        "To avoid this, ask for less at a time, and spread the larger requests over time.",
    ),
    Cause.ERRORS: CauseTexts(
        "Our automatic protection limited it, mainly because of how many of your app’s latest"
        " requests ended in an error.",
        "Requests from your app ended in errors and our automatic protection limited them",
        "To avoid this, look at the errors your app receives, and do not send again what cannot"
        " succeed.",
    ),
    Cause.OUR_ERRORS: CauseTexts(
        "Our service was answering slowly or with errors, and our automatic protection limited what"
        " it let through.",
        "Our service was answering slowly or with errors, so requests were limited",
        PATIENCE,
    ),
    Cause.RETRIES: CauseTexts(
        "Our automatic protection limited it, mainly because your app kept sending requests"
        " while it was being refused.",
        "Your app kept sending requests while it was being refused",
        "To avoid this, wait as long as the Retry-After field says before you try again, and longer"
        " after each further refusal.",
    ),
    Cause.SIZE: CauseTexts(
        "Our automatic protection limited it, mainly because the requests from your app were"
        " large.",
        "Requests from your app were large and our automatic protection limited them",
        "To avoid this, send less in each request.",
    ),
    Cause.UNSAID: CauseTexts(
        "Our automatic protection did not let it through. We cannot say more about why, because"
        " that would help people who try to get around it.",
        "Our automatic protection did not let it through",
        REVIEW,
    ),
}

# What happened, by action.
WHAT: dict[Action, str] = {
    Action.ADMIT: "At {when}, a request from {app} was accepted.",
    Action.DEFER: (
        "At {when}, a request from {app} was not served (HTTP {status}, Retry-After {wait}). Please"
        " retry after {wait_words}."
    ),
    Action.BATCH: (
        "At {when}, a request from {app} was not served (HTTP {status}, Retry-After {wait}). Please"
        " send many items in one request, or retry after {wait_words}."
    ),
    Action.SHED: (
        "At {when}, a request from {app} was turned away for the moment (HTTP {status}, Retry-After"
        " {wait}). Please retry after {wait_words}."
    ),
    Action.BLOCK: "At {when}, a request from {app} was refused (HTTP {status}).",
}

# What to do about it now, by action.
NOW: dict[Action, str] = {
    Action.ADMIT: "",
    Action.DEFER: (
        "A request that waits that long before it is sent again has the best chance of being"
        " served."
    ),
    Action.BATCH: "Asking for many items at once needs fewer requests.",
    Action.SHED: (
        "A request that waits that long before it is sent again has the best chance of being"
        " served."
    ),
    Action.BLOCK: "Sending the same request again will not help.",
}

# Causes whose advice already says that a person will look at it. A block for any other cause gets
# REVIEW added.
WITH_REVIEW = frozenset({Cause.UNSAID, Cause.LEGAL, Cause.BARRED, Cause.HELD})
# Causes whose advice is to wait, which would contradict an answer that tells no wait.
ABOUT_WAITING = frozenset(
    {Cause.QUOTA_PART, Cause.UNKNOWN, Cause.BUSY, Cause.OUR_ERRORS, Cause.RETRIES}
)
# Causes whose advice, to ask for less at a time, would contradict an answer that asks for batches.
NOT_IN_BATCHES = frozenset({Cause.WORK, Cause.SIZE})
BATCH_KNOWN = "Use {batch} to send many items in one request."

LINE_END: dict[Action, str] = {
    Action.ADMIT: "",
    Action.DEFER: "; wait {wait_words}, then send the request again.",
    Action.BATCH: "; send many items in one request, or wait {wait_words}.",
    Action.SHED: "; wait {wait_words}, then send the request again.",
    Action.BLOCK: "; sending the request again will not help.",
}
REFERENCE = "Reference: {reference}"
