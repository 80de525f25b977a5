"""The policy: one pure, compiled function from (signals, features, scores, rules) to an action.

It serves the online path, the replay of a stored decision, and every "what if". It reads no clock
and no state: two calls with the same arguments give the same answer, to the bit.

Utility of an action `a` for a request of risk `r` and value `v` at price `p` per cost unit:

    U(a) = (1 - r) * ((0.5 + v) * keep[a] - friction[a] * F)
           - r * harm * leak[a] - (p * cost + overrun) * load[a]

`F` is the tier's friction; `overrun` grows as the app goes into the headroom above its burst. A
request is admitted whatever its utility where one more refusal, wrong with probability `1 - r`,
would overspend the app's false-throttle error budget (`budget_spares`). Below enterprise, this does
not hold while the service is far short of room (`error_budget_rate`). `U` is the expected utility
of a classification with asymmetric costs (Elkan, 2001, "The foundations of cost-sensitive
learning") with a congestion price (Kelly, Maulloo and Tan, 1998).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from decider.contracts import feature_columns as f
from decider.contracts.config import Config, error_budget_of
from decider.contracts.signals import INDEX as S
from decider.contracts.vocabulary import Action, MlState, Reason, Stage, Tier

# Plain ints: compiled code stores them in arrays and compares them with what it reads there.
ADMIT, DEFER, BATCH, SHED, BLOCK = (int(a) for a in Action)
NO_WAIT = tuple(int(a) for a in Action if not a.waits)
GUARD, OVERRIDE, TRIAGE, RANK, RERANK, FALLBACK = (int(s) for s in Stage)
ENTERPRISE = int(Tier.ENTERPRISE)
ML_LIVE, ML_BAD_SCORE = int(MlState.LIVE), int(MlState.BAD_SCORE)
NO_REASON, COMPLIANCE, BLOCK_LISTED, ALLOW_LISTED = (
    int(Reason.NONE),
    int(Reason.COMPLIANCE),
    int(Reason.BLOCK_LISTED),
    int(Reason.ALLOW_LISTED),
)
QUOTA_EXHAUSTED, LEASE_AWAITED, UNKNOWN_APP, OVERRIDE_ADMIT, OVERRIDE_REFUSE = (
    int(Reason.QUOTA_EXHAUSTED),
    int(Reason.LEASE_AWAITED),
    int(Reason.UNKNOWN_APP),
    int(Reason.OVERRIDE_ADMIT),
    int(Reason.OVERRIDE_REFUSE),
)
HARMLESS, BURST_EXHAUSTED = int(Reason.HARMLESS), int(Reason.BURST_EXHAUSTED)
RISK_LOW, RISK_HIGH, VALUE_HIGH, VALUE_LOW = (
    int(Reason.RISK_LOW),
    int(Reason.RISK_HIGH),
    int(Reason.VALUE_HIGH),
    int(Reason.VALUE_LOW),
)
SERVICE_OVERLOADED, TENANT_OVER_SHARE = (
    int(Reason.SERVICE_OVERLOADED),
    int(Reason.TENANT_OVER_SHARE),
)
ERROR_BUDGET_SPENT, WAITED, TOKENS_LEFT, TOKENS_EMPTY = (
    int(Reason.ERROR_BUDGET_SPENT),
    int(Reason.WAITED),
    int(Reason.TOKENS_LEFT),
    int(Reason.TOKENS_EMPTY),
)

S_TIER, S_ML, S_LIST, S_COMPLIANCE = S["tier"], S["ml_state"], S["list_verdict"], S["compliance"]
S_QUOTA_LEFT, S_QUOTA_RESET, S_OVERRIDE = S["quota_left"], S["quota_reset"], S["override_action"]
S_TOKENS, S_RATE, S_BURST, S_COST, S_BATCHABLE = (
    S["tokens"],
    S["bucket_rate"],
    S["bucket_burst"],
    S["cost"],
    S["batchable"],
)
S_PRICE, S_USAGE, S_FAIR, S_BUDGET, S_BUDGET_RATE = (
    S["service_price"],
    S["tenant_usage"],
    S["tenant_fair_share"],
    S["error_budget_left"],
    S["error_budget_rate"],
)
S_PRIOR_RISK, S_PRIOR_VALUE, S_RETRY_HINT, S_LEASE, S_UNKNOWN_WAIT, S_WITHHELD, S_WAITED = (
    S["prior_risk"],
    S["prior_value"],
    S["retry_hint"],
    S["lease_due"],
    S["unknown_wait"],
    S["headroom_withheld"],
    S["waited"],
)

# columns of Rules.tiers
(
    T_RATE,
    T_BURST,
    T_QUOTA,
    T_WEIGHT,
    T_FRICTION,
    T_HARM,
    T_HOURLY_BUDGET,  # used only for old records, from before the budget was a rate
    T_RANK_FROM,
    T_HEADROOM,
    T_HEADROOM_TO_ALL,
    T_ERROR_BUDGET,
) = range(11)
# rows of Rules.actions
A_KEEP, A_LEAK, A_LOAD, A_FRICTION = range(4)

# Worth of a request of value 0, in ordinary requests. Chosen: a client waits for its answer, so
# even that is worth half an ordinary one.
BASE_WORTH = 0.5
# Utility that admitting costs at the bottom of the headroom, where admitting ends altogether.
# Chosen: a little more than the worth of a request of value 0 (0.5), so only useful ones get that
# far.
OVERRUN_COST = 0.6
# Days of age that are proof of honesty. Chosen: an app made for abuse is used within its first
# month.
PROVEN_AFTER_DAYS = 30.0
# Largest shares of sign-ins and of writes with which an app can be proven honest. Chosen: even a
# portal's sign-ins and a bookkeeper's writes are seldom a larger share of its requests.
PROVEN_SIGN_INS, PROVEN_WRITES = 0.5, 0.9
# Price from which a service is far short of room, at most `service_control.PRICE_MAX` (4). Chosen:
# in the referee's usual world, where nothing fails, prices end below it; in a rush they pass it
# within seconds.
HIGH_PRICE = 2.0
# Tokens that errors of rounding may amount to. Chosen: many times those of a burst of 10^9, and a
# millionth of a request.
ROUNDING = 1e-6
# Longest wait, seconds: two windows of ten minutes. After such a silence, nothing that an app did
# counts against it any more. Equal to the longest of `buffers.WAITS`.
LONGEST_WAIT_S = 1_200.0
# Chosen: nobody knows when an operator lifts an override, so the app asks again once a minute.
BLOCK_DEFER_S = 60.0
# Seconds to wait per unit of a service's price. Chosen: once a service is no longer short of room,
# its price loses one unit in that time.
SHED_WAIT_S = 4.0

# Bits: which findings a call may use. All are used when deciding, fewer when asking which finding
# was decisive.
USE_TRIAGE, USE_PRICE, USE_SHARE, USE_BUDGET, USE_WAITED = 1, 2, 4, 8, 16
USE_RERANK = USE_PRICE | USE_SHARE | USE_BUDGET | USE_WAITED
USE_ALL = USE_TRIAGE | USE_RERANK


class Rules(NamedTuple):
    """What the policy function needs of a config document."""

    tiers: np.ndarray
    """float64 (4, 11): a row per tier."""
    actions: np.ndarray
    """float64 (4, 5): keep, leak, load and friction of each action."""


def rules_of(config: Config) -> Rules:
    """Return the numbers of a document in the layout that the policy function reads."""
    tiers = [
        (
            t.rate,
            t.burst,
            t.quota_per_day,
            t.weight,
            t.friction,
            t.harm,
            t.error_budget_per_hour,
            t.rank_from,
            t.headroom,
            t.headroom_to == "all",
            error_budget_of(config, tier),
        )
        for tier, t in enumerate(config.tiers)
    ]
    a = config.actions
    return Rules(
        np.array(tiers, np.float64), np.array([a.keep, a.leak, a.load, a.friction], np.float64)
    )


@njit(cache=True)
def cheap_score(features: np.ndarray, signals: np.ndarray) -> float:
    """Return triage's own score in [0, 1]: how much stands out without asking a model.

    It only chooses whom to rank and never refuses.
    """
    # All weights are chosen, by how rarely a harmless app shows the sign: half a point for
    # signs of credential stuffing and card testing, a hundredth where a busy app shows it too. Each
    # sign is capped, so that no figure without a bound decides alone.
    pace = features[f.RATE_10S] / max(signals[S_RATE], 1e-9)
    score = 0.5 * features[f.COHORT_PRIOR]
    # from half of the plan's rate on: below it, pace tells nothing
    score += 0.12 * min(2.0, max(0.0, pace - 0.5))
    spike = min(4.0, max(0.0, math.log2(max(features[f.BURST_RATIO], 1.0)) - 1.0))
    score += 0.04 * spike * min(1.0, 2.0 * pace)  # one request after a pause is not a spike
    score += (
        0.5 * features[f.AUTH_ERROR_SHARE_60S]
        + 0.5 * features[f.PAYMENT_ERROR_SHARE_60S]
        + 0.35 * features[f.NOT_FOUND_SHARE_60S]
    )
    score += (
        0.15 * features[f.CLIENT_ERROR_SHARE_60S]
        + 0.4 * features[f.EARLY_RETRY_SHARE_60S]
        + 0.25 * features[f.REFUSED_SHARE_60S]
        + 0.15 * features[f.RETRY_SHARE_60S]
    )
    # a few credentials, and some twenty resources a minute, are everyday use
    score += 0.01 * min(20.0, max(0.0, features[f.DISTINCT_TOKENS_60S] - 3.0))
    score += 0.004 * min(50.0, max(0.0, features[f.DISTINCT_PATHS_60S] - 20.0))
    # refusals found wrong speak for the app
    score += (
        0.15 * min(2.0, features[f.ABUSE_HISTORY])
        + 0.1 * min(2.0, features[f.CHARGEBACK_HISTORY])
        - 0.05 * min(2.0, features[f.FALSE_THROTTLE_HISTORY])
    )
    # days: an app made for abuse is used at once
    if features[f.APP_AGE] < 7.0:
        score += 0.05
    return min(1.0, max(0.0, score))


@njit(cache=True)
def busy(signals: np.ndarray) -> bool:
    """Return whether the service is short of room for the tenant's tier."""
    return is_short(signals[S_PRICE], signals[S_FAIR])


