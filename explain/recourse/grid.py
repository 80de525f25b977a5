"""The levels at which each lever is tried, smallest change first, and the size of a change.

Levels are round figures (two digits, whole percents, whole seconds), so that the page shows exactly
the level that was verified.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from decider.contracts.features import INDEX as F
from decider.contracts.signals import INDEX as S
from decider.contracts.vocabulary import Reason
from decider.whatif.moves import DAY_S, WINDOWS_S, insisting

Levels = NDArray[np.float64]

# Every second of the first minute, as Retry-After says it; coarser later, where a few seconds more
# hardly matter. Twenty minutes is the longest: by then even the ten-minute windows are empty.
WAITS_S = np.array(
    [*range(1, 61), *range(65, 181, 5), *range(210, 601, 30), *range(660, 1201, 60)], np.float64
)
# Chosen: sizes that a client would pick, finer where one item more saves more.
BATCH_SIZES = np.array([2, 3, 4, 5, 8, 10, 15, 20, 30, 40, 50, 100], np.float64)
# Requests a second: six a minute. Nobody is advised to be slower.
SLOWEST = 0.1
# Smallest change of a pace or a count, as a share of it. Chosen: nobody holds a pace more exactly,
# so "39 requests a second instead of 40" is no advice.
LEAST_CHANGE = 0.1
# Pairs of levers that are the same change in two forms.
OVERLAPPING = frozenset(
    {
        frozenset({"spread", "pace"}),
        frozenset({"pace", "day"}),
        frozenset({"spread", "day"}),
        frozenset({"resources", "paths"}),
    }
)
# Levers whose level is a feature's value.
_COUNTED = {
    "errors": "client_error_share_60s",
    "resources": "distinct_paths_60s",
    "credentials": "distinct_tokens_60s",
    "addresses": "distinct_sources_60s",
}
_NONE: Levels = np.empty(0)


def order_levers(names: Iterable[str]) -> list[str]:
    """Return levers in the order in which to pull them together: behaviour first, then the wait."""
    return sorted(names, key=lambda name: name == "wait")


def thin_out(levels: Levels, most: int) -> Levels:
    """Return at most `most` of the levels, including the first and the last."""
    if len(levels) <= most:
        return levels
    chosen: Levels = levels[np.unique(np.linspace(0, len(levels) - 1, most).astype(int))]
    return chosen


def find_level(name: str, x: Levels, s: Levels) -> float:
    """Return the current level of a lever in a record, in the lever's own unit."""
    if name in _COUNTED:
        return float(np.nan_to_num(x[F[_COUNTED[name]]]))
    match name:
        case "spread" | "pace":
            return _pace(x)
        case "day":
            return float(
                x[F["quota_used"]] * s[S["quota_limit"]] / max(1.0, DAY_S - s[S["quota_reset"]])
            )
        case "retries":
            return float(insisting(x[None, :])[0])
        case "paths":
            # At least as many as the shorter time had.
            return max(_least_paths(x), float(round(np.nan_to_num(x[F["distinct_paths_60s"]]))))
        case "batch":
            return 1.0
    return 0.0


def _least_paths(x: Levels) -> float:
    """Return the fewest paths that can have the entropy of the last ten minutes."""
    # Whole, as paths are counted.
    return float(math.ceil(2.0 ** float(np.nan_to_num(x[F["path_entropy_600s"]])) - 1e-6))


def _pace(x: Levels) -> float:
    """Return the fastest pace of the last second, ten seconds and minute, requests/s. A window that
    holds only this request is ignored.
    """
    # The ten minutes are left out: they say how long it went on, not how fast it was.
    paces = {window: float(x[F[name]]) for name, window in WINDOWS_S.items() if name != "rate_600s"}
    several = (pace for window, pace in paces.items() if pace * window > 1.5)
    return max([0.0 if math.isnan(paces[60.0]) else paces[60.0], *several])


