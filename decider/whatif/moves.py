"""The moves: how each change that an owner can make moves the features and signals of a decision,
by the definitions in `engine.features_of` and `engine.memory.app_state`. `levers` lists the
changes.

Where the record does not say exactly what a move would do, the estimate favours refusing. Tokens
are a lower bound. A sliding window has two buckets, but the record has one rate for both, so a move
leaves as much in the window as there can be (`most_left`). A request that is sent again counts in
its own windows: as a retry, and as an early retry before the client's Retry-After has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decider.contracts.features import INDEX as F
from decider.contracts.signals import INDEX as S
from decider.engine.features_of import LEAST_OF_DAY
from decider.engine.memory.retries import RETRY_WITHIN_S
from decider.engine.memory.windows import EPOCH
from decider.engine.shared.service_control import RECOVERY
from decider.engine.shared.tenant_use import USE_TAU_S

Rows = NDArray[np.float64]
Levels = NDArray[np.float64]

# Lengths in seconds of the windows that `engine.memory.app_state` keeps; the rates are means over
# them. A single request makes a rate of 1 / length, so 1/60 and 1/600 are the least rates below.
WINDOWS_S = {"rate_1s": 1.0, "rate_10s": 10.0, "rate_60s": 60.0, "rate_600s": 600.0}
PACES = tuple(WINDOWS_S)
# Ratios of the minute's pace to usual paces; the usual paces do not move.
PACES_OVER_USUAL = (
    "pace_over_tier",
    "pace_over_tenant",
    "pace_over_own_hours",
    "pace_over_own_days",
)
CLIENT_ERRORS = (
    "client_error_share_60s",
    "auth_error_share_60s",
    "not_found_share_60s",
    "payment_error_share_60s",
)
# The same over ten minutes.
CLIENT_ERRORS_600S = (
    "client_error_share_600s",
    "client_errors_600s",
    "auth_error_share_600s",
    "not_found_share_600s",
)
# For each of these shares, the feature with the count per minute.
COUNTED = {
    "client_error_share_60s": "client_errors_60s",
    "auth_error_share_60s": "auth_errors_60s",
    "not_found_share_60s": "not_found_60s",
    "payment_error_share_60s": "payment_errors_60s",
    "refused_share_60s": "refused_60s",
    "retry_share_60s": "retries_60s",
    "early_retry_share_60s": "early_retries_60s",
}
COUNTS = tuple(COUNTED.values())
# Shares that come from asking again while refused. All three fall together when retries stop.
INSISTING = ("refused_share_60s", "retry_share_60s", "early_retry_share_60s")
# Silence in seconds after which the sliding minute is empty whatever the clock: two whole buckets
# of 60 s (`features_of._in_window`).
FORGOTTEN_S = 120.0
# The same for the sliding ten minutes, and the features that are 0 then.
FORGOTTEN_600S = 1_200.0
TEN_MINUTES = (
    *CLIENT_ERRORS_600S,
    "unusual_answer_share_600s",
    "unusual_answers_600s",
    "source_error_share_600s",
    "new_apps_of_source_600s",
    "path_entropy_600s",
)
# Seconds of a UTC day, after which a quota starts again; seconds_since_last ends there as well.
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Ground:
    """Facts of the config document and the answer that a move needs."""

    quota: float
    """Requests a day this node may admit without a lease; the whole quota where that is unknown."""
    budget_per_hour: float
    """Expected false throttles an hour that come back to the error budget while the app waits. 0
    where the budget is a share of the app's requests: then waiting adds nothing.
    """
    batch_cost: float
    """Cost units of one call of the endpoint's batch form."""
    batch_writes: bool
    """Whether that call counts as a write."""
    at: float
    """Time of the decision, unix seconds: it places the sliding windows."""
    told: float
    """Seconds that the client was told to wait, 0 for none. A request before that is an early
    retry.
    """