@njit(cache=True)
def is_short(price: float, fair: float) -> bool:
    """Return whether a service with this price has no room for a tier with this fair share."""
    return price > 0.0 and fair != np.inf


@njit(cache=True)
def error_budget_rate(signals: np.ndarray, rules: Rules) -> float:
    """Return the share of its requests that ML may refuse an app wrongly, 1 for no limit.

    While a service is far short of room, some requests must be refused, those of honest apps too.
    So only enterprise has a budget then. While it is short of room at all, no other app has one for
    what its tenant asks beyond its fair share.
    """
    tier = int(signals[S_TIER])
    beyond = signals[S_PRICE] >= HIGH_PRICE or signals[S_USAGE] > signals[S_FAIR]
    if tier != ENTERPRISE and beyond and busy(signals):
        return 1.0
    return float(rules.tiers[tier, T_ERROR_BUDGET])


@njit(cache=True)
def counts_load(signals: np.ndarray, use: int) -> bool:
    """Return whether a service that is short of room speaks against the request.

    It does not when the request was refused before and waited as it was told: a place was kept for
    it at the end of its Retry-After.
    """
    if not use & USE_PRICE or (use & USE_WAITED and signals[S_WAITED] > 0.0):
        return False
    return busy(signals)


@njit(cache=True)
def wants_rank(signals: np.ndarray, features: np.ndarray, rules: Rules) -> bool:
    """Return whether triage passes a request on to the model.

    It does when guard leaves the request open and the request is not plainly harmless.
    """
    if signals[S_ML] != ML_LIVE or guard_reason(signals) != NO_REASON:
        return False
    return (
        signals[S_TOKENS] < 1.0
        or busy(signals)
        or cheap_score(features, signals) >= rules.tiers[int(signals[S_TIER]), T_RANK_FROM]
    )


