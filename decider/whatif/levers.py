"""What the owner of an app can change, and how each change moves the features and signals that a
decision was made from.

A lever is one thing an owner controls. Pulling it moves every feature and signal that follows from
it together, by the definitions in `measure` and `state`; nothing else moves: not tier, age,
verification, history, cohort, not the state of a service, not what other apps or tenants do. A test
compares these sets with the registry.

| lever | level | moves |
| --- | --- | --- |
| spread | most requests a second, same volume | pace over 1 s and 10 s, bursts, tokens, own load |
| pace | requests a second, evenly, for 10 min | as spread, pace over 60 s and 600 s, cost, quota |
| day | most requests a second, the whole UTC day | as pace, and the quota by the whole day |
| wait | seconds of silence before asking again | emptying windows, retries, tokens, budget, price |
| batch | items in one call of the batch form | pace, cost, resources, tokens, writes, its cost |
| retries | share of requests sent again too soon | retry, early-retry and refused shares, pace |
| errors | share of answers that were 4xx | all 4xx shares |
| credentials | different credentials in a minute | that count |
| resources | different resources in a minute | that count |

Where the record does not say what a move would do exactly, the estimate favours refusing: tokens
are a lower bound; of a sliding window, whose two buckets are recorded as one rate, as much is left
as can be (`most_left`); and a request that is asked again counts in its own windows, as a retry,
and as an early one before the client's Retry-After has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decider.contracts.features import INDEX as F
from decider.contracts.features import Unit
from decider.contracts.signals import INDEX as S
from decider.engine.app_state import EPOCH
from decider.engine.shared_state import RECOVERY, USE_TAU_S

Rows = NDArray[np.float64]
Levels = NDArray[np.float64]

WINDOWS_S = {"rate_1s": 1.0, "rate_10s": 10.0, "rate_60s": 60.0, "rate_600s": 600.0}
PACES = tuple(WINDOWS_S)
CLIENT_ERRORS = (
    "client_error_share_60s",
    "auth_error_share_60s",
    "not_found_share_60s",
    "payment_error_share_60s",
)
INSISTING = ("refused_share_60s", "retry_share_60s", "early_retry_share_60s")
# Silence after which the sliding minute is empty whatever the clock (`measure._in_window`).
FORGOTTEN_S = 120.0
# A request for the same resource within this time counts as a retry (`state.observe`).
RETRY_S = 60.0
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What of the config document a move needs to know."""

    quota: float
    """Requests a day this node may admit without a lease; where it is not known, the whole quota.
    """
    budget_per_hour: float
    """Error budget of the tier, expected false throttles an hour."""
    batch_cost: float
    """Cost units of one call of the endpoint's batch form."""
    batch_writes: bool
    """Whether that call counts as a write."""
    at: float
    """When it was decided, unix seconds: it places the sliding windows."""
    told: float
    """Seconds the client was told to wait, 0 for none: who asks again sooner counts as an early
    retry.
    """


@dataclass(frozen=True, slots=True)
class Lever:
    """One thing an owner controls."""

    name: str
    label: str
    unit: Unit
    rises: bool
    """Whether pulling it means more of it (waiting, batch size) or less."""
    features: frozenset[str]
    """Features it may move."""
    signals: frozenset[str]
    move: Callable[[Rows, Rows, Levels, Ground], None]
    """Moves features (n, N_FEATURES) and signals (n, N_SIGNALS) in place, row k to `level[k]`."""


def own_use(x: Rows, s: Rows) -> Levels:
    """At most what the app itself adds to its tenant's use of the service, cost units a second
    (n,).
    """
    mean_cost = np.maximum(x[:, F["cost_rate_60s"]], 0.0) / np.maximum(
        x[:, F["rate_60s"]], 1.0 / 60.0
    )
    admitted = x[:, F["rate_10s"]] * (1.0 - x[:, F["refused_share_60s"]])
    return np.minimum(s[:, S["tenant_usage"]], np.nan_to_num(admitted * mean_cost))


def _use_less(x: Rows, s: Rows, own: Levels, keep: Levels) -> None:
    """The app's own part of its tenant's use falls to the share `keep` of it; the other apps' parts
    stay.
    """
    before = s[:, S["tenant_usage"]].copy()
    s[:, S["tenant_usage"]] = before - own * (1.0 - keep)
    x[:, F["tenant_share"]] *= np.where(
        before > 0.0, s[:, S["tenant_usage"]] / np.where(before > 0.0, before, 1.0), 1.0
    )


def _burst_ratio(x: Rows) -> None:
    x[:, F["burst_ratio"]] = x[:, F["rate_1s"]] / np.maximum(x[:, F["rate_60s"]], 1.0 / 60.0)


