"""Replay: a stored decision made again from its own record. The same compiled policy function and
the same model give the same answer.

It also answers questions about the decision: at which risk the action would have changed, and what
each stage found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from decider import policy
from decider.contracts.config import Config
from decider.contracts.event import Event
from decider.contracts.features import N_FEATURES, SCHEMA
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import unpack
from decider.contracts.vocabulary import ML_STATE_TEXT, REASONS, Action, MlState, Reason, Stage
from decider.engine.lists import VERDICTS
from decider.scoring.model import Model
from decider.whatif.plan import lists_of

# Equal parts of the risks 0 to 1 that `threshold` scans. Chosen: enough to miss only an action that
# comes and goes within 1/64 of risk, and few enough to answer at once.
_STEPS = 64
# Halvings of one part: 1/64 * 2^-48 is below the spacing of float64 near 1, so the bound is exact.
_HALVINGS = 48


class ReplayError(Exception):
    """A record that cannot be decided again here: another feature schema, or a vector of the wrong
    length.
    """


class Again(NamedTuple):
    """A decision made again from its record."""

    action: int
    stage: int
    reason: int
    retry_after: float
    risk: float | None
    value: float | None
    identical: bool
    """From `decide_again`: action, stage, reason, wait and both scores equal the record, to the
    bit. From `decide_under`: the action equals the record's.
    """


class Thresholds(NamedTuple):
    """The risks at which a ranked request's action changes, with everything else as it was."""

    bands: list[tuple[float, int]]
    """(risk from which, action), ascending, the first from 0."""
    up: float | None
    """The nearest change at or below the request's own risk: the risk from which its action holds.
    None when that is 0.
    """
    down: float | None
    """The nearest change above the request's own risk. None when its action holds up to 1."""
    worth: float | None = None
    """The value score from which on a refused request would not have had its action; None where no
    value within _MOST_WORTH would have changed it.
    """


class StageTrace(NamedTuple):
    """The findings of one stage."""

    stage: Stage
    ran: bool
    action: int | None
    """The action that the stage asked for, None when it let the request pass."""
    decisive: bool
    facts: dict[str, float | str]
    """Figures that the stage looked at, by signal or field name; texts where a figure has no
    meaning.
    """