@njit(cache=True)
def guard_reason(signals: np.ndarray) -> int:
    """Return the guard rule that settles the request, NO_REASON when none does."""
    # the order is the rank of the rules: law before lists, and the quota binds the allow list too
    if signals[S_COMPLIANCE] > 0.0:
        return COMPLIANCE
    if signals[S_LIST] == 2.0:
        return BLOCK_LISTED
    if signals[S_QUOTA_LEFT] < 1.0:
        return LEASE_AWAITED if signals[S_LEASE] > 0.0 else QUOTA_EXHAUSTED
    if signals[S_LIST] == 1.0:
        return ALLOW_LISTED
    return UNKNOWN_APP if signals[S_UNKNOWN_WAIT] > 0.0 else NO_REASON


@njit(cache=True)
def guard_action(reason: int) -> int:
    """Return the action that a guard rule asks for."""
    if reason == ALLOW_LISTED:
        return ADMIT
    return DEFER if reason in (QUOTA_EXHAUSTED, LEASE_AWAITED, UNKNOWN_APP) else BLOCK


@njit(cache=True)
def is_proven(features: np.ndarray) -> bool:
    """Return whether an app gave proof of honesty: a verified owner, some age, a clean record, and
    traffic that is more than sign-ins or writes.

    An abuser cannot get this proof by sending less.
    """
    return (
        features[f.VERIFIED] >= 0.5
        and features[f.APP_AGE] >= PROVEN_AFTER_DAYS
        and features[f.ABUSE_HISTORY] == 0.0
        and features[f.SIGN_IN_SHARE_600S] <= PROVEN_SIGN_INS
        and features[f.WRITE_SHARE_600S] <= PROVEN_WRITES
    )


