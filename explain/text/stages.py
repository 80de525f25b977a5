"""The stage trace in words: the finding of each stage, with the figures it looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from decider.contracts.units import figure, plan_figure, told_apart, two_digits, whole_left
from decider.contracts.vocabulary import Action, Stage
from decider.policy import BASE_WORTH
from decider.whatif.replay import StageTrace
from decisions.models import Decision


@dataclass(frozen=True, slots=True)
class TraceStep:
    """One stage as the page shows it."""

    label: str
    level: str
    """ok or off."""
    word: str
    """State of the stage in one or two words."""
    action: int | None
    """The action it decided; None when it was not the decisive stage."""
    detail: str
    decided: bool
    skipped: bool
    """Whether the request never came to this stage."""

    @property
    def decided_text(self) -> str:
        return "" if self.action is None else f"Decided: {Action(self.action).word}"


def describe_stages(found: list[StageTrace], decision: Decision) -> list[TraceStep]:
    """Return the trace of a decision, stage by stage."""
    return [_step(one, decision) for one in found]


def _step(one: StageTrace, d: Decision) -> TraceStep:
    detail = _DETAILS[one.stage](one.facts, d, one)
    decided = one.decisive
    # The fallback limiter replaces the other stages. When it did not run, it was not left out.
    level, word = (
        ("ok", _PASSED.get(one.stage, "Passed"))
        if one.ran
        else ("off", "Not used" if one.stage == Stage.FALLBACK else "Not asked")
    )
    return TraceStep(
        one.stage.label,
        level,
        word,
        d.action if decided else None,
        detail,
        decided,
        not one.ran and not decided,
    )


_PASSED = {Stage.TRIAGE: "Model asked", Stage.RANK: "Scored", Stage.RERANK: "Kept"}


def _n(facts: dict[str, float | str], name: str) -> float:
    # A fact that is missing or is text reads as NaN, so that a sentence never fails the page.
    value = facts.get(name, math.nan)
    return value if isinstance(value, float | int) else math.nan


def _guard(facts: dict[str, float | str], d: Decision, one: StageTrace) -> str:
    if reason := str(facts.get("reason", "")):
        return f"{reason[:1].upper()}{reason[1:]}."
    # "This decider", because each one leases a part, so the app may have more left.
    left, limit = _n(facts, "quota_left"), _n(facts, "quota_limit")
    count = whole_left(left)
    requests = f"{count} request{'' if count == '1' else 's'}"
    return (
        f"The daily quota of {plan_figure(limit)} requests is not used up: this decider has"
        f" {requests} of it in hand. No list or compliance rule."
    )


def _override(facts: dict[str, float | str], d: Decision, one: StageTrace) -> str:
    if not one.ran:
        return "Guard had settled it."
    if one.action is not None:
        return f"An override in force asks for {Action(one.action).word}."
    times = _n(facts, "override_multiplier")
    return (
        f"An override stretches its plan {plan_figure(times)} times."
        if times != 1
        else "None in force covers this app."
    )


def _triage(facts: dict[str, float | str], d: Decision, one: StageTrace) -> str:
    if not one.ran:
        return (
            "Guard had settled it."
            if d.stage == Stage.GUARD
            else "It asks the model, which could not be asked."
        )
    tokens = _n(facts, "tokens")
    # Below 1 token the bucket is empty, but the headroom begins only below 0.
    into = _into_headroom(facts, -tokens) if tokens < 0 else ""
    cheap = (
        f"Quick score {figure(_n(facts, 'cheap_score'))}; the model is asked from"
        f" {figure(_n(facts, 'rank_from'))}."
    )
    return f"Burst bucket: {_bucket(facts, into)} {cheap}"


def _into_headroom(facts: dict[str, float | str], below: float) -> str:
    """Return how far `below` empty the bucket is, tokens, and how far down it may go."""
    headroom = _n(facts, "bucket_burst") - _n(facts, "headroom_withheld")
    if headroom <= 0.0:
        return f", {two_digits(below)} below empty without a headroom"
    # The headroom may have shrunk since it admitted those requests.
    beyond = "beyond" if below > headroom else "into"
    return f", {two_digits(below)} {beyond} the headroom of {plan_figure(headroom)}"


def _bucket(facts: dict[str, float | str], into: str = "") -> str:
    """Return the bucket in words: whole tokens left, tokens when full, `into`, and its refill."""
    burst, rate = _n(facts, "bucket_burst"), _n(facts, "bucket_rate")
    held = f"{whole_left(_n(facts, 'tokens'))} of {plan_figure(burst)}"
    return f"{held}{into}, refills {plan_figure(rate)}/s."


def _rank(facts: dict[str, float | str], d: Decision, one: StageTrace) -> str:
    if not one.ran:
        return "No model was asked."
    prior = _n(facts, "prior_risk")
    worth = "" if d.value is None else f" Worth {figure(BASE_WORTH + d.value)}."
    return f"Risk {figure(d.risk)}, where its cohort has {figure(prior)}.{worth}"


def _rerank(facts: dict[str, float | str], d: Decision, one: StageTrace) -> str:
    if not one.ran:
        return "Nothing was ranked."
    load = f"{d.service} at {_n(facts, 'service_utilisation') * 100:.0f}% of capacity"
    price = _n(facts, "service_price")
    load += f", price {told_apart(price, 0.0)[0]}." if price > 0 else ", no price."
    # The fair share is infinite while all demand fits, and a multiple of it means nothing then.
    fair = _n(facts, "tenant_fair_share")
    share = ""
    if math.isfinite(fair) and fair > 0:
        times, _ = told_apart(_n(facts, "tenant_usage") / fair, 1.0, places=1)
        share = f" Tenant at {times} × its fair share."
    left = _n(facts, "error_budget_left")
    # Infinite where its tier has no budget.
    budget = f" Error budget left: {left:.2f} wrong refusals." if math.isfinite(left) else ""
    place = " It waited as it was told, so a place was kept for it." if _waited(facts) else ""
    return f"{load}{share}{budget}{place}"


def _waited(facts: dict[str, float | str]) -> bool:
    return _n(facts, "waited") > 0


def _fallback(facts: dict[str, float | str], d: Decision, one: StageTrace) -> str:
    why = str(facts.get("why", ""))
    why = f"{why[:1].upper()}{why[1:]}." if why else "ML was live."
    if not one.ran:
        return why
    return f"{why} Bucket: {_bucket(facts)}"


_DETAILS = {
    Stage.GUARD: _guard,
    Stage.OVERRIDE: _override,
    Stage.TRIAGE: _triage,
    Stage.RANK: _rank,
    Stage.RERANK: _rerank,
    Stage.FALLBACK: _fallback,
}
