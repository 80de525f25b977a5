"""An app's state as a feature vector; compiled.

`contracts.feature_table` holds the order and meaning of the features.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider.contracts import feature_columns as f
from decider.engine.memory import linear_counting
from decider.engine.memory.app_state import (
    ACTIVE_MINUTES,
    B_ENDPOINTS,
    B_PATHS,
    B_SOURCES,
    B_TOKENS,
    C_4XX,
    C_5XX,
    C_600S,
    C_ANSWERS,
    C_AUTH,
    C_BYTES,
    C_COST,
    C_EARLY,
    C_MISSING,
    C_PAYMENT,
    C_REFUSED,
    C_RETRIES,
    C_SIGN_INS,
    C_WRITES,
    ENTROPY_BINS,
    FEEDBACK_AT,
    FIRST,
    GAP_MEAN,
    GAP_SQUARE,
    L_4XX,
    L_ANSWERS,
    L_AUTH,
    L_MISSING,
    L_SIGN_INS,
    L_UNUSUAL,
    L_WRITES,
    LAST,
    P_ABUSE,
    P_CHARGEBACKS,
    P_COHORT,
    P_CREATED_DAY,
    P_TIER,
    P_VERIFIED,
    P_WRONG,
    PACE_DAYS,
    PACE_HOURS,
    STEP_BINS,
    State,
)
from decider.engine.memory.source_table import V_APPS, V_FAILED_SHARE, V_NEW
from decider.engine.memory.windows import EPOCH, WINDOWS

# c * log2(c) for each count c. A minute's counts are nearly always in the table, and a look-up
# costs less than a logarithm.
_C_LOG_C = np.array([0.0] + [c * math.log2(c) for c in range(1, 2049)])
# Minutes of traffic after which an app's own pace is known: of its last hours, of its last days.
# Chosen: a quarter and a twelfth of what each is averaged over.
LEAST_MINUTES = np.array([30.0, 240.0])
# The quota's pace counts at least this share of the UTC day as over, one hour: just after midnight,
# a few requests are not a fast pace.
LEAST_OF_DAY = 1.0 / 24.0


@njit(cache=True, inline="always")
def _distinct(state: State, slot: int, column: int, previous: bool) -> float:
    bits = state.bits[slot, column]
    if previous:
        bits |= state.bits[slot, column + 1]
    return linear_counting.distinct(bits)


@njit(cache=True)
def _spread(bins: np.ndarray, slot: int, count: int, previous: bool) -> tuple[float, float]:
    """Return the Shannon entropy over bins, in bits, and the share of the fullest bin.

    `bins`: of all slots, `count` for each window, as `State.bins`. Without requests both are 0.
    """
    total, most, weighted = 0, 0, 0.0
    for k in range(count):
        c = int(bins[slot, k])
        if previous:
            c += int(bins[slot, count + k])
        total += c
        most = max(most, c)
        weighted += _C_LOG_C[c] if c <= 2048 else c * math.log2(c)
    if total == 0:
        return 0.0, 0.0
    # rounding may leave a hair below 0
    return max(0.0, math.log2(total) - weighted / total), most / total


@njit(cache=True, inline="always")
def _in_window(state: State, slot: int, column: int, keep: float, moved: int) -> float:
    """Return the count in a sliding window.

    `keep`: share of the previous window that is still inside. `moved`: windows since the last roll.
    """
    # one window on, the current one of the state has become the previous one
    if moved == 0:
        return state.counts[slot, column] + keep * state.counts[slot, column + 1]
    return keep * state.counts[slot, column] if moved == 1 else 0.0


@njit(cache=True, inline="always")
def _position(state: State, slot: int, w: int, now: float) -> tuple[float, int]:
    """Return the share of the previous window still inside at `now`, and windows since the roll."""
    position = (now - EPOCH) / WINDOWS[w]
    number = math.floor(position)
    return 1.0 - (position - number), number - state.window[slot, w]


@njit(cache=True, inline="always")
def _rate(state: State, slot: int, w: int, now: float) -> float:
    keep, moved = _position(state, slot, w, now)
    return _in_window(state, slot, 2 * w, keep, moved) / WINDOWS[w]


@njit(cache=True, error_model="numpy", inline="always")
def features_of(
    state: State,
    slot: int,
    now: float,
    wall: float,
    cost: float,
    kilobytes: float,
    quota_used: float,
    service: np.ndarray,
    tenant_share: float,
    address: np.ndarray,
    usual: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the feature vector of an app at `now`, in wall time `wall`, into `out`.

    `out`: float32 (N_FEATURES,).

    It changes no state. `now` may lie after the time to which the slot's windows were rolled: the
    vector is then that of a request which waits until `now`. `service` is (utilisation, latency
    ratio, error share); `address` is what `source_table.look` tells, `usual` the usual paces of its
    tier and its tenant, requests a second, 0 while unknown.
    """
    count, clock = state.counts, state.clock
    second, minute = _rate(state, slot, 0, now), _rate(state, slot, 2, now)
    out[f.RATE_1S], out[f.RATE_10S] = second, _rate(state, slot, 1, now)
    out[f.RATE_60S], out[f.RATE_600S] = minute, _rate(state, slot, 3, now)
    keep, moved = _position(state, slot, 2, now)
    # the minute's pace counts as one request at least: the first one after a pause is a burst of 60
    out[f.BURST_RATIO] = second / max(minute, 1.0 / 60.0)
    mean = count[slot, GAP_MEAN]
    out[f.GAP_CV] = (
        math.sqrt(max(0.0, count[slot, GAP_SQUARE] - mean * mean)) / mean if mean > 0.0 else 1.0
    )
    requests = max(_in_window(state, slot, 4, keep, moved), 1e-9)
    out[f.COST_RATE_60S] = _in_window(state, slot, C_COST, keep, moved) / 60.0
    out[f.REQUEST_COST] = cost
    _write_failures(state, slot, keep, moved, requests, out)
    out[f.SIGN_INS_60S] = _in_window(state, slot, C_SIGN_INS, keep, moved)
    out[f.WRITE_SHARE_60S] = min(1.0, _in_window(state, slot, C_WRITES, keep, moved) / requests)
    out[f.PAYLOAD_MEAN_60S] = _in_window(state, slot, C_BYTES, keep, moved) / requests
    _variety(state, slot, moved, out)
    out[f.PAYLOAD_NOW], out[f.QUOTA_USED] = kilobytes, quota_used
    out[f.SECONDS_SINCE_LAST] = min(86_400.0, max(0.0, now - clock[slot, LAST]))
    out[f.SECONDS_SINCE_FIRST] = max(
        0.0, now - clock[slot, FIRST], 86_400.0 * _age(state, slot, wall)
    )
    # 1 January 1970 was a Thursday, the fourth day of its week
    out[f.HOUR_OF_WEEK] = (math.floor(wall / 3600.0) + 72) % 168
    _write_profile(state, slot, wall, out)
    out[f.SERVICE_UTILISATION], out[f.SERVICE_LATENCY_RATIO] = service[0], service[1]
    out[f.SERVICE_ERROR_SHARE] = service[2]
    out[f.TENANT_SHARE] = tenant_share
    out[f.APPS_OF_SOURCE_600S], out[f.NEW_APPS_OF_SOURCE_600S] = address[V_APPS], address[V_NEW]
    out[f.SOURCE_ERROR_SHARE_600S] = address[V_FAILED_SHARE]
    _write_ten_minutes(state, slot, now, out)
    _write_paces(state, slot, minute, usual, out)
    out[f.QUOTA_PACE] = quota_used / max(wall / 86_400.0 % 1.0, LEAST_OF_DAY)
    fed = clock[slot, FEEDBACK_AT]
    out[f.FEEDBACK_AGE] = min(3600.0, max(0.0, now - fed)) if fed > 0.0 else 3600.0