@njit(cache=True)
def withheld(burst: float, tier: int, features: np.ndarray, rules: Rules) -> float:
    """Return how much less headroom than a whole `burst` an app has, in requests."""
    row = rules.tiers[tier]
    if row[T_HEADROOM_TO_ALL] == 0.0 and not is_proven(features):
        return burst
    return burst * (1.0 - row[T_HEADROOM])


@njit(cache=True)
def headroom_spent(signals: np.ndarray) -> bool:
    """Return whether the bucket is empty and the headroom below it has no room for one more."""
    headroom = signals[S_BURST] - signals[S_WITHHELD]
    return signals[S_TOKENS] < 1.0 and signals[S_TOKENS] <= 1.0 - headroom


@njit(cache=True)
def proof_lasts(requests: float, writes: float, sign_ins: float) -> float:
    """Return how many further requests an app's proof of honesty outlasts, whatever they are.

    `requests`: of the last ten minutes; `writes` and `sign_ins` are among them, and a sign-in is a
    write as well.
    """
    # if all k to come are writes, (writes + k) / (requests + k) must stay at or below the limit
    return min(
        (PROVEN_SIGN_INS * requests - sign_ins) / (1.0 - PROVEN_SIGN_INS),
        (PROVEN_WRITES * requests - writes) / (1.0 - PROVEN_WRITES),
    )


@njit(cache=True)
def room_left(tokens: float, headroom: float, lasts: float) -> int:
    """Return how many requests a bucket has room for at one instant: until `headroom_spent`.

    `lasts`: after how many of them the headroom may be lost, as `proof_lasts` returns it.
    """
    whole = math.floor(max(0.0, tokens))
    if headroom <= 0.0:
        return whole
    # a request is admitted at more than 1 - headroom tokens; ROUNDING is on the safe side
    room = math.ceil(tokens + headroom - 1.0 - ROUNDING)
    return max(whole, int(max(0.0, min(room, math.floor(min(lasts, 1e15))))))


@njit(cache=True)
def price_for(signals: np.ndarray, use: int) -> float:
    """Return the price per cost unit for this tenant.

    It is 0 where the service has room for the tenant's tier, for a request that waited, and while
    the tenant uses up to four fifths of its fair share. It is the service's price when the tenant
    uses its share, and at most three times that when the tenant uses more.
    """
    if not counts_load(signals, use):
        return 0.0
    if not use & USE_SHARE:
        return signals[S_PRICE]
    return tenant_price(signals[S_PRICE], signals[S_USAGE], signals[S_FAIR])


@njit(cache=True)
def tenant_price(price: float, usage: float, fair: float) -> float:
    """Return the price per cost unit for a tenant, from the service's price, the tenant's use and
    its fair share of the service.
    """
    # It rises over the last fifth rather than at once: a step would make a tenant at its share flip
    # between admit and refuse. The cap keeps one tenant's price within the scale of the others'.
    # Where higher tiers leave no room, the share is 0 and every tenant is above it.
    if fair <= 0.0:
        return 3.0 * price
    return price * min(3.0, max(0.0, (usage / fair - 0.8) / 0.2))


