"""The opening sentences of a decision page: what happened to which app and why, and which stage
decided by which figures.

They are composed from the record, its reasons and the policy function's own thresholds. No fixed
text holds a figure: every figure is read from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from decider.contracts import units
from decider.contracts.signals import unpack
from decider.contracts.units import told_apart, wait_span
from decider.contracts.vocabulary import (
    HTTP_STATUS,
    ML_STATE_TEXT,
    REASONS,
    Action,
    MlState,
    Reason,
    Stage,
)
from decider.policy import BASE_WORTH
from decider.refusal.true_cause import find_true_cause
from decider.whatif.replay import Thresholds
from decisions import reason_text
from decisions.models import Decision
from explain.comparison import limits
from explain.text import reason_codes

DID = {
    Action.ADMIT: "admitted",
    Action.DEFER: "deferred",
    Action.BATCH: "asked to batch",
    Action.SHED: "shed",
    Action.BLOCK: "blocked",
}


@dataclass(frozen=True, slots=True)
class DecisionStory:
    """The texts at the top of a decision page."""

    chip: str
    """The action in a word, with its wait: "Deferred 4 s"."""
    http: str
    """The answer that the client received: "HTTP 429, Retry-After 4"."""
    verdict: str
    """What happened and why, in one sentence."""
    lead: str
    """Which stage decided, and by which figures."""


def write_story(
    decision: Decision,
    name: str,
    thresholds: Thresholds | None,
    found: list[reason_codes.ReasonCode],
    usual: Sequence[tuple[str, float]] = (),
    *,
    stands: bool = False,
) -> DecisionStory:
    """Return the story of a decision about the app called `name`. `found` and `usual`: what raised
    its risk, from `reason_codes.rank_reasons` and `reason_codes.list_usual`. `stands`: whether its
    wait is that of an earlier response, so that its own cause did not set it.
    """
    return DecisionStory(
        _chip(decision),
        http_answer(decision),
        _verdict(decision, name, found, usual, stands=stands),
        _lead(decision, thresholds),
    )


def risk_mattered(decision: Decision, thresholds: Thresholds | None) -> bool:
    """Return whether a lower risk would have changed a refusal, or a higher one an admit; True
    where that cannot be told.
    """
    if thresholds is None:
        return True
    if len(thresholds.bands) == 1:
        return False
    return decision.action == Action.ADMIT or thresholds.up is not None


def round_wait(seconds: float) -> int:
    """Return a wait in whole seconds, rounded up as in the Retry-After field; 0 for no wait."""
    return max(1, math.ceil(seconds)) if seconds > 0 else 0


def _chip(d: Decision) -> str:
    # Only these two ask the client to wait; a batch or a block asks for something else.
    action = Action(d.action)
    wait = (
        f" {wait_span(d.retry_after)}"
        if action in (Action.DEFER, Action.SHED) and d.retry_after > 0
        else ""
    )
    word = "Batch asked" if action == Action.BATCH else DID[action].capitalize()
    return f"{word}{wait}"


def http_answer(d: Decision) -> str:
    """Return as a clause what the client of a decision got: the status and the Retry-After."""
    if d.observed or d.action == Action.ADMIT:
        return "passed on to the service" + (", observe-only" if d.observed else "")
    wait = f", Retry-After {round_wait(d.retry_after)}" if d.retry_after > 0 else ""
    return f"HTTP {HTTP_STATUS[Action(d.action)]}{wait}"


def _verdict(
    d: Decision,
    name: str,
    found: list[reason_codes.ReasonCode],
    usual: Sequence[tuple[str, float]],
    *,
    stands: bool,
) -> str:
    return f"{name} {_act(d, stands=stands)} {_because(d, found, usual)}."


def _act(d: Decision, *, stands: bool) -> str:
    action, wait = Action(d.action), 0 if stands else round_wait(d.retry_after)
    # From a minute on as the chip beside it says it.
    seconds = f"{wait} second{'' if wait == 1 else 's'}" if wait < 60 else wait_span(wait)
    told_to_wait = "asked to go on waiting" if stands else "asked to wait"
    told = {
        Action.ADMIT: "admitted",
        Action.DEFER: f"asked to wait {seconds}" if wait else told_to_wait,
        Action.BATCH: "asked to send its requests as one batch",
        Action.SHED: "turned away",
        Action.BLOCK: "blocked",
    }[action]
    return (
        f"was admitted, in observe-only mode, and would have been {told}"
        if d.observed
        else f"was {told}"
    )


def _because(
    d: Decision,
    found: list[reason_codes.ReasonCode],
    usual: Sequence[tuple[str, float]],
) -> str:
    action, reason = Action(d.action), Reason(d.reason)
    if find_true_cause(action, reason, [one.code for one in found]).finding:
        return reason_codes.write_because(found, usual)
    because = f"because {reason_text.clause(d)}"
    if (action, reason) != (Action.SHED, Reason.RISK_HIGH):
        return because
    # The service is why requests were shed. The findings are why this request was among them.
    chose = f": {reason_codes.write_clause(found[0])}" if found else ""
    return f"{because}, and its risk put it behind others{chose}"


def _lead(d: Decision, thresholds: Thresholds | None) -> str:
    stage = Stage(d.stage)
    if d.risk is None:
        return f"{stage.label} decided: {_unranked(d)}"
    return f"{stage.label} decided: {_risk(d, thresholds)}"


def _unranked(d: Decision) -> str:
    """Return why no model was asked."""
    stage = Stage(d.stage)
    if stage == Stage.FALLBACK:
        return f"{ML_STATE_TEXT[MlState(d.ml_state)]}, so token buckets by tier decided."
    if stage == Stage.TRIAGE:
        return "nothing stood out, so no model was asked."
    if stage == Stage.GUARD:
        return "a guard rule is never overruled, so no model was asked."
    return f"{REASONS[Reason(d.reason)].text}, whatever a model would have said."


def _worth(d: Decision, enough: float | None) -> str:
    """Return how the request's worth decided; empty when what it cost is not recorded. `enough`:
    the value from which on it would not have been refused so; None where there is none.
    """
    seen = reason_text.signals(d)
    if seen is None or d.value is None:
        return ""
    cost = units.price_figure(limits.serving_cost(unpack(bytes(d.signals)), seen))
    least = "" if enough is None else f"{BASE_WORTH + enough:.2f}"
    worth = f"{BASE_WORTH + d.value:.2f}"
    if enough is not None:
        worth, least = told_apart(BASE_WORTH + d.value, BASE_WORTH + enough)
    told = f"it was worth {worth} and serving it cost {cost} just then"
    did = DID[Action(d.action)]
    return (
        f"{told}; from a worth of {least} on, it would not have been {did}."
        if least
        else f"{told}."
    )


def _risk(d: Decision, thresholds: Thresholds | None) -> str:
    own, did = d.risk or 0.0, DID[Action(d.action)]
    risk = units.figure(d.risk)
    if thresholds is None:
        return f"risk {risk}."
    if Reason(d.reason) == Reason.VALUE_LOW and (worth := _worth(d, thresholds.worth)):
        return worth
    # One band: the same action at every risk, so naming a threshold would be false.
    if len(thresholds.bands) == 1:
        return f"risk {risk} played no part: at any other it would have been {did} too."
    if Action(d.action) == Action.ADMIT or thresholds.up is None:
        following = next(((r, a) for r, a in thresholds.bands if r > own), None)
        if following is None:
            return f"risk {risk}."
        risk, cut = units.cut_figures(own, following[0])
        if Action(d.action) != Action.ADMIT:
            # The risk did not cause the refusal: below the next threshold all risks get this
            # action.
            return f"risk {risk} played no part: at any below {cut} it would have been {did} too."
        then = DID[Action(following[1])]
        return f"risk {risk}, below the {cut} from which it would have been {then}."
    risk, cut = units.cut_figures(own, thresholds.up)
    # The bucket lacked room for this risk only if every lower risk would have been admitted.
    admitted_below = thresholds.bands[0][1] == Action.ADMIT and thresholds.bands[1][0] == (
        thresholds.up
    )
    if Reason(d.reason) == Reason.BURST_EXHAUSTED and admitted_below:
        return f"its bucket had no room at risk {risk}; below {cut} it would have been admitted."
    # The headline says how short of room it was.
    short = f"{d.service} was short of room; " if Action(d.action) == Action.SHED else ""
    return f"{short}risk {risk}, at or above the {cut} from which this request is {did}."