@njit(cache=True, error_model="numpy", inline="always")
def _write_failures(
    state: State, slot: int, keep: float, moved: int, requests: float, out: np.ndarray
) -> None:
    """Write what failed, was refused and was tried again in the last minute: counts and shares.

    `keep` and `moved` as `_in_window` takes them; `requests`: of that minute, above 0.
    """
    answers = _in_window(state, slot, C_ANSWERS, keep, moved)
    per_answer = 1.0 / answers if answers > 0.0 else 0.0
    failed = _in_window(state, slot, C_4XX, keep, moved)
    errors4 = failed * per_answer
    errors5 = _in_window(state, slot, C_5XX, keep, moved) * per_answer
    out[f.CLIENT_ERROR_SHARE_60S], out[f.SERVER_ERROR_SHARE_60S] = errors4, errors5
    out[f.ERROR_SHARE_60S] = errors4 + errors5
    denied = _in_window(state, slot, C_AUTH, keep, moved)
    missing = _in_window(state, slot, C_MISSING, keep, moved)
    unpaid = _in_window(state, slot, C_PAYMENT, keep, moved)
    out[f.CLIENT_ERRORS_60S], out[f.AUTH_ERRORS_60S] = failed, denied
    out[f.NOT_FOUND_60S], out[f.PAYMENT_ERRORS_60S] = missing, unpaid
    out[f.AUTH_ERROR_SHARE_60S] = denied * per_answer
    out[f.NOT_FOUND_SHARE_60S] = missing * per_answer
    out[f.PAYMENT_ERROR_SHARE_60S] = unpaid * per_answer
    refused = _in_window(state, slot, C_REFUSED, keep, moved)
    retries = _in_window(state, slot, C_RETRIES, keep, moved)
    early = _in_window(state, slot, C_EARLY, keep, moved)
    out[f.REFUSED_60S], out[f.RETRIES_60S], out[f.EARLY_RETRIES_60S] = refused, retries, early
    out[f.REFUSED_SHARE_60S] = min(1.0, refused / requests)
    out[f.RETRY_SHARE_60S] = min(1.0, retries / requests)
    out[f.EARLY_RETRY_SHARE_60S] = min(1.0, early / requests)