@njit(cache=True)
def utility(
    action: int, risk: float, value: float, signals: np.ndarray, rules: Rules, use: int
) -> float:
    """Return the expected utility of an action, in units of one ordinary request.

    The formula stands at the top of this module. `use`: USE_ bits of the findings to count.
    """
    tier = int(signals[S_TIER])
    friction = rules.tiers[tier, T_FRICTION]
    hourly = rules.tiers[tier, T_HOURLY_BUDGET]
    if use & USE_BUDGET and hourly > 0.0 and signals[S_BUDGET_RATE] == 0.0:
        # an old record, from before the budget was a rate: a spent budget doubled the friction
        friction *= 2.0 - min(1.0, max(0.0, signals[S_BUDGET] / hourly))
    overrun = 0.0
    if use & USE_TRIAGE:
        overrun = OVERRUN_COST * min(1.0, max(0.0, 1.0 - signals[S_TOKENS]) / signals[S_BURST])
    good = (BASE_WORTH + value) * rules.actions[A_KEEP, action] - rules.actions[
        A_FRICTION, action
    ] * friction
    bad = rules.tiers[tier, T_HARM] * rules.actions[A_LEAK, action]
    load = price_for(signals, use) * signals[S_COST] + overrun
    return (1.0 - risk) * good - risk * bad - load * rules.actions[A_LOAD, action]


@njit(cache=True)
def budget_spares(risk: float, signals: np.ndarray, use: int) -> bool:
    """Return whether a request must be admitted because refusing it would overspend the error
    budget.

    At the bottom of the headroom this does not hold: there the plan refuses, not ML. For
    enterprise, overload is no exception: refusing its requests would spare a short service little,
    and would hit the apps that it must serve first.
    """
    if not use & USE_BUDGET or signals[S_BUDGET] >= 1.0 - risk:
        return False
    if signals[S_BUDGET_RATE] == 0.0:
        # an old record, from before the budget was a rate
        return signals[S_TIER] == ENTERPRISE
    return not (use & USE_TRIAGE and headroom_spent(signals))


@njit(cache=True)
def choose(risk: float, value: float, signals: np.ndarray, rules: Rules, use: int) -> int:
    """Return the candidate action with the highest utility, the milder one of two equals."""
    if budget_spares(risk, signals, use):
        return ADMIT
    short = counts_load(signals, use)
    if not short:
        # where nothing is scarce, a request of little value takes nothing from a better one
        value = max(value, signals[S_PRIOR_VALUE])
    best, best_utility = -1, -np.inf
    for action in range(5):
        if action == ADMIT and use & USE_TRIAGE and headroom_spent(signals):
            continue
        if action == BATCH and signals[S_BATCHABLE] == 0.0:
            continue
        # shedding blames the service, so the service must be short of room
        if action == SHED and not short:
            continue
        candidate = utility(action, risk, value, signals, rules, use)
        # actions stand in order of hardness, so > keeps the milder of two equals
        if candidate > best_utility:
            best, best_utility = action, candidate
    # a client that waited as told is not told to wait again, whatever came to light meanwhile
    if use & USE_WAITED and signals[S_WAITED] > 0.0 and best not in NO_WAIT:
        return best if use & USE_TRIAGE and headroom_spent(signals) else ADMIT
    return best


@njit(cache=True)
def _decisive(
    action: int, risk: float, value: float, signals: np.ndarray, rules: Rules
) -> tuple[int, int]:
    """Return (stage, reason) of the first finding that made the difference for a ranked request.

    Each finding is taken away in turn; the first without which the action would be another made the
    difference. A refusal is explained by what spoke against the request, an admit by what spoke for
    it. A finding that only kept a refusal from being harder explains no refusal, so it is skipped.
    """
    refused = action != ADMIT
    prior_risk, prior_value = signals[S_PRIOR_RISK], signals[S_PRIOR_VALUE]
    if choose(risk, value, signals, rules, USE_ALL ^ USE_TRIAGE) != action:
        return TRIAGE, BURST_EXHAUSTED
    if (risk > prior_risk) == refused and choose(
        prior_risk, value, signals, rules, USE_ALL
    ) != action:
        return RANK, RISK_HIGH if refused else RISK_LOW
    if (value < prior_value) == refused and choose(
        risk, prior_value, signals, rules, USE_ALL
    ) != action:
        return RANK, VALUE_LOW if refused else VALUE_HIGH
    if not refused:
        if choose(risk, value, signals, rules, USE_ALL ^ USE_WAITED) != action:
            return RERANK, WAITED
        # taken away with the place: where each would admit the request, neither alone made the
        # difference
        without = USE_ALL ^ USE_BUDGET ^ USE_WAITED
        spared = choose(risk, value, signals, rules, without) != action
        return (RERANK, ERROR_BUDGET_SPENT) if spared else (RANK, RISK_LOW)
    # A fair share of 0 is not the tenant's doing: higher tiers take all the room, so name the
    # service.
    if (
        signals[S_USAGE] > signals[S_FAIR] > 0.0
        and choose(risk, value, signals, rules, USE_ALL ^ USE_SHARE) != action
    ):
        return RERANK, TENANT_OVER_SHARE
    if choose(risk, value, signals, rules, USE_ALL ^ USE_PRICE) != action:
        return RERANK, SERVICE_OVERLOADED
    return _heaviest(risk, signals)


