"""Why a decision was made, in one clause, from its machine reason and the policy signals it
recorded.
"""

from __future__ import annotations

import math

from control.config import documents
from decider import policy
from decider.contracts.signals import INDEX, unpack
from decider.contracts.units import (
    plan_figure,
    price_figure,
    told_apart,
    two_digits,
    whole_left,
)
from decider.contracts.vocabulary import REASONS, Action, Reason
from decider.refusal.true_cause import find_true_cause
from decisions.models import Decision

# A machine reason in a few words, for a line of a table.
BRIEF: dict[Reason, str] = {
    Reason.COMPLIANCE: "Compliance rule",
    Reason.BLOCK_LISTED: "On the block list",
    Reason.ALLOW_LISTED: "On the allow list",
    Reason.QUOTA_EXHAUSTED: "Daily quota used up",
    Reason.LEASE_AWAITED: "Part of its quota not arrived",
    Reason.UNKNOWN_APP: "Unknown app",
    Reason.OVERRIDE_ADMIT: "Override admits it",
    Reason.OVERRIDE_REFUSE: "Override refuses it",
    Reason.HARMLESS: "Nothing stood out",
    Reason.BURST_EXHAUSTED: "Burst used up",
    Reason.RISK_LOW: "Risk low enough",
    Reason.RISK_HIGH: "Risk too high",
    Reason.VALUE_HIGH: "Worth more than it costs",
    Reason.VALUE_LOW: "Worth less than it costs",
    Reason.SERVICE_OVERLOADED: "Service overloaded",
    Reason.TENANT_OVER_SHARE: "Tenant over its fair share",
    Reason.ERROR_BUDGET_SPENT: "Error budget spent",
    Reason.WAITED: "Waited as it was told",
    Reason.TOKENS_LEFT: "Bucket had tokens, no ML",
    Reason.TOKENS_EMPTY: "Bucket empty, no ML",
}


def find_telling_reason(action: int, reason: int) -> Reason:
    """Return the machine reason whose words tell the cause. It is the recorded one, except for a
    request that was shed for its risk: the cause is then the service, which was short of room.
    """
    cause = find_true_cause(Action(action), Reason(reason), ())
    return Reason.SERVICE_OVERLOADED if cause.code == "SERVICE" else Reason(reason)


def brief(decision: Decision) -> str:
    """Return the cause in a few words, with the figure that matters most."""
    reason = find_telling_reason(decision.action, decision.reason)
    seen = signals(decision)
    if seen and reason == Reason.SERVICE_OVERLOADED:
        return (
            f"{decision.service} at {seen['service_utilisation'] * 100:.0f}% load, price"
            f" {price_figure(seen['service_price'])}"
        )
    if seen and reason == Reason.TENANT_OVER_SHARE and 0 < seen["tenant_fair_share"] < math.inf:
        return f"Tenant at {_times_share(seen)} × its share"
    return BRIEF.get(reason, REASONS[reason].text)


def clause(decision: Decision) -> str:
    """Return the cause in words that follow "because", with the recorded figures."""
    reason = find_telling_reason(decision.action, decision.reason)
    seen = signals(decision)
    return (_figures(reason, decision, seen) if seen else "") or REASONS[reason].text


def _figures(reason: Reason, d: Decision, seen: dict[str, float]) -> str:
    match reason:
        case Reason.QUOTA_EXHAUSTED:
            return (
                f"its daily quota of {plan_figure(seen['quota_limit'])} requests is used up: no"
                " decider can lease more of it today"
            )
        case Reason.LEASE_AWAITED:
            quota = plan_figure(seen["quota_limit"])
            return (
                f"this decider’s part of its daily quota of {quota} requests is used up, and no"
                " more of it has arrived yet"
            )
        case Reason.BURST_EXHAUSTED | Reason.TOKENS_EMPTY | Reason.TOKENS_LEFT:
            return _bucket(reason, seen)
        case Reason.SERVICE_OVERLOADED:
            return _strained(d, seen)
        case Reason.TENANT_OVER_SHARE if seen["tenant_fair_share"] <= 0:
            # only in old records: newer ones name the service when the fair share is none
            return f"higher tiers left no room on {d.service}, so its tenant's fair share was none"
        case Reason.TENANT_OVER_SHARE if seen["tenant_fair_share"] > 0 and math.isfinite(
            seen["tenant_fair_share"]
        ):
            return f"{_short(d, seen['service_utilisation'])}{_over_share(seen)}"
        case Reason.VALUE_LOW if d.value is not None:
            return (
                f"{_short(d, seen['service_utilisation'])} and this request was worth less than"
                " serving it cost just then"
            )
    return ""