@njit(cache=True, inline="always")
def kinds_600s(state: State, slot: int, now: float) -> tuple[float, float, float]:
    """Return an app's requests of the last ten minutes, the writes and the sign-ins among them."""
    keep, moved = _position(state, slot, 3, now)
    return (
        _in_window(state, slot, C_600S, keep, moved),
        _in_window(state, slot, L_WRITES, keep, moved),
        _in_window(state, slot, L_SIGN_INS, keep, moved),
    )


@njit(cache=True, error_model="numpy", inline="always")
def _write_ten_minutes(state: State, slot: int, now: float, out: np.ndarray) -> None:
    """Write the features of the last ten minutes, which remember a refused client for longer."""
    keep, moved = _position(state, slot, 3, now)
    requests, writes, sign_ins = kinds_600s(state, slot, now)
    requests = max(requests, 1e-9)
    out[f.WRITE_SHARE_600S] = min(1.0, writes / requests)
    out[f.SIGN_IN_SHARE_600S] = min(1.0, sign_ins / requests)
    answers = _in_window(state, slot, L_ANSWERS, keep, moved)
    per_answer = 1.0 / answers if answers > 0.0 else 0.0
    failed = _in_window(state, slot, L_4XX, keep, moved)
    out[f.CLIENT_ERRORS_600S] = failed
    out[f.CLIENT_ERROR_SHARE_600S] = failed * per_answer
    out[f.AUTH_ERROR_SHARE_600S] = _in_window(state, slot, L_AUTH, keep, moved) * per_answer
    out[f.NOT_FOUND_SHARE_600S] = _in_window(state, slot, L_MISSING, keep, moved) * per_answer
    unusual = _in_window(state, slot, L_UNUSUAL, keep, moved)
    out[f.UNUSUAL_ANSWERS_600S] = unusual
    out[f.UNUSUAL_ANSWER_SHARE_600S] = min(1.0, unusual * per_answer)
    # as in `_variety`: one window on, the current bins are the previous ones; later, none count
    entropy, busiest, step = 0.0, 0.0, 0.0
    if moved <= 1:
        entropy, busiest = _spread(state.paths, slot, ENTROPY_BINS, moved == 0)
        step = _spread(state.steps, slot, STEP_BINS, moved == 0)[1]
    out[f.PATH_ENTROPY_600S], out[f.BUSIEST_PATH_SHARE_600S] = entropy, busiest
    out[f.BUSIEST_STEP_SHARE_600S] = step