def list_levels(
    name: str, x: Levels, s: Levels, batchable: bool, reason: int, told: float = 0.0
) -> Levels:
    """Return the levels to try for a record, smallest change first; empty when the lever does not
    apply. `told`: seconds that the response asked the client to wait, 0 for none.
    """
    quota = reason == Reason.QUOTA_EXHAUSTED
    here = find_level(name, x, s)
    less = here * (1.0 - LEAST_CHANGE)
    match name:
        case "wait":
            return (
                np.array([math.ceil(s[S["quota_reset"]])], np.float64)
                if quota
                else _waits_from(told)
            )
        # Only a spent quota asks for a pace over the whole day. Less than 1% is no real change.
        case "day":
            lasting = s[S["quota_limit"]] / DAY_S
            return (
                _round_down(min(here * 0.99, lasting), lasting / 100.0)
                if quota and here > 0.0
                else _NONE
            )
        case "spread":
            lasts = float(x[F["rate_60s"]]) <= _lasting(s)
            # No faster than the plan lasts: the bucket of who keeps a faster pace runs empty again.
            most = min(less, _lasting(s))
            return _NONE if quota or not lasts else _round_down(most, float(x[F["rate_60s"]]))
        case "pace":
            return (
                _NONE
                if quota
                else _round_down(min(less, float(x[F["rate_60s"]]) * 1.1, _lasting(s)), SLOWEST)
            )
        case "batch":
            return BATCH_SIZES if batchable and s[S["batchable"]] > 0.0 else _NONE
        # Half a percent shows as 0% or 1%, too little to give advice about.
        case "retries" | "errors":
            return _lower_shares(name, here, x)
        # Only fewer paths than the entropy needs move it.
        case "paths":
            less = min(less, _least_paths(x) * (1.0 - LEAST_CHANGE))
    return _round_down(less, 1.0, whole=True)


# Requests or answers below which only "none" is advised: 16% of three answers is no number of them.
# Chosen: one more or less of ten moves a share by a tenth.
_FEW = 10.0


def _lower_shares(name: str, here: float, x: Levels) -> Levels:
    """Return shares below `here` in whole percents, from the first below the one that is shown; 0
    alone where it is a share of few.
    """
    if here <= 0.005:
        return _NONE
    if name == "retries":
        whole = float(np.nan_to_num(x[F["rate_60s"]])) * 60.0
    else:
        whole = float(np.nan_to_num(x[F["client_errors_60s"]])) / here
    if 0.0 < whole < _FEW:
        return np.zeros(1)
    return np.arange(round(here * 100.0) - 1, -1, -1) / 100.0


def _waits_from(told: float) -> Levels:
    """Return the waits to try. Retry-After stands, so none is shorter than what the response said;
    that wait itself is the first.
    """
    if told <= 0.0:
        return WAITS_S
    return np.concatenate([[math.ceil(told)], WAITS_S[math.ceil(told) < WAITS_S]])


def _lasting(s: Levels) -> float:
    """Return the pace that the bucket sustains, requests/s. At any faster pace a refusal would only
    come a little later.
    """
    return float(s[S["bucket_rate"]])


def _round_down(high: float, low: float, *, whole: bool = False) -> Levels:
    """Return figures of two digits from `high` down to `low`, falling."""
    if not (math.isfinite(high) and math.isfinite(low) and high >= max(low, 0.0)):
        return _NONE
    low = max(low, 1e-3)
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    found = np.array(
        [round(k * 10.0 ** (d - 1), 6) for d in reversed(decades) for k in range(99, 9, -1)]
    )
    found = found[(found <= high * (1.0 + 1e-9)) & (found >= low)]
    return found[found == np.floor(found)] if whole else found


def measure_effort(name: str, before: float, after: float) -> float:
    """Return how large a change is, without a unit.

    Unlike levers have no common unit. These weights are chosen: waiting a minute, halving the
    volume and fetching ten items in a call count about the same, and spreading requests is cheaper
    than sending fewer.
    """
    halvings = (
        math.log2(max(before, 1e-9) / max(after, 1e-9)) if after > 0.0 and before > after else 0.0
    )
    match name:
        case "wait":
            return 0.1 * math.log2(1.0 + after)
        case "spread":
            return 0.05 + 0.15 * halvings
        case "pace" | "resources" | "paths" | "credentials" | "addresses":
            return 0.3 + 0.25 * halvings
        case "day":
            return 0.5 + 0.25 * halvings
        case "batch":
            return 0.4 + 0.05 * math.log2(after)
    return 0.15 + (before - after)