def _bucket(reason: Reason, seen: dict[str, float]) -> str:
    """Say how full the burst bucket was; below zero tokens, the app uses its headroom."""
    burst, tokens = plan_figure(seen["bucket_burst"]), seen["tokens"]
    if reason == Reason.TOKENS_LEFT:
        return f"its bucket still held {whole_left(tokens)} of {burst} requests"
    if reason == Reason.TOKENS_EMPTY:
        rate = plan_figure(seen["bucket_rate"])
        return f"its bucket of {burst} requests, refilled at {rate} a second, was empty"
    headroom = seen["bucket_burst"] - seen.get("headroom_withheld", 0.0)
    if headroom <= 0.0:
        return f"its burst of {burst} requests is used up, and it gets no headroom beyond it"
    # with less than one token left, the headroom is used up
    if tokens > 1 - headroom:
        return (
            f"its burst of {burst} requests is used up and it was"
            f" {two_digits(max(0.0, -tokens))} into its headroom of {plan_figure(headroom)}: the"
            " deeper it goes, the less it may do"
        )
    return f"its burst of {burst} requests and its headroom of {plan_figure(headroom)} are used up"


def _times_share(seen: dict[str, float]) -> str:
    """Return how many times its fair share a tenant uses; 1.0 only at the share."""
    return told_apart(seen["tenant_usage"] / seen["tenant_fair_share"], 1.0, places=1)[0]


# A fair share below this many cost units a second is told as such. Chosen: many times next to
# nothing sounds like a flood, and is a request a minute.
_NEXT_TO_NOTHING = 0.05


def _over_share(seen: dict[str, float]) -> str:
    """Say by how much a tenant is over its fair share of a service that was short of room."""
    fair, usage = seen["tenant_fair_share"], seen["tenant_usage"]
    if fair >= _NEXT_TO_NOTHING:
        return f" and its tenant used {_times_share(seen)} times its fair share of it"
    return (
        f" and had next to nothing left for a tenant of its tier: {two_digits(fair)} cost units a"
        f" second, of which its tenant used {two_digits(usage)}"
    )


def _short(d: Decision, load: float) -> str:
    """Say that a service was short of room; by its load, or by why it was at a low load."""
    if load >= _target(d):
        return f"{d.service} was at {load * 100:.0f}% of its capacity"
    return f"{d.service} was still recovering from overload ({load * 100:.0f}% load)"


def _target(d: Decision) -> float:
    """Return the share of its capacity to which the decision's service is held."""
    config = documents.config(d.config_version)
    services = config.services if config else []
    return next((s.target for s in services if s.name == d.service), 1.0)


def _strained(d: Decision, seen: dict[str, float]) -> str:
    """Say how a service was overloaded. Its price falls more slowly than its load, and rises with
    latency and errors too, so low load does not contradict it.
    """
    load = seen["service_utilisation"]
    if load >= _target(d):
        return f"{d.service} was at {load * 100:.0f}% of its capacity"
    return f"{_short(d, load)} and took only what is worth most{_worth_below_cost(d, seen)}"


def _worth_below_cost(d: Decision, seen: dict[str, float]) -> str:
    """Say what a request was worth and what serving it cost, where the one is below the other."""
    if d.value is None:
        return ""
    worth = policy.BASE_WORTH + d.value
    price = float(policy.price_for(unpack(bytes(d.signals)), policy.USE_ALL))
    if worth >= (cost := price * seen["cost"]):
        return ""
    told = told_apart(worth, cost)
    return f": this request was worth {told[0]}, and serving it cost {told[1]}"


def signals(decision: Decision) -> dict[str, float] | None:
    """Return the recorded policy signals by name; None when they were recorded in another
    layout.
    """
    try:
        return dict(zip(INDEX, unpack(bytes(decision.signals)).tolist(), strict=True))
    except ValueError:
        return None