def own_use(x: Rows, s: Rows) -> Levels:
    """Return the most that the app itself can add to its tenant's use of the service, cost units a
    second (n,).
    """
    # The rate over 10 s, because use is smoothed over a similar time (`tenant_use.USE_TAU_S`).
    mean_cost = np.maximum(x[:, F["cost_rate_60s"]], 0.0) / np.maximum(
        x[:, F["rate_60s"]], 1.0 / 60.0
    )
    admitted = x[:, F["rate_10s"]] * (1.0 - x[:, F["refused_share_60s"]])
    return np.minimum(s[:, S["tenant_usage"]], np.nan_to_num(admitted * mean_cost))


def _use_less(x: Rows, s: Rows, own: Levels, keep: Levels) -> None:
    """Multiply the app's own part of its tenant's use by `keep`. The other apps' parts stay."""
    before = s[:, S["tenant_usage"]].copy()
    s[:, S["tenant_usage"]] = before - own * (1.0 - keep)
    x[:, F["tenant_share"]] *= np.where(
        before > 0.0, s[:, S["tenant_usage"]] / np.where(before > 0.0, before, 1.0), 1.0
    )


def _burst_ratio(x: Rows) -> None:
    x[:, F["burst_ratio"]] = x[:, F["rate_1s"]] / np.maximum(x[:, F["rate_60s"]], 1.0 / 60.0)


def _over_usual(x: Rows, before: Levels) -> None:
    """Change the ratios to usual paces as the minute's pace changed from `before`, requests/s."""
    moved = x[:, F["rate_60s"]] / np.maximum(before, 1.0 / 60.0)
    for name in PACES_OVER_USUAL:
        x[:, F[name]] *= moved


def _use_quota(x: Rows, used: Levels) -> None:
    """Set the share of the quota that is used; its pace over the day moves with it."""
    before, used = x[:, F["quota_used"]].copy(), np.maximum(0.0, used)
    x[:, F["quota_pace"]] *= np.where(before > 0.0, used / np.where(before > 0.0, before, 1.0), 1.0)
    x[:, F["quota_used"]] = used


def _day_so_far(s: Rows) -> Levels:
    """Return the share (n,) of the UTC day that is over, as `features_of` counts it."""
    return np.maximum(LEAST_OF_DAY, 1.0 - s[:, S["quota_reset"]] / DAY_S)


def _tokens_at(x: Rows, s: Rows, slower: dict[str, Levels]) -> Levels:
    """Return a lower bound of the tokens left (n,), had each window's pace been `slower` and all of
    it been admitted.

    Over a window of w seconds: level now >= level then + (refill - pace) * w. The level then is at
    least what the level now and the admitted requests imply. The best of the four bounds counts.
    """
    rate, burst, tokens = s[:, S["bucket_rate"]], s[:, S["bucket_burst"]], s[:, S["tokens"]]
    best = tokens.copy()
    for name, window in WINDOWS_S.items():
        admitted = x[:, F[name]] * (1.0 - np.nan_to_num(x[:, F["refused_share_60s"]]))
        then = np.clip(tokens + (admitted - rate) * window, -burst, burst)
        best = np.maximum(best, np.minimum(burst, then + (rate - slower[name]) * window))
    return best


