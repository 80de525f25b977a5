"""Every limit that a request was checked against, not only the one that fired, with its state
before and after the decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decider import policy
from decider.contracts import units
from decider.contracts.config import Config
from decider.contracts.event import Event
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import service_is_short
from decider.contracts.units import cut_figures, figure, price_figure
from decider.contracts.vocabulary import Action, MlState, Reason, Stage
from decider.engine.shared.tenant_use import USE_TAU_S
from decider.whatif import replay
from decisions.reason_text import find_telling_reason

# The limit that each machine reason is about. It lists every reason that the policy function can
# return; NONE is not among them.
FIRED: dict[Reason, str] = {
    Reason.COMPLIANCE: "lists",
    Reason.BLOCK_LISTED: "lists",
    Reason.ALLOW_LISTED: "lists",
    Reason.QUOTA_EXHAUSTED: "quota",
    Reason.LEASE_AWAITED: "quota",
    Reason.UNKNOWN_APP: "unknown",
    Reason.OVERRIDE_ADMIT: "override",
    Reason.OVERRIDE_REFUSE: "override",
    Reason.BURST_EXHAUSTED: "bucket",
    Reason.RISK_HIGH: "risk",
    Reason.RISK_LOW: "risk",
    Reason.VALUE_HIGH: "value",
    Reason.VALUE_LOW: "value",
    Reason.SERVICE_OVERLOADED: "service",
    Reason.TENANT_OVER_SHARE: "share",
    Reason.ERROR_BUDGET_SPENT: "budget",
    Reason.WAITED: "service",
    Reason.TOKENS_EMPTY: "bucket",
    Reason.TOKENS_LEFT: "bucket",
    Reason.HARMLESS: "cheap",
}
# "below" and "over" only warn: most of these limits weigh in the decision and do not refuse alone.
LEVELS = {
    "within": "ok",
    "model asked": "ok",
    "below": "warn",
    "over": "warn",
    "spent": "bad",
    "not asked": "off",
}


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and the request's place against it. All figures are formatted text."""

    key: str
    """Name of the limit, as in the values of FIRED."""
    stage: str
    label: str
    before: str
    """State when the request arrived."""
    limit: str
    after: str
    """State after the decision; a dash when the decision does not move it."""
    word: str
    """within, below, over, spent, not asked or model asked."""
    fired: bool
    """Whether the decision's reason is this limit, or the cause that is told."""

    @property
    def level(self) -> str:
        return LEVELS[self.word]


def evaluate_limits(event: Event, config: Config, cut: float | None = None) -> list[Limit]:
    """Return every limit in the order of the stages. `cut` is the risk (0..1) at which the action
    begins, None when no risk would change it. Raises ReplayError when the record cannot be read.
    """
    signals, features = replay.vectors(event)
    see = {name: float(signals[k]) for name, k in S.items()}
    # Observe-only passes every request on, so counters moved as for an admit.
    admitted = event.action == Action.ADMIT or event.observed
    cheap_score = float(policy.cheap_score(features, signals))
    rows = [
        _quota(see, admitted),
        _lists(see),
        _unknown(see),
        _override(see),
        _bucket(event, see, admitted),
        _cheap(event, cheap_score, config.tiers[event.tier].rank_from),
        _risk(event, cut),
        _value(event, signals, see),
        _service(event, config, see),
        _share(event, see, admitted),
        _budget(event, config, signals, see, admitted),
    ]
    # A request that was shed for its risk hit two: the risk, and the service's shortness of room,
    # which is what everyone is told.
    fired = {
        FIRED.get(Reason(event.reason)),
        FIRED.get(find_telling_reason(event.action, event.reason)),
    }
    return [Limit(*row, row[0] in fired) for row in rows]


# Key, stage, label, before, limit, after, word.
_Row = tuple[str, str, str, str, str, str, str]


def _quota(see: dict[str, float], admitted: bool) -> _Row:
    left = see["quota_left"]
    after = left - 1.0 if admitted else left
    # A request takes one whole unit, so a fraction left is spent.
    word = "within" if left >= 1.0 else "spent"
    more = "more may be leased" if see["lease_due"] > 0.0 else "all deciders"
    limit = f"{units.plan_figure(see['quota_limit'])} a day, {more}"
    label = "This decider’s share of the quota, left"
    return (
        "quota",
        Stage.GUARD.label,
        label,
        units.whole_left(left),
        limit,
        units.whole_left(after),
        word,
    )


def _lists(see: dict[str, float]) -> _Row:
    found = (
        "compliance rule"
        if see["compliance"] > 0
        else {1: "allow list", 2: "block list"}.get(int(see["list_verdict"]), "none")
    )
    word = "within" if found in ("none", "allow list") else "over"
    return "lists", Stage.GUARD.label, "Lists and compliance", found, "none", found, word