def vectors(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """Return signals, float64 (N_SIGNALS,), and features, float32 (N_FEATURES,), of a record. Raise
    ReplayError when it was made under another feature schema or a vector has the wrong length.
    """
    # Features keep their places only within one schema, so another one cannot be read by position.
    if event.feature_schema != SCHEMA:
        raise ReplayError(
            f"recorded under feature schema {event.feature_schema[:40]}, but this version has"
            f" {SCHEMA}; only a version with the same schema can replay it"
        )
    try:
        signals, features = unpack(event.signals), np.frombuffer(event.features, "<f4").copy()
    except ValueError as error:
        raise ReplayError(str(error)) from error
    if len(features) != N_FEATURES:
        raise ReplayError(f"the record holds {len(features)} features, expected {N_FEATURES}")
    return signals, features


def _scores(event: Event, features: np.ndarray, model: Model | None) -> tuple[float, float]:
    """Return risk and value: computed again when `model` is given, else as recorded. Both are NaN
    when no model was asked.
    """
    if event.risk is None or event.value is None:
        return math.nan, math.nan
    if model is None:
        return event.risk, event.value
    scores = model.score(features[None, :])
    return float(scores.risk[0]), float(scores.value[0])


def _same(a: float | None, b: float) -> bool:
    return (a is None and math.isnan(b)) or a == b


def decide_again(event: Event, config: Config, model: Model | None) -> Again:
    """Decide the record under `config`. With the record's own config and model, the result must be
    identical. Raise ReplayError as `vectors` does.
    """
    signals, features = vectors(event)
    risk, value = _scores(event, features, model)
    action, stage, reason, wait = policy.decide(
        signals, features, risk, value, policy.rules_of(config)
    )
    if event.reason == Reason.TENANT_OVER_SHARE and signals[S["tenant_fair_share"]] <= 0.0:
        # older records name the tenant where its fair share was 0; newer ones name the service
        reason = int(event.reason) if reason == Reason.SERVICE_OVERLOADED else reason
    identical = (action, stage, reason, wait) == (
        event.action,
        event.stage,
        event.reason,
        event.retry_after,
    )
    identical = identical and _same(event.risk, risk) and _same(event.value, value)
    shown = (None if math.isnan(risk) else risk, None if math.isnan(value) else value)
    return Again(action, stage, reason, wait, *shown, identical)


def decide_under(
    event: Event,
    config: Config,
    model: Model | None,
    *,
    ml_state: MlState | None = None,
    with_lists: bool = False,
) -> Again:
    """Decide the recorded request under another config or model, with tier limits from that config.

    `with_lists`: also with that config's rules about the app and its tenant in place of those that
    were recorded. Rules about addresses stay out: a record holds no address.

    `ml_state` replaces the recorded state of ML, for example SWITCHED_OFF to preview a kill switch.
    A request that was not ranked then and would be now is scored when `model` is given; otherwise
    the fallback limiter decides it. Raise ReplayError as `vectors` does.
    """
    signals, features = vectors(event)
    rules = policy.rules_of(config)
    tier, times = int(signals[S["tier"]]), signals[S["override_multiplier"]]
    signals[S["bucket_rate"]] = rules.tiers[tier, policy.T_RATE] * times
    burst = signals[S["bucket_burst"]] = rules.tiers[tier, policy.T_BURST] * times
    signals[S["headroom_withheld"]] = policy.withheld(burst, tier, features, rules)
    # The recorded hint was forecast under the old config and model, so it does not hold here.
    signals[S["retry_hint"]] = 0.0
    if with_lists:
        found = lists_of(config, app=event.app, tenant=event.tenant, now=event.at)
        verdicts = {entry.verdict for entry in found}
        signals[S["compliance"]] = float("compliance" in verdicts)
        # a block outweighs an allow
        signals[S["list_verdict"]] = max(
            (VERDICTS[verdict] for verdict in verdicts - {"compliance"}), default=0.0
        )
    if ml_state is not None:
        signals[S["ml_state"]] = float(ml_state)
    risk = value = math.nan
    if policy.wants_rank(signals, features, rules):
        if model is not None:
            scores = model.score(features[None, :])
            risk, value = float(scores.risk[0]), float(scores.value[0])
        elif event.risk is not None and event.value is not None:
            risk, value = event.risk, event.value
    action, stage, reason, wait = policy.decide(signals, features, risk, value, rules)
    shown = (None if math.isnan(risk) else risk, None if math.isnan(value) else value)
    return Again(action, stage, reason, wait, *shown, action == event.action)


def _bands(action_at: Callable[[float], int]) -> list[tuple[float, int]]:
    """Return (risk from which, action), ascending from 0, of a function from risk to action."""
    bands = [(0.0, action_at(0.0))]
    points = [k / _STEPS for k in range(_STEPS + 1)]
    for left, right in pairwise(points):
        # A part can hold more than one change, so look again from the change just found.
        while action_at(right) != bands[-1][1]:
            low, high, before = max(left, bands[-1][0]), right, bands[-1][1]
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if action_at(middle) == before else (low, middle)
            bands.append((high, action_at(high)))
            left = high
            if high >= right:
                break
    return bands


def threshold(event: Event, config: Config, model: Model | None = None) -> Thresholds | None:
    """Return the risks at which the action changes, found by scan and bisection of the policy
    function.

    None when no model was asked, because then no risk would have changed anything. Raise
    ReplayError.
    """
    if event.risk is None or event.value is None:
        return None
    signals, features = vectors(event)
    rules, value = policy.rules_of(config), event.value
    bands = _bands(lambda risk: int(policy.decide(signals, features, risk, value, rules)[0]))
    begins = [risk for risk, _ in bands[1:]]
    return Thresholds(
        bands,
        up=max((r for r in begins if r <= event.risk), default=None),
        down=min((r for r in begins if r > event.risk), default=None),
        worth=_worth_from(event, signals, features, rules),
    )


# Value scores above a request's own up to which a change is looked for. Chosen: ten ordinary
# requests, and no model says as much of one.
_MOST_WORTH = 10.0


def _worth_from(
    event: Event, signals: np.ndarray, features: np.ndarray, rules: policy.Rules
) -> float | None:
    """Return the value from which on a refusal would have been another action, by scan and
    bisection of the policy function.
    """
    assert event.risk is not None and event.value is not None
    risk, action = event.risk, event.action
    if action == Action.ADMIT:
        return None

    def holds(value: float) -> bool:
        return int(policy.decide(signals, features, risk, value, rules)[0]) == action

    points = [event.value + _MOST_WORTH * k / _STEPS for k in range(_STEPS + 1)]
    for low, high in pairwise(points):
        if holds(low) and not holds(high):
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if holds(middle) else (low, middle)
            return high
    return None


# The recorded signals that each stage looks at, by name, in the order in which they are shown.
_LOOKS_AT: dict[Stage, tuple[str, ...]] = {
    Stage.GUARD: ("quota_left", "quota_limit", "list_verdict", "compliance", "unknown_wait"),
    Stage.OVERRIDE: ("override_action", "override_multiplier"),
    Stage.TRIAGE: (
        "tokens",
        "bucket_rate",
        "bucket_burst",
        "headroom_withheld",
        "service_price",
    ),
    Stage.RANK: ("prior_risk", "prior_value"),
    Stage.RERANK: (
        "service_price",
        "service_utilisation",
        "tenant_usage",
        "tenant_fair_share",
        "error_budget_left",
        "cost",
        "waited",
    ),
    Stage.FALLBACK: ("tokens", "bucket_rate", "bucket_burst"),
}


class _Course(NamedTuple):
    """The way that a request took through the stages."""

    settled: bool
    """A guard decided it."""
    ml_live: bool
    ranked: bool
    """A model scored it."""
    fell_back: bool
    """The fallback limiter decided it."""

    @property
    def harmless(self) -> bool:
        """Triage admitted it."""
        return not (self.settled or self.ranked or self.fell_back) and self.ml_live


def trace(event: Event, config: Config) -> list[StageTrace]:
    """Return the findings of each stage, in order. Raise ReplayError."""
    signals, features = vectors(event)
    see = {name: float(signals[k]) for name, k in S.items()}
    guard = Reason(policy.guard_reason(signals))
    course = _course(event, see, settled=guard != Reason.NONE)
    actions = _actions(event, see, course, int(policy.guard_action(guard)))
    ran = {
        Stage.GUARD: True,
        Stage.OVERRIDE: not course.settled,
        Stage.TRIAGE: not course.settled and course.ml_live,
        Stage.RANK: course.ranked,
        Stage.RERANK: course.ranked,
        Stage.FALLBACK: course.fell_back,
    }
    rules = policy.rules_of(config)
    more: dict[Stage, dict[str, float | str]] = {
        Stage.GUARD: {"reason": REASONS[guard].text if course.settled else ""},
        Stage.TRIAGE: {
            "cheap_score": float(policy.cheap_score(features, signals)),
            "rank_from": float(rules.tiers[int(see["tier"]), policy.T_RANK_FROM]),
        },
        Stage.RANK: _scored(event),
        Stage.FALLBACK: {"why": _why_fallback(see, course)},
    }
    return [
        StageTrace(
            stage,
            ran[stage],
            actions.get(stage),
            stage == event.stage,
            {**{name: see[name] for name in names}, **more.get(stage, {})},
        )
        for stage, names in _LOOKS_AT.items()
    ]


def _course(event: Event, see: dict[str, float], *, settled: bool) -> _Course:
    ml_live, ranked = int(see["ml_state"]) == MlState.LIVE, event.risk is not None
    # With ML live, a request without a score went no further than triage. Any other one that no
    # guard settled had to be decided without ML.
    by_ml = ml_live and (ranked or event.stage == Stage.TRIAGE or event.reason == Reason.HARMLESS)
    return _Course(settled, ml_live, ranked, not settled and not by_ml)


def _actions(
    event: Event, see: dict[str, float], course: _Course, guard_action: int
) -> dict[Stage, int]:
    """Return what each stage asked for; a stage that let the request pass is missing."""
    actions: dict[Stage, int] = {}
    if course.settled:
        actions[Stage.GUARD] = guard_action
    if (forced := int(see["override_action"])) >= 0:
        actions[Stage.OVERRIDE] = forced
    if course.harmless:
        actions[Stage.TRIAGE] = int(Action.ADMIT)
    if course.ranked and event.stage in (Stage.RANK, Stage.RERANK):
        actions[Stage(event.stage)] = event.action
    if course.fell_back:
        actions[Stage.FALLBACK] = event.action
    return actions


def _scored(event: Event) -> dict[str, float | str]:
    if event.risk is None or event.value is None:
        return {}
    return {"risk": event.risk, "value": event.value}


def _why_fallback(see: dict[str, float], course: _Course) -> str:
    if course.ml_live and not course.fell_back:
        return ""
    return ML_STATE_TEXT[MlState(int(see["ml_state"]))]