def _at_pace(x: Rows, s: Rows, slower: dict[str, Levels]) -> None:
    """Move everything that follows from the pace of the four windows, requests/s each."""
    old, minute = x[:, F["rate_60s"]].copy(), np.maximum(slower["rate_60s"], 1.0 / 60.0)
    own = own_use(x, s)
    s[:, S["tokens"]] = _tokens_at(x, s, slower)
    # Only ten minutes of quota are saved: the longest window says nothing of the time before it.
    saved = np.maximum(0.0, (x[:, F["rate_600s"]] - slower["rate_600s"]) * 600.0)
    saved *= 1.0 - np.nan_to_num(x[:, F["refused_share_60s"]])
    s[:, S["quota_left"]] += saved
    _use_quota(x, x[:, F["quota_used"]] - saved / np.maximum(s[:, S["quota_limit"]], 1.0))
    ten = np.where(
        x[:, F["rate_10s"]] > 0.0, slower["rate_10s"] / np.maximum(x[:, F["rate_10s"]], 1e-9), 1.0
    )
    for name in PACES:
        x[:, F[name]] = slower[name]
    _over_usual(x, old)
    keep = np.minimum(1.0, minute / np.maximum(old, 1.0 / 60.0))
    x[:, F["cost_rate_60s"]] *= keep
    for name in COUNTS:
        x[:, F[name]] *= keep
    # Fewer requests reach fewer paths, but this one's own path stays; so does its own sign-in.
    for name in ("distinct_paths_60s", "sign_ins_60s"):
        x[:, F[name]] = np.maximum(np.minimum(1.0, x[:, F[name]]), x[:, F[name]] * keep)
    _burst_ratio(x)
    _use_less(x, s, own, np.clip(ten, 0.0, 1.0))


def _at_most(x: Rows, level: Levels, windows: tuple[str, ...]) -> dict[str, Levels]:
    """Return the pace of each window, requests/s, when none of `windows` may exceed `level`. This
    request itself stays in all of them.
    """
    slower = {name: x[:, F[name]].copy() for name in PACES}
    for name in windows:
        slower[name] = np.minimum(slower[name], np.maximum(level, 1.0 / WINDOWS_S[name]))
    return slower


def _even(x: Rows) -> None:
    """Limit the variation of gaps to that of random arrivals: evenly spread requests do not come in
    clumps.
    """
    # Random (Poisson) arrivals have gaps with a coefficient of variation of 1. The limit is not 0:
    # nobody sends exactly evenly, and a very low variation is itself a sign of a script.
    x[:, F["gap_cv"]] = np.minimum(x[:, F["gap_cv"]], 1.0)


