"""Levers: what the owner of an app can change, and how each change moves the features and signals
that a decision was made from.

A lever is one thing an owner controls. Pulling it moves together every feature and signal that
follows from it, by the definitions in `engine.features_of` and `engine.memory.app_state`. Nothing
else moves: not tier, age, verification, history or cohort, not the state of a service, not what
other apps or tenants do. A test compares these sets with the registry.

| lever | level | moves |
| --- | --- | --- |
| spread | most requests a second, same volume | pace over 1 s and 10 s, bursts, tokens, own load |
| pace | requests a second, evenly, for 10 min | as spread, pace over 60 s and 600 s, cost, quota |
| day | most requests a second, the whole UTC day | as pace, and the quota by the whole day |
| wait | seconds of silence before asking again | windows, retries, tokens, budget, price, place |
| batch | items in one call of the batch form | pace, cost, paths, tokens, writes, its cost |
| retries | share of requests refused or repeating refused ones | shares and counts of such, pace |
| errors | share of answers that were 4xx | shares and counts of all 4xx answers |
| credentials | different credentials in two minutes | that count |
| resources | different paths in two minutes | that count |
| paths | different paths in twenty minutes | that spread, paths, endpoints, the busiest |
| addresses | different IP addresses in two minutes | that count |

How far each goes is in `moves`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from decider.contracts.features import Unit
from decider.whatif.moves import (
    CLIENT_ERRORS,
    CLIENT_ERRORS_600S,
    COUNTED,
    COUNTS,
    INSISTING,
    PACES,
    PACES_OVER_USUAL,
    TEN_MINUTES,
    Ground,
    Levels,
    Rows,
    fewer,
    move_batch,
    move_day,
    move_errors,
    move_pace,
    move_paths,
    move_retries,
    move_spread,
    move_wait,
)


@dataclass(frozen=True, slots=True)
class Lever:
    """One thing an owner controls."""

    name: str
    label: str
    unit: Unit
    rises: bool
    """Whether pulling it means more (waiting, batch size) or less (all others)."""
    features: frozenset[str]
    """Features it may move."""
    signals: frozenset[str]
    move: Callable[[Rows, Rows, Levels, Ground], None]
    """Moves features (n, N_FEATURES) and signals (n, N_SIGNALS) in place, row k to `level[k]`."""


# What the levers move, in groups: by pace, by tokens spent, by time, by an emptied minute.
_PACED = frozenset(
    {
        *PACES,
        *COUNTS,
        *PACES_OVER_USUAL,
        "burst_ratio",
        "cost_rate_60s",
        "quota_used",
        "quota_pace",
        "distinct_paths_60s",
        "sign_ins_60s",
        "tenant_share",
    }
)
_SPENT = frozenset({"tokens", "quota_left", "tenant_usage"})
_ELAPSED = frozenset({"seconds_since_last", "seconds_since_first", "feedback_age"})
_MINUTE = frozenset(
    {
        *COUNTED,
        *COUNTS,
        "error_share_60s",
        "server_error_share_60s",
        "endpoint_entropy_60s",
        "distinct_endpoints_60s",
        "distinct_tokens_60s",
    }
)
_LONGER = frozenset(
    {
        *TEN_MINUTES,
        "busiest_path_share_600s",
        "busiest_step_share_600s",
        "apps_of_source_600s",
    }
)

# Of levers that do equally well, the first one is preferred. Chosen: what an owner can do at once
# comes first.
LEVERS: tuple[Lever, ...] = (
    Lever(
        "wait",
        "Wait before asking again",
        "seconds",
        True,
        _PACED | _ELAPSED | _MINUTE | _LONGER,
        _SPENT | {"service_price", "error_budget_left", "quota_reset", "waited"},
        move_wait,
    ),
    Lever(
        "spread", "Most requests a second", "per_s", False, _PACED | {"gap_cv"}, _SPENT, move_spread
    ),
    Lever(
        "retries",
        "Requests refused or repeating refused ones",
        "share",
        False,
        frozenset(
            {
                *PACES,
                *INSISTING,
                *(COUNTED[name] for name in INSISTING),
                *PACES_OVER_USUAL,
                "burst_ratio",
                "cost_rate_60s",
            }
        ),
        frozenset(),
        move_retries,
    ),
    Lever(
        "batch",
        "Items in one call",
        "count",
        True,
        _PACED | {"request_cost", "write_share_60s"},
        _SPENT | {"cost", "batchable"},
        move_batch,
    ),
    Lever(
        "errors",
        "Answers that were 4xx",
        "share",
        False,
        frozenset(
            {
                *CLIENT_ERRORS,
                *CLIENT_ERRORS_600S,
                *(COUNTED[name] for name in CLIENT_ERRORS),
                "error_share_60s",
            }
        ),
        frozenset(),
        move_errors,
    ),
    Lever("pace", "Requests a second", "per_s", False, _PACED | {"gap_cv"}, _SPENT, move_pace),
    Lever(
        "day",
        "Requests a second over the day",
        "per_s",
        False,
        _PACED | {"gap_cv"},
        _SPENT,
        move_day,
    ),
    Lever(
        "resources",
        "Different paths in two minutes",
        "count",
        False,
        frozenset({"distinct_paths_60s"}),
        frozenset(),
        fewer("distinct_paths_60s"),
    ),
    Lever(
        "paths",
        "Different paths in twenty minutes",
        "count",
        False,
        frozenset(
            {
                "path_entropy_600s",
                "distinct_paths_60s",
                "endpoint_entropy_60s",
                "distinct_endpoints_60s",
                "busiest_path_share_600s",
                "busiest_step_share_600s",
            }
        ),
        frozenset(),
        move_paths,
    ),
    Lever(
        "addresses",
        "Different IP addresses in two minutes",
        "count",
        False,
        frozenset({"distinct_sources_60s"}),
        frozenset(),
        fewer("distinct_sources_60s"),
    ),
    Lever(
        "credentials",
        "Different credentials in two minutes",
        "count",
        False,
        frozenset({"distinct_tokens_60s"}),
        frozenset(),
        fewer("distinct_tokens_60s"),
    ),
)
BY_NAME: dict[str, Lever] = {lever.name: lever for lever in LEVERS}