@njit(cache=True)
def _heaviest(risk: float, signals: np.ndarray) -> tuple[int, int]:
    """Choose (stage, reason) for a refusal that no single finding explains."""
    # the load first, as it says least about the client
    if counts_load(signals, USE_ALL):
        return RERANK, SERVICE_OVERLOADED
    if signals[S_TOKENS] < 1.0 and risk <= signals[S_PRIOR_RISK]:
        return TRIAGE, BURST_EXHAUSTED
    return RANK, RISK_HIGH


@njit(cache=True)
def _fallback(signals: np.ndarray) -> tuple[int, int, int]:
    """Return (action, stage, reason) of a plain token bucket, which needs no model."""
    if signals[S_TOKENS] >= 1.0:
        return ADMIT, FALLBACK, TOKENS_LEFT
    return DEFER, FALLBACK, TOKENS_EMPTY


@njit(cache=True)
def _settle(
    signals: np.ndarray, features: np.ndarray, risk: float, value: float, rules: Rules
) -> tuple[int, int, int]:
    """Return (action, stage, reason) by triage, ranking and re-ranking.

    The fallback limiter decides instead when ML may not speak or gave no usable score.
    """
    if signals[S_ML] != ML_LIVE:
        return _fallback(signals)
    if not wants_rank(signals, features, rules):
        return ADMIT, TRIAGE, HARMLESS
    # NaN fails both comparisons
    if not (0.0 <= risk <= 1.0 and 0.0 <= value <= 1.0):
        return _fallback(signals)
    action = choose(risk, value, signals, rules, USE_ALL)
    stage, reason = _decisive(action, risk, value, signals, rules)
    return action, stage, reason


@njit(cache=True)
def retry_after(action: int, reason: int, signals: np.ndarray) -> float:
    """Return the seconds to wait before the same request may be admitted, 0 for ADMIT and BLOCK.

    That is the engine's hint where there is one, else the time after which the deciding rule no
    longer refuses.
    """
    if action in NO_WAIT:
        return 0.0
    if signals[S_RETRY_HINT] > 0.0:
        return signals[S_RETRY_HINT]
    if reason == QUOTA_EXHAUSTED:
        return signals[S_QUOTA_RESET]
    if reason == LEASE_AWAITED:
        return min(signals[S_LEASE], signals[S_QUOTA_RESET])
    if reason == UNKNOWN_APP:
        return max(1.0, signals[S_UNKNOWN_WAIT])
    if action == SHED:
        # at least a second, so that clients do not come back at once; 30 s at most, as load changes
        return min(30.0, max(1.0, SHED_WAIT_S * signals[S_PRICE]))
    if reason == OVERRIDE_REFUSE:
        return BLOCK_DEFER_S
    # until the bucket holds one token again
    return min(LONGEST_WAIT_S, max(1.0, (1.0 - signals[S_TOKENS]) / signals[S_RATE]))


@njit(cache=True)
def decide(
    signals: np.ndarray, features: np.ndarray, risk: float, value: float, rules: Rules
) -> tuple[int, int, int, float]:
    """Decide a request from what was seen. Return (action, stage, reason, seconds to wait).

    `signals`: float64 (N_SIGNALS,). `features`: float32 (N_FEATURES,). `risk` and `value`:
    calibrated, 0 to 1, NaN where no model was asked.
    """
    reason = guard_reason(signals)
    if reason != NO_REASON:
        action = guard_action(reason)
        return action, GUARD, reason, retry_after(action, reason, signals)
    action, stage, reason = _settle(signals, features, risk, value, rules)
    forced = int(signals[S_OVERRIDE])
    # an override that asks for the action that was decided anyway is not decisive
    if forced >= 0 and forced != action:
        action, stage = forced, OVERRIDE
        reason = OVERRIDE_ADMIT if forced == ADMIT else OVERRIDE_REFUSE
    return action, stage, reason, retry_after(action, reason, signals)