def _tokens_at(x: Rows, s: Rows, slower: dict[str, Levels]) -> Levels:
    """A lower bound of the tokens left, had each window's pace been `slower`, all of it admitted.

    Over a window of w seconds: level now >= level then + (refill - pace) * w, and the level then is
    at least what the level now and the admitted requests imply. The best of the four bounds counts.
    """
    rate, burst, tokens = s[:, S["bucket_rate"]], s[:, S["bucket_burst"]], s[:, S["tokens"]]
    best = tokens.copy()
    for name, window in WINDOWS_S.items():
        admitted = x[:, F[name]] * (1.0 - np.nan_to_num(x[:, F["refused_share_60s"]]))
        then = np.clip(tokens + (admitted - rate) * window, -burst, burst)
        best = np.maximum(best, np.minimum(burst, then + (rate - slower[name]) * window))
    return best


def _at_pace(x: Rows, s: Rows, slower: dict[str, Levels]) -> None:
    """Moves everything that follows from the pace of the four windows."""
    old, minute = x[:, F["rate_60s"]].copy(), np.maximum(slower["rate_60s"], 1.0 / 60.0)
    own = own_use(x, s)
    s[:, S["tokens"]] = _tokens_at(x, s, slower)
    saved = np.maximum(0.0, (x[:, F["rate_600s"]] - slower["rate_600s"]) * 600.0)
    saved *= 1.0 - np.nan_to_num(x[:, F["refused_share_60s"]])
    s[:, S["quota_left"]] += saved
    x[:, F["quota_used"]] = np.maximum(
        0.0, x[:, F["quota_used"]] - saved / np.maximum(s[:, S["quota_limit"]], 1.0)
    )
    ten = np.where(
        x[:, F["rate_10s"]] > 0.0, slower["rate_10s"] / np.maximum(x[:, F["rate_10s"]], 1e-9), 1.0
    )
    for name in PACES:
        x[:, F[name]] = slower[name]
    keep = np.minimum(1.0, minute / np.maximum(old, 1.0 / 60.0))
    x[:, F["cost_rate_60s"]] *= keep
    x[:, F["distinct_paths_60s"]] = np.maximum(
        np.minimum(1.0, x[:, F["distinct_paths_60s"]]), x[:, F["distinct_paths_60s"]] * keep
    )
    _burst_ratio(x)
    _use_less(x, s, own, np.clip(ten, 0.0, 1.0))


def _at_most(x: Rows, level: Levels, windows: tuple[str, ...]) -> dict[str, Levels]:
    """The pace of each window when none of `windows` may exceed `level`; this request itself stays
    in all of them.
    """
    slower = {name: x[:, F[name]].copy() for name in PACES}
    for name in windows:
        slower[name] = np.minimum(slower[name], np.maximum(level, 1.0 / WINDOWS_S[name]))
    return slower


def _even(x: Rows) -> None:
    """Requests spread evenly come in no clumps: their gaps vary by no more than those of random
    arrivals.
    """
    x[:, F["gap_cv"]] = np.minimum(x[:, F["gap_cv"]], 1.0)