def _unknown(see: dict[str, float]) -> _Row:
    wait = see["unknown_wait"]
    # The record holds the wait for the next request, but not how many are left now.
    found, word = ("at least 1", "within") if wait <= 0.0 else ("none", "spent")
    after = "–" if wait <= 0.0 else f"more in {units.wait_span(wait)}"
    label = "Requests left for unknown apps"
    return "unknown", Stage.GUARD.label, label, found, "set in the config", after, word


def _override(see: dict[str, float]) -> _Row:
    action, times = int(see["override_action"]), see["override_multiplier"]
    stretched = f"plan × {units.plan_figure(times)}" if times != 1 else "none"
    found = Action(action).word if action >= 0 else stretched
    return (
        "override",
        Stage.OVERRIDE.label,
        "Override in force",
        found,
        "none",
        found,
        "over" if action > 0 else "within",
    )


def _bucket(event: Event, see: dict[str, float], admitted: bool) -> _Row:
    tokens, burst = see["tokens"], see["bucket_burst"]
    # With ML live the bucket may go below zero, as far as the app has headroom.
    headroom = burst - see["headroom_withheld"] if event.ml_state == MlState.LIVE else 0.0
    after = max(-burst, tokens - 1.0) if admitted else tokens
    spent = tokens < 1.0 and tokens <= 1.0 - headroom
    word = "spent" if spent else "over" if tokens < 1.0 else "within"
    limit = f"{units.plan_figure(burst)}, refills {units.plan_figure(see['bucket_rate'])}/s"
    if event.ml_state == MlState.LIVE:
        limit += f", headroom {units.plan_figure(max(0.0, headroom))}"
    stage = Stage.TRIAGE if event.ml_state == MlState.LIVE else Stage.FALLBACK
    return (
        "bucket",
        stage.label,
        "Tokens in the burst bucket",
        units.bucket_left(tokens),
        limit,
        units.bucket_left(after),
        word,
    )


def _cheap(event: Event, score: float, rank_from: float) -> _Row:
    # Without a live model nothing is ranked, so the score had no say.
    asked = event.ml_state == MlState.LIVE
    word = "not asked" if not asked else "model asked" if score >= rank_from else "within"
    return (
        "cheap",
        Stage.TRIAGE.label,
        "Quick score",
        figure(score),
        f"the model is asked from {figure(rank_from)}",
        "–",
        word,
    )


def _risk(event: Event, cut: float | None) -> _Row:
    if event.risk is None:
        return "risk", Stage.RANK.label, "Risk", "none", "no model was asked", "–", "not asked"
    if cut is None:
        return (
            "risk",
            Stage.RANK.label,
            "Risk",
            figure(event.risk),
            "no risk would change it",
            "–",
            "within",
        )
    word = "over" if event.risk >= cut else "within"
    risk, at = cut_figures(event.risk, cut)
    return "risk", Stage.RANK.label, "Risk", risk, f"changes at {at}", "–", word


def _value(event: Event, signals: np.ndarray, see: dict[str, float]) -> _Row:
    """Return the row of the request's worth, beside the worth that is assumed without a model and
    the cost of serving it at the recorded price.
    """
    label = "Worth of the request"
    # Without a value the model was not asked, and the worth decided nothing.
    if event.value is None:
        return "value", Stage.RANK.label, label, "none", "no model was asked", "–", "not asked"
    cost, base = serving_cost(signals, see), policy.BASE_WORTH
    worth, usual = units.told_apart(base + event.value, base + see["prior_value"])
    limit = f"{usual} is usual, {_serving(cost, see)}"
    # Where nothing is scarce, a low value decides nothing.
    low = event.value < see["prior_value"] or base + event.value < cost
    word = "below" if low and cost > 0.0 and service_is_short(see) else "within"
    return "value", Stage.RANK.label, label, worth, limit, "–", word


def serving_cost(signals: np.ndarray, see: dict[str, float]) -> float:
    """Return what serving a request cost at the price of its tenant, in ordinary requests, as its
    worth is. `see`: the signals by name.
    """
    return float(policy.price_for(signals, policy.USE_ALL)) * see["cost"]


def _serving(cost: float, see: dict[str, float]) -> str:
    """Return as a clause what serving a request costs, and why it costs nothing at a price."""
    if cost > 0.0:
        return f"serving it costs {price_figure(cost)} now"
    if service_is_short(see) and see["service_price"] > 0.0:
        return "serving it costs nothing, as its tenant uses less than its share"
    return "serving it costs nothing now"


