"""Decides a stored decision again, from its own record: the same compiled policy function, the same
model, the same answer.

Also asks it questions: at which risk would the action have changed, and what did each stage find.
"""

from __future__ import annotations

import math
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
from decider.scoring.model import Model

_STEPS = 64


class ReplayError(Exception):
    """A record that cannot be decided again here: another feature schema, or a vector of the wrong
    length.
    """


class Again(NamedTuple):
    """A decision made again."""

    action: int
    stage: int
    reason: int
    retry_after: float
    risk: float | None
    value: float | None
    identical: bool
    """Action, stage, reason, wait and both scores equal the record, to the bit."""


class Thresholds(NamedTuple):
    """The risks at which a ranked request's action changes, with everything else as it was."""

    bands: list[tuple[float, int]]
    """(risk from which, action), ascending, the first from 0."""
    up: float | None
    """The nearest change at or below the request's own risk: where its action begins. None when it
    begins at 0.
    """
    down: float | None
    """The nearest change above it. None when its action goes on to 1."""


class StageTrace(NamedTuple):
    """What one stage found."""

    stage: Stage
    ran: bool
    action: int | None
    """What it asked for, None when it let the request pass."""
    decisive: bool
    facts: dict[str, float | str]
    """Figures it looked at, by signal or field name; texts where a figure has no meaning."""


def vectors(event: Event) -> tuple[np.ndarray, np.ndarray]:
    """(signals float64 (N_SIGNALS,), features float32 (N_FEATURES,)) of a record. Raises
    ReplayError.
    """
    if event.feature_schema != SCHEMA:
        raise ReplayError(
            f"recorded under feature schema {event.feature_schema[:40]}, this is {SCHEMA}"
        )
    try:
        signals, features = unpack(event.signals), np.frombuffer(event.features, "<f4").copy()
    except ValueError as error:
        raise ReplayError(str(error)) from error
    if len(features) != N_FEATURES:
        raise ReplayError(f"recorded {len(features)} features, expected {N_FEATURES}")
    return signals, features


def _scores(event: Event, features: np.ndarray, model: Model | None) -> tuple[float, float]:
    """Risk and value as recorded, or computed again when the model is at hand; NaN where no model
    was asked.
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
    """Decides the record under `config`; with its own config and model the result must be
    identical. Raises ReplayError.
    """
    signals, features = vectors(event)
    risk, value = _scores(event, features, model)
    action, stage, reason, wait = policy.decide(
        signals, features, risk, value, policy.rules_of(config)
    )
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
    event: Event, config: Config, model: Model | None, *, ml_state: MlState | None = None
) -> Again:
    """Decides the recorded request under another config or model, with tier limits taken from that
    config.

    `ml_state` replaces the recorded state of ML, for example SWITCHED_OFF to preview a kill switch.
    A request that was not ranked then and would be now is scored when `model` is given, else the
    fallback limiter decides it.
    """
    signals, features = vectors(event)
    rules = policy.rules_of(config)
    tier = int(signals[S["tier"]])
    signals[S["bucket_rate"]] = rules.tiers[tier, policy.T_RATE] * signals[S["override_multiplier"]]
    signals[S["bucket_burst"]] = (
        rules.tiers[tier, policy.T_BURST] * signals[S["override_multiplier"]]
    )
    signals[S["retry_hint"]] = 0.0
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


def threshold(event: Event, config: Config, model: Model | None = None) -> Thresholds | None:
    """The risks at which the action changes, found from the policy function by scan and bisection.

    None when no model was asked, because then no risk would have changed anything. Raises
    ReplayError.
    """
    if event.risk is None or event.value is None:
        return None
    signals, features = vectors(event)
    rules, value = policy.rules_of(config), event.value

    def action_at(risk: float) -> int:
        return int(policy.decide(signals, features, risk, value, rules)[0])

    bands = [(0.0, action_at(0.0))]
    points = [k / _STEPS for k in range(_STEPS + 1)]
    for left, right in pairwise(points):
        while action_at(right) != bands[-1][1]:
            low, high, before = max(left, bands[-1][0]), right, bands[-1][1]
            for _ in range(48):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if action_at(middle) == before else (low, middle)
            bands.append((high, action_at(high)))
            left = high
            if high >= right:
                break
    begins = [risk for risk, _ in bands[1:]]
    return Thresholds(
        bands,
        up=max((r for r in begins if r <= event.risk), default=None),
        down=min((r for r in begins if r > event.risk), default=None),
    )


def trace(event: Event, config: Config) -> list[StageTrace]:
    """What each stage found, in order. Raises ReplayError."""
    signals, features = vectors(event)
    rules = policy.rules_of(config)
    see = {name: float(signals[k]) for name, k in S.items()}
    guard = int(policy.guard_reason(signals))
    settled = guard != Reason.NONE
    ml_live = int(see["ml_state"]) == MlState.LIVE
    ranked = event.risk is not None
    fell_back = not settled and not (
        ml_live and (ranked or event.stage == Stage.TRIAGE or event.reason == Reason.HARMLESS)
    )
    stage = Stage(event.stage)

    def found(
        which: Stage, ran: bool, action: int | None, names: tuple[str, ...], **more: float | str
    ) -> StageTrace:
        return StageTrace(
            which, ran, action, which == stage, {**{n: see[n] for n in names}, **more}
        )

    forced = int(see["override_action"])
    guard_action = policy.guard_action(guard)
    harmless = not settled and ml_live and not ranked and not fell_back
    tier = int(see["tier"])
    cheap: dict[str, float | str] = {
        "cheap_score": float(policy.cheap_score(features, signals)),
        "rank_from": float(rules.tiers[tier, policy.T_RANK_FROM]),
    }
    rank_facts: dict[str, float | str] = (
        {}
        if event.risk is None or event.value is None
        else {"risk": event.risk, "value": event.value}
    )
    return [
        found(
            Stage.GUARD,
            True,
            guard_action if settled else None,
            ("quota_left", "quota_limit", "list_verdict", "compliance"),
            reason=REASONS[Reason(guard)].text if settled else "",
        ),
        found(
            Stage.OVERRIDE,
            not settled,
            forced if forced >= 0 else None,
            ("override_action", "override_multiplier"),
        ),
        found(
            Stage.TRIAGE,
            not settled and ml_live,
            int(Action.ADMIT) if harmless else None,
            ("tokens", "bucket_rate", "bucket_burst", "service_price"),
            **cheap,
        ),
        found(
            Stage.RANK,
            ranked,
            event.action if ranked and stage == Stage.RANK else None,
            ("prior_risk", "prior_value"),
            **rank_facts,
        ),
        found(
            Stage.RERANK,
            ranked,
            event.action if ranked and stage == Stage.RERANK else None,
            (
                "service_price",
                "service_utilisation",
                "tenant_usage",
                "tenant_fair_share",
                "error_budget_left",
                "cost",
            ),
        ),
        found(
            Stage.FALLBACK,
            fell_back,
            event.action if fell_back else None,
            ("tokens", "bucket_rate", "bucket_burst"),
            why=ML_STATE_TEXT[MlState(int(see["ml_state"]))] if fell_back or not ml_live else "",
        ),
    ]