def _spread(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    _at_pace(x, s, _at_most(x, level, PACES[:2]))
    _even(x)


def _pace(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    _at_pace(x, s, _at_most(x, level, PACES))
    _even(x)


def _day(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """The quota as it would stand had the app sent no more than `level` a second since midnight
    UTC.
    """
    elapsed = DAY_S - s[:, S["quota_reset"]]
    used = x[:, F["quota_used"]] * s[:, S["quota_limit"]]
    saved = np.maximum(0.0, used - level * elapsed)
    _pace(x, s, level, ground)
    left = s[:, S["quota_left"]]
    s[:, S["quota_left"]] = np.maximum(left, np.minimum(ground.quota, left + saved))
    x[:, F["quota_used"]] = np.maximum(
        0.0, (used - saved) / np.maximum(s[:, S["quota_limit"]], 1.0)
    )


def most_left(at: float, level: Levels, window: float) -> Levels:
    """Of what a sliding window counts at `at`, unix seconds, the largest share still in it after a
    silence of `level` seconds (n,).

    The count is the bucket that runs plus the rest of the one before (`measure._in_window`), and
    the record does not say how much is in which. Most is left when all of it is in the one that
    runs.
    """
    before, after = np.floor((at - EPOCH) / window), (at + level - EPOCH) / window
    moved, keep = np.floor(after) - before, 1.0 - (after - np.floor(after))
    return np.where(moved <= 0.0, 1.0, np.where(moved == 1.0, keep, 0.0))


def _wait(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """As `passes.project` sees a client that asks again after a silence, with the request itself
    counted.
    """
    own, silent = own_use(x, s), level > 0.0
    usual = (
        60.0 * x[:, F["rate_60s"]] * np.maximum(0.0, 1.0 - level / 60.0)
    )  # left of even traffic, to which a retry adds
    for name, window in WINDOWS_S.items():
        left = x[:, F[name]] * most_left(ground.at, level, window) + 1.0 / window
        x[:, F[name]] = np.where(silent, left, x[:, F[name]])
    x[:, F["cost_rate_60s"]] = np.where(
        silent,
        x[:, F["cost_rate_60s"]] * most_left(ground.at, level, 60.0) + s[:, S["cost"]] / 60.0,
        x[:, F["cost_rate_60s"]],
    )
    retried = silent & (level < RETRY_S)
    for name, counts in (
        ("refused_share_60s", silent),
        ("retry_share_60s", retried),
        ("early_retry_share_60s", retried & (level < ground.told)),
    ):
        x[:, F[name]] = np.where(
            counts, (x[:, F[name]] * usual + 1.0) / (usual + 1.0), x[:, F[name]]
        )
    _forget(x, level >= FORGOTTEN_S)
    _burst_ratio(x)
    _pass_time(x, s, level, ground)
    _use_less(x, s, own, np.exp(-level / USE_TAU_S))


def _forget(x: Rows, gone: NDArray[np.bool_]) -> None:
    """The sliding minute holds nothing but the request that is asked again."""
    for name in (
        *CLIENT_ERRORS,
        *INSISTING,
        "error_share_60s",
        "server_error_share_60s",
        "endpoint_entropy_60s",
    ):
        x[gone, F[name]] = 0.0
    for name in ("distinct_endpoints_60s", "distinct_paths_60s", "distinct_tokens_60s"):
        x[gone, F[name]] = np.minimum(x[gone, F[name]], 1.0)


def _pass_time(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """What a clock does: buckets refill, budgets too, prices are expected to fall, a day may
    end.
    """
    silent = level > 0.0
    x[:, F["seconds_since_last"]] = np.where(
        silent, np.minimum(DAY_S, level), x[:, F["seconds_since_last"]]
    )
    x[:, F["seconds_since_first"]] += level
    age = x[:, F["feedback_age"]]
    x[:, F["feedback_age"]] = np.where(age < 3600.0, np.minimum(3600.0, age + level), age)
    s[:, S["tokens"]] = np.minimum(
        s[:, S["bucket_burst"]], s[:, S["tokens"]] + level * s[:, S["bucket_rate"]]
    )
    s[:, S["service_price"]] = np.maximum(0.0, s[:, S["service_price"]] - RECOVERY * level)
    budget = s[:, S["error_budget_left"]]
    s[:, S["error_budget_left"]] = np.minimum(
        np.maximum(budget, ground.budget_per_hour), budget + level * ground.budget_per_hour / 3600.0
    )
    leased = (s[:, S["lease_due"]] > 0.0) & (
        level >= s[:, S["lease_due"]]
    )  # expected to arrive, as prices are to fall
    s[:, S["quota_left"]] = np.where(
        leased, np.maximum(1.0, s[:, S["quota_left"]]), s[:, S["quota_left"]]
    )
    over = level >= s[:, S["quota_reset"]]
    s[:, S["quota_left"]] = np.where(over, ground.quota, s[:, S["quota_left"]])
    x[:, F["quota_used"]] = np.where(over, 0.0, x[:, F["quota_used"]])
    s[:, S["quota_reset"]] = np.where(over, DAY_S, s[:, S["quota_reset"]] - level)


def batched_share(x: Rows) -> Levels:
    """At least this share of the minute's requests went to the endpoint asked most, by the entropy
    over endpoints (n,).

    No distribution of entropy H bits has a largest share under 2^-H.
    """
    return np.asarray(
        np.exp2(-np.maximum(0.0, np.nan_to_num(x[:, F["endpoint_entropy_60s"]]))), np.float64
    )


def _batch(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """`level` single requests become one call: fewer requests, each of the batch form's cost. Sizes
    stay, the record has no say.
    """
    share, size = batched_share(x), np.maximum(level, 1.0)
    keep = 1.0 - share + share / size
    single, minute, paths = (
        s[:, S["cost"]].copy(),
        x[:, F["rate_60s"]].copy(),
        x[:, F["distinct_paths_60s"]].copy(),
    )
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
    s[:, S["batchable"]] = 0.0


def insisting(x: Rows) -> Levels:
    """Share of the minute's requests sent again too soon or while being refused (n,)."""
    found: Levels = np.nan_to_num(x[:, [F[name] for name in INSISTING]]).max(axis=1)
    return found


def _retries(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Requests that come back too soon are not sent at all; what is left of the windows are the
    others.
    """
    before = insisting(x)
    left = np.where(before > 0.0, np.minimum(1.0, level / np.maximum(before, 1e-9)), 1.0)
    sent = np.maximum(1e-3, 1.0 - before * (1.0 - left))
    old, minute = x[:, F["rate_60s"]].copy(), np.maximum(x[:, F["rate_60s"]] * sent, 1.0 / 60.0)
    for name in INSISTING:
        x[:, F[name]] = np.minimum(1.0, x[:, F[name]] * left / sent)
    for name in PACES[:3]:
        x[:, F[name]] = np.minimum(
            x[:, F[name]], np.maximum(x[:, F[name]] * sent, 1.0 / WINDOWS_S[name])
        )
    x[:, F["rate_600s"]] = np.minimum(
        x[:, F["rate_600s"]], np.maximum(1 / 600.0, x[:, F["rate_600s"]] - (old - minute) / 10.0)
    )
    x[:, F["cost_rate_60s"]] *= np.minimum(1.0, minute / np.maximum(old, 1.0 / 60.0))
    _burst_ratio(x)


def _errors(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
    """Requests that failed are sent right; server errors are not the owner's."""
    before = x[:, F["client_error_share_60s"]].copy()
    left = np.where(before > 0.0, np.minimum(1.0, level / np.maximum(before, 1e-9)), 1.0)
    x[:, F["error_share_60s"]] = np.maximum(0.0, x[:, F["error_share_60s"]] - before * (1.0 - left))
    for name in CLIENT_ERRORS:
        x[:, F[name]] *= left


def _fewer(name: str) -> Callable[[Rows, Rows, Levels, Ground], None]:
    def move(x: Rows, s: Rows, level: Levels, ground: Ground) -> None:
        x[:, F[name]] = np.minimum(x[:, F[name]], np.maximum(level, 1.0))

    return move


_PACED = frozenset(
    {*PACES, "burst_ratio", "cost_rate_60s", "quota_used", "distinct_paths_60s", "tenant_share"}
)
_SPENT = frozenset({"tokens", "quota_left", "tenant_usage"})
_ELAPSED = frozenset({"seconds_since_last", "seconds_since_first", "feedback_age"})
_MINUTE = frozenset(
    {
        *CLIENT_ERRORS,
        *INSISTING,
        "error_share_60s",
        "server_error_share_60s",
        "endpoint_entropy_60s",
        "distinct_endpoints_60s",
        "distinct_tokens_60s",
    }
)

# In the order in which equals are preferred.
LEVERS: tuple[Lever, ...] = (
    Lever(
        "wait",
        "Wait before asking again",
        "seconds",
        True,
        _PACED | _ELAPSED | _MINUTE,
        _SPENT | {"service_price", "error_budget_left", "quota_reset"},
        _wait,
    ),
    Lever("spread", "Most requests a second", "per_s", False, _PACED | {"gap_cv"}, _SPENT, _spread),
    Lever(
        "retries",
        "Requests sent again too soon",
        "share",
        False,
        frozenset({*PACES, *INSISTING, "burst_ratio", "cost_rate_60s"}),
        frozenset(),
        _retries,
    ),
    Lever(
        "batch",
        "Items in one call",
        "count",
        True,
        _PACED | {"request_cost", "write_share_60s"},
        _SPENT | {"cost", "batchable"},
        _batch,
    ),
    Lever(
        "errors",
        "Answers that were 4xx",
        "share",
        False,
        frozenset({*CLIENT_ERRORS, "error_share_60s"}),
        frozenset(),
        _errors,
    ),
    Lever("pace", "Requests a second", "per_s", False, _PACED | {"gap_cv"}, _SPENT, _pace),
    Lever(
        "day", "Requests a second over the day", "per_s", False, _PACED | {"gap_cv"}, _SPENT, _day
    ),
    Lever(
        "resources",
        "Different resources in a minute",
        "count",
        False,
        frozenset({"distinct_paths_60s"}),
        frozenset(),
        _fewer("distinct_paths_60s"),
    ),
    Lever(
        "credentials",
        "Different credentials in a minute",
        "count",
        False,
        frozenset({"distinct_tokens_60s"}),
        frozenset(),
        _fewer("distinct_tokens_60s"),
    ),
)
BY_NAME: dict[str, Lever] = {lever.name: lever for lever in LEVERS}