def _service(event: Event, config: Config, see: dict[str, float]) -> _Row:
    service = next((s for s in config.services if s.name == event.service), None)
    limit = (
        "not known"
        if service is None
        else f"holds {units.plan_figure(service.target * 100)}% of"
        f" {units.plan_figure(service.capacity)} units/s when short"
    )
    load, price = see["service_utilisation"], see["service_price"]
    if price > 0.0 and not service_is_short(see):
        limit += f"; not for this one, {_why_unpriced(see)}"
    shown = f"{price_figure(price) if price > 0 else 'none'} at {load * 100:.0f}% load"
    return (
        "service",
        Stage.RERANK.label,
        f"Price of {event.service}",
        shown,
        limit,
        "–",
        "over" if service_is_short(see) else "within",
    )


# Cost units a second below which a load is shown as 0. Chosen: an average that decays never gets
# there, and nobody reads twenty zeros.
_LEAST_LOAD = 0.001


def _why_unpriced(see: dict[str, float]) -> str:
    """Return as a clause why the price of a short service does not count for a request."""
    if see["waited"] > 0.0:
        return "which had waited as told"
    return "as all demand of its tier and those above fits"


def _share(event: Event, see: dict[str, float], admitted: bool) -> _Row:
    # what rounds to none is none: an idle tenant is over no share
    use, fair = (
        0.0 if load < _LEAST_LOAD else load
        for load in (see["tenant_usage"], see["tenant_fair_share"])
    )
    # Usage is an exponential average, in which a request of cost c adds c over the time constant.
    after = use + (see["cost"] / USE_TAU_S if admitted else 0.0)
    # The fair share is infinite while the demand of the tier and of those above it fits.
    limited = math.isfinite(fair)
    was, now, share = _loads(use, after, fair if limited else use)
    limit = f"{share} units/s" if limited else "none, demand fits"
    if limited and fair == 0.0:
        limit = "nothing, higher tiers took all"
    # If even six decimals read the same, a reader sees no excess.
    word = "over" if limited and use > fair and was != share else "within"
    return (
        "share",
        Stage.RERANK.label,
        "Tenant’s use, at this decider",
        f"{was} units/s",
        limit,
        f"{now} units/s",
        word,
    )


def _loads(*loads: float) -> tuple[str, ...]:
    """Return loads as text with one decimal, or two where one of them is below ten, so that who
    divides them gets what the headline says. If one is too small for that, return all with as many
    digits, two or more, as tell them apart.
    """
    small = any(0.0 < load < 10.0 for load in loads)
    texts = units.told_apart(*loads, places=2 if small else 1)
    if any(0.0 < load < 0.05 for load in loads):
        for count in range(2, units.MOST_PLACES + 1):
            texts = tuple(units.digits(load, count) for load in loads)
            if len(set(texts)) >= len(set(loads)):
                break
    return texts


def _budget(
    event: Event, config: Config, signals: np.ndarray, see: dict[str, float], admitted: bool
) -> _Row:
    left, label = see["error_budget_left"], "Error budget left, in wrong refusals"
    if math.isinf(left):
        return "budget", Stage.RERANK.label, label, "–", "none", "–", "within"
    rate, wrong = see["error_budget_rate"], 0.0 if event.risk is None else 1.0 - event.risk
    # Old records hold the error budget as refusals an hour, new ones as a share of the requests.
    limit = (
        f"{units.one_in(rate)} of its requests"
        if rate > 0.0
        else f"{units.plan_figure(config.tiers[event.tier].error_budget_per_hour)} an hour"
    )
    word = "within" if left >= (wrong if rate > 0.0 else 1.0) else "spent"
    spared = "" if admitted else _spared(event, signals, rate)
    if admitted or spared:
        wrong = 0.0
    before, less, after = _subtract(left, wrong)
    takes = "" if admitted else f"; this refusal takes {less}, its chance of being wrong"
    if spared:
        takes = f"; this refusal takes none: {spared}"
    return "budget", Stage.RERANK.label, label, before, limit + takes, after, word


def _subtract(left: float, wrong: float) -> tuple[str, str, str]:
    """Return `left`, `wrong` and their difference, at least 0, as text: with two digits, or with as
    many as it takes for a reader who subtracts the first two to get the third.
    """
    after = max(0.0, left - wrong)
    for places in range(2, units.MOST_PLACES + 1):
        before, less, rest = (f"{value:.{places}f}" for value in (left, wrong, after))
        if f"{max(0.0, float(before) - float(less)):.{places}f}" == rest:
            break
    return before, less, rest


def _spared(event: Event, signals: np.ndarray, rate: float) -> str:
    """Return why a refusal takes nothing from the error budget, "" where it does.

    A ranked refusal takes its chance of being wrong, which is one minus the risk.
    """
    if event.stage == Stage.OVERRIDE:
        return "an operator’s override decided"
    if event.risk is None:
        return "no model ranked it"
    if rate > 0.0 and policy.headroom_spent(signals):
        return "the plan was used up"
    return ""