def move_spread(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Limit the paces over 1 s and 10 s to `level` requests/s; the volume stays."""
    _at_pace(x, s, _at_most(x, level, PACES[:2]))
    _even(x)


def move_pace(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Limit the paces over all windows to `level` requests/s."""
    _at_pace(x, s, _at_most(x, level, PACES))
    _even(x)


def move_day(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Set the quota as it would stand had the app sent no more than `level` requests/s since
    midnight UTC, and the pace accordingly.
    """
    elapsed = DAY_S - s[:, S["quota_reset"]]
    used = x[:, F["quota_used"]] * s[:, S["quota_limit"]]
    saved = np.maximum(0.0, used - level * elapsed)
    # The pace first: it moves the quota by ten minutes only, which the whole day then replaces.
    move_pace(x, s, level, ground)
    left = s[:, S["quota_left"]]
    s[:, S["quota_left"]] = np.maximum(left, np.minimum(ground.quota, left + saved))
    _use_quota(x, (used - saved) / np.maximum(s[:, S["quota_limit"]], 1.0))


def most_left(at: float, level: Levels, window: float) -> Levels:
    """Return the largest share (n,) of a sliding window's count at `at` (unix seconds) that can be
    left after a silence of `level` seconds. `window`: its length in seconds.

    The count is the running bucket plus the rest of the one before it (`features_of._in_window`),
    and the record does not say how much is in which. Most is left when the whole count is in the
    running bucket.
    """
    before, after = np.floor((at - EPOCH) / window), (at + level - EPOCH) / window
    moved, keep = np.floor(after) - before, 1.0 - (after - np.floor(after))
    return np.where(moved <= 0.0, 1.0, np.where(moved == 1.0, keep, 0.0))


def move_wait(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Move all features and signals as `kernels.project` does for a client that asks again after a
    silence of `level` seconds. The request itself counts.
    """
    own = own_use(x, s)
    retried = (level > 0.0) & (level < max(RETRY_WITHIN_S, 2.0 * ground.told))
    _slide_windows(x, s, level, ground, retried)
    _forget(x, level >= FORGOTTEN_S, retried, retried & (level < ground.told))
    _forget_ten_minutes(x, level >= FORGOTTEN_600S)
    _burst_ratio(x)
    _pass_time(x, s, level, ground)
    _use_less(x, s, own, np.exp(-level / USE_TAU_S))


def _slide_windows(
    x: Rows, s: Rows, level: Levels, ground: Ground, retried: NDArray[np.bool_]
) -> None:
    """Slide the windows on by `level` seconds and count the request that is asked again.

    `retried`: rows in which it counts as a retry, bool (n,).
    """
    silent, before = level > 0.0, x[:, F["rate_60s"]].copy()
    # Requests that are left of evenly spread traffic; a retry adds one to them.
    usual = 60.0 * x[:, F["rate_60s"]] * np.maximum(0.0, 1.0 - level / 60.0)
    for name, window in WINDOWS_S.items():
        left = x[:, F[name]] * most_left(ground.at, level, window) + 1.0 / window
        x[:, F[name]] = np.where(silent, left, x[:, F[name]])
    _over_usual(x, before)
    x[:, F["cost_rate_60s"]] = np.where(
        silent,
        x[:, F["cost_rate_60s"]] * most_left(ground.at, level, 60.0) + s[:, S["cost"]] / 60.0,
        x[:, F["cost_rate_60s"]],
    )
    left = most_left(ground.at, level, 60.0)
    for name in COUNTS:
        x[:, F[name]] = np.where(silent, x[:, F[name]] * left, x[:, F[name]])
    # the record does not say whether this request is a sign-in: it may be one if any was
    signs_in = np.minimum(1.0, x[:, F["sign_ins_60s"]])
    x[:, F["sign_ins_60s"]] = np.where(
        silent, x[:, F["sign_ins_60s"]] * left + signs_in, x[:, F["sign_ins_60s"]]
    )
    left = most_left(ground.at, level, WINDOWS_S["rate_600s"])
    for name in ("client_errors_600s", "unusual_answers_600s", "new_apps_of_source_600s"):
        x[:, F[name]] = np.where(silent, x[:, F[name]] * left, x[:, F[name]])
    for name, counts in (
        ("refused_share_60s", silent),
        ("retry_share_60s", retried),
        ("early_retry_share_60s", retried & (level < ground.told)),
    ):
        x[:, F[name]] = np.where(
            counts, (x[:, F[name]] * usual + 1.0) / (usual + 1.0), x[:, F[name]]
        )
        x[:, F[COUNTED[name]]] += counts


def _forget(
    x: Rows, gone: NDArray[np.bool_], retried: NDArray[np.bool_], early: NDArray[np.bool_]
) -> None:
    """Empty the sliding minute of the rows `gone`, bool (n,), but for the request that is asked
    again. It is a retry in the rows `retried`, and too soon in the rows `early`.
    """
    for name in (
        *COUNTED,
        *COUNTS,
        "error_share_60s",
        "server_error_share_60s",
        "endpoint_entropy_60s",
    ):
        x[gone, F[name]] = 0.0
    for share, counts in (("retry_share_60s", retried), ("early_retry_share_60s", early)):
        x[gone & counts, F[share]] = x[gone & counts, F[COUNTED[share]]] = 1.0
    for name in (
        "distinct_endpoints_60s",
        "distinct_paths_60s",
        "distinct_tokens_60s",
        "sign_ins_60s",
    ):
        x[gone, F[name]] = np.minimum(x[gone, F[name]], 1.0)


def _forget_ten_minutes(x: Rows, gone: NDArray[np.bool_]) -> None:
    """Empty the sliding ten minutes of the rows `gone`, bool (n,), but for the request that is
    asked again. Its kind is not known, so the shares of writes and sign-ins stay.
    """
    for name in TEN_MINUTES:
        x[gone, F[name]] = 0.0
    x[gone, F["busiest_path_share_600s"]] = x[gone, F["busiest_step_share_600s"]] = 1.0
    x[gone, F["apps_of_source_600s"]] = np.minimum(x[gone, F["apps_of_source_600s"]], 1.0)


def _pass_time(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Let `level` seconds pass: buckets and budgets refill, prices are expected to fall, a day may
    end. A client that waits as it was told finds the place that was kept for it.
    """
    silent = level > 0.0
    x[:, F["seconds_since_last"]] = np.where(
        silent, np.minimum(DAY_S, level), x[:, F["seconds_since_last"]]
    )
    x[:, F["seconds_since_first"]] += level
    age = x[:, F["feedback_age"]]
    # The feature ends at an hour; a recorded value beyond it stays as it was.
    x[:, F["feedback_age"]] = np.where(age < 3600.0, np.minimum(3600.0, age + level), age)
    s[:, S["tokens"]] = np.minimum(
        s[:, S["bucket_burst"]], s[:, S["tokens"]] + level * s[:, S["bucket_rate"]]
    )
    s[:, S["service_price"]] = np.maximum(0.0, s[:, S["service_price"]] - RECOVERY * level)
    kept = (ground.told > 0.0) & (level >= ground.told)
    s[:, S["waited"]] = np.where(silent, kept, s[:, S["waited"]])
    budget = s[:, S["error_budget_left"]]
    s[:, S["error_budget_left"]] = np.minimum(
        np.maximum(budget, ground.budget_per_hour), budget + level * ground.budget_per_hour / 3600.0
    )
    _renew_quota(x, s, level, ground)


def _renew_quota(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Let `level` seconds bring a lease that is due, and the end of the UTC day."""
    # The lease is expected to arrive, as prices are expected to fall. The record allows to promise
    # only one request of it.
    leased = (s[:, S["lease_due"]] > 0.0) & (level >= s[:, S["lease_due"]])
    s[:, S["quota_left"]] = np.where(
        leased, np.maximum(1.0, s[:, S["quota_left"]]), s[:, S["quota_left"]]
    )
    over = level >= s[:, S["quota_reset"]]
    s[:, S["quota_left"]] = np.where(over, ground.quota, s[:, S["quota_left"]])
    before = _day_so_far(s)
    s[:, S["quota_reset"]] = np.where(over, DAY_S, s[:, S["quota_reset"]] - level)
    x[:, F["quota_pace"]] *= before / _day_so_far(s)
    _use_quota(x, np.where(over, 0.0, x[:, F["quota_used"]]))


def batched_share(x: Rows) -> Levels:
    """Return a lower bound (n,) of the share of the minute's requests that went to the endpoint
    asked most, from the entropy over endpoints.

    No distribution of entropy H bits has a largest share under 2^-H.
    """
    return np.asarray(
        np.exp2(-np.maximum(0.0, np.nan_to_num(x[:, F["endpoint_entropy_60s"]]))), np.float64
    )


def move_batch(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Turn `level` single requests into one call: fewer requests, each at the batch form's cost.
    Sizes stay, because the record does not say what they would be.
    """
    share, size = batched_share(x), np.maximum(level, 1.0)
    keep = 1.0 - share + share / size
    single, minute = s[:, S["cost"]], x[:, F["rate_60s"]]
    paths = x[:, F["distinct_paths_60s"]].copy()
    # Taken before the pace moves, which would scale costs as if each request kept its own.
    cost_rate = x[:, F["cost_rate_60s"]] + minute * share * (ground.batch_cost / size - single)
    _at_pace(
        x,
        s,
        {
            name: np.minimum(x[:, F[name]], np.maximum(x[:, F[name]] * keep, 1.0 / w))
            for name, w in WINDOWS_S.items()
        },
    )
    x[:, F["cost_rate_60s"]] = np.maximum(ground.batch_cost / 60.0, cost_rate)
    x[:, F["distinct_paths_60s"]] = np.minimum(paths, np.maximum(1.0, paths * (1.0 - share) + 1.0))
    if ground.batch_writes:
        x[:, F["write_share_60s"]] = np.minimum(
            1.0, (x[:, F["write_share_60s"]] + share / size) / keep
        )
    x[:, F["request_cost"]] = s[:, S["cost"]] = ground.batch_cost
    # Else the policy would ask the client to batch what is batched already.
    s[:, S["batchable"]] = 0.0


def insisting(x: Rows) -> Levels:
    """Return the share (n,) of the minute's requests that were refused or repeated refused ones."""
    # The largest of three, because one request can count in all of them.
    found: Levels = np.nan_to_num(x[:, [F[name] for name in INSISTING]]).max(axis=1)
    return found


def move_retries(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Take requests that came back too soon out of the windows, until their share is `level`."""
    before = insisting(x)
    left = np.where(before > 0.0, np.minimum(1.0, level / np.maximum(before, 1e-9)), 1.0)
    # At least 0.1% is kept, so that an app that sends only retries does not cause a division by
    # zero.
    sent = np.maximum(1e-3, 1.0 - before * (1.0 - left))
    old, minute = x[:, F["rate_60s"]].copy(), np.maximum(x[:, F["rate_60s"]] * sent, 1.0 / 60.0)
    for name in INSISTING:
        x[:, F[name]] = np.minimum(1.0, x[:, F[name]] * left / sent)
        x[:, F[COUNTED[name]]] *= left
    # The shares are known only for the last minute, so ten minutes lose only requests of that
    # minute.
    for name in PACES[:3]:
        x[:, F[name]] = np.minimum(
            x[:, F[name]], np.maximum(x[:, F[name]] * sent, 1.0 / WINDOWS_S[name])
        )
    x[:, F["rate_600s"]] = np.minimum(
        x[:, F["rate_600s"]], np.maximum(1 / 600.0, x[:, F["rate_600s"]] - (old - minute) / 10.0)
    )
    x[:, F["cost_rate_60s"]] *= np.minimum(1.0, minute / np.maximum(old, 1.0 / 60.0))
    _over_usual(x, old)
    _burst_ratio(x)


def move_errors(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Lower the share of 4xx answers to `level`. Server errors stay, because they are not the
    owner's.
    """
    before = x[:, F["client_error_share_60s"]].copy()
    left = np.where(before > 0.0, np.minimum(1.0, level / np.maximum(before, 1e-9)), 1.0)
    x[:, F["error_share_60s"]] = np.maximum(0.0, x[:, F["error_share_60s"]] - before * (1.0 - left))
    for name in CLIENT_ERRORS:
        x[:, F[name]] *= left
        x[:, F[COUNTED[name]]] *= left
    for name in CLIENT_ERRORS_600S:
        x[:, F[name]] *= left


def move_paths(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Let the requests of ten minutes go to no more than `level` different paths.

    The record does not say how they would spread over those. An even spread is assumed, as it has
    the highest entropy. The busiest path, and the busiest of the level x level steps between them,
    have at least an even share.
    """
    paths = np.maximum(level, 1.0)
    for name in ("path_entropy_600s", "endpoint_entropy_60s"):
        x[:, F[name]] = np.minimum(x[:, F[name]], np.log2(paths))
    for name in ("distinct_paths_60s", "distinct_endpoints_60s"):
        x[:, F[name]] = np.minimum(x[:, F[name]], paths)
    x[:, F["busiest_path_share_600s"]] = np.maximum(x[:, F["busiest_path_share_600s"]], 1.0 / paths)
    x[:, F["busiest_step_share_600s"]] = np.maximum(
        x[:, F["busiest_step_share_600s"]], 1.0 / paths**2
    )


def fewer(name: str) -> Callable[[Rows, Rows, Levels, Ground], None]:
    """Return a move that lowers the feature `name` to `level`, at least 1."""

    def move(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
        x[:, F[name]] = np.minimum(x[:, F[name]], np.maximum(level, 1.0))

    return move