@njit(cache=True, error_model="numpy", inline="always")
def _write_paces(
    state: State, slot: int, minute: float, usual: np.ndarray, out: np.ndarray
) -> None:
    """Write the pace of the last minute, requests a second, over what is usual for its tier, its
    tenant and itself. Write 1 where the usual pace is not known.
    """
    count, active = state.counts, state.clock[slot, ACTIVE_MINUTES]
    out[f.PACE_OVER_TIER] = minute / usual[0] if usual[0] > 0.0 else 1.0
    out[f.PACE_OVER_TENANT] = minute / usual[1] if usual[1] > 0.0 else 1.0
    hours, days = active >= LEAST_MINUTES[0], active >= LEAST_MINUTES[1]
    out[f.PACE_OVER_OWN_HOURS] = minute / count[slot, PACE_HOURS] if hours else 1.0
    out[f.PACE_OVER_OWN_DAYS] = minute / count[slot, PACE_DAYS] if days else 1.0


@njit(cache=True, inline="always")
def _age(state: State, slot: int, wall: float) -> float:
    """Return the days since the app was registered, 0 where its profile does not say."""
    created = state.profile[slot, P_CREATED_DAY]
    return max(0.0, wall / 86_400.0 - created) if created > 0.0 else 0.0


@njit(cache=True, inline="always")
def _write_profile(state: State, slot: int, wall: float, out: np.ndarray) -> None:
    """Write what the profile store knows of the app."""
    profile = state.profile
    out[f.TIER] = profile[slot, P_TIER]
    out[f.APP_AGE] = _age(state, slot, wall)
    out[f.VERIFIED], out[f.COHORT_PRIOR] = profile[slot, P_VERIFIED], profile[slot, P_COHORT]
    out[f.ABUSE_HISTORY] = profile[slot, P_ABUSE]
    out[f.CHARGEBACK_HISTORY] = profile[slot, P_CHARGEBACKS]
    out[f.FALSE_THROTTLE_HISTORY] = profile[slot, P_WRONG]


@njit(cache=True, inline="always")
def _variety(state: State, slot: int, moved: int, out: np.ndarray) -> None:
    """Write distinct counts and entropy over the current and the previous minute.

    One minute on, the current map counts as the previous one; two minutes on, nothing is left.
    """
    if moved > 1:
        out[f.DISTINCT_ENDPOINTS_60S] = out[f.DISTINCT_PATHS_60S] = 0.0
        out[f.DISTINCT_TOKENS_60S] = out[f.DISTINCT_SOURCES_60S] = 0.0
        out[f.ENDPOINT_ENTROPY_60S] = 0.0
        return
    previous = moved == 0
    out[f.DISTINCT_ENDPOINTS_60S] = _distinct(state, slot, B_ENDPOINTS, previous)
    out[f.DISTINCT_PATHS_60S] = _distinct(state, slot, B_PATHS, previous)
    out[f.DISTINCT_TOKENS_60S] = _distinct(state, slot, B_TOKENS, previous)
    out[f.DISTINCT_SOURCES_60S] = _distinct(state, slot, B_SOURCES, previous)
    out[f.ENDPOINT_ENTROPY_60S] = _spread(state.bins, slot, ENTROPY_BINS, previous)[0]
