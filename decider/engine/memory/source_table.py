"""What is known of addresses: which apps send from them, how many of those are new, and how their
requests end.

An abuser that takes a new app id leaves its record behind, but seldom its addresses. A row stands
for one address. The hash of an address names the `WAYS` rows where it may stand; when all are
taken, the one not seen for longest gives way. So memory is bounded whatever clients send, and a
forgotten address is like one never seen.

Counts and distinct apps are over sliding windows of two buckets, as in `app_state`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from decider.engine.memory.linear_counting import distinct
from decider.engine.memory.prefetch import prefetch
from decider.engine.memory.windows import EPOCH

# Seconds. Chosen: the ten minutes for which an app's own record lasts.
WINDOW_S = 600.0
# Rows where one address may stand. Chosen: with as many addresses as a quarter of the rows, less
# than one in a thousand shares a row with three others of the same window.
WAYS = 4
# columns of Sources.counts (float32): pairs of current and previous window
NEW, ANSWERS, FAILED = range(0, 6, 2)
N_COUNTS = 6  # three pairs
# places in a view of an address
V_APPS, V_NEW, V_FAILED_SHARE = range(3)


class Sources(NamedTuple):
    """Arrays of `size` rows, a power of two."""

    key: np.ndarray
    """uint64 (size,): keyed hash of the address, 0 for an empty row."""
    window: np.ndarray
    """int32 (size,): number of the current window."""
    apps: np.ndarray
    """uint64 (size, 2): bitmaps of its apps, current and previous window."""
    counts: np.ndarray
    """float32 (size, N_COUNTS)."""
    bucket: np.ndarray
    """float64 (size, 2): tokens that unknown apps of the address share, and as of when; 0 for
    never.
    """


def allocate(size: int) -> Sources:
    """Return an empty table with room for at least `size` addresses."""
    rows = 1 << max(4, (size - 1).bit_length())
    return Sources(
        np.zeros(rows, np.uint64),
        np.zeros(rows, np.int32),
        np.zeros((rows, 2), np.uint64),
        np.zeros((rows, N_COUNTS), np.float32),
        np.zeros((rows, 2)),
    )


@njit(cache=True, inline="always")
def _first(sources: Sources, source: np.uint64) -> np.int64:
    """Return the first of the rows where an address may stand."""
    # high bits: the low ones place apps in bitmaps
    return np.int64((source >> np.uint64(20)) & np.uint64(sources.key.shape[0] - 1)) & ~(WAYS - 1)


@njit(cache=True)
def fetch(sources: Sources, source: np.uint64) -> None:
    """Ask the processor to fetch the rows where an address may stand."""
    first = _first(sources, source)
    prefetch(sources.key, first)
    prefetch(sources.window, first)
    prefetch(sources.apps, 2 * first)
    # four rows are 96 bytes: two lines, or three where they begin late in one
    prefetch(sources.counts, N_COUNTS * first)
    prefetch(sources.counts, N_COUNTS * (first + WAYS) - 1)


@njit(cache=True, inline="always")
def _find(sources: Sources, source: np.uint64) -> int:
    """Return the row of an address, -1 when it has none."""
    first = _first(sources, source)
    for row in range(first, first + WAYS):
        if sources.key[row] == source:
            return row
    return -1


@njit(cache=True, inline="always")
def _number(now: float) -> int:
    return math.floor((now - EPOCH) / WINDOW_S)


@njit(cache=True, inline="always")
def _row(sources: Sources, source: np.uint64, now: float) -> int:
    """Return the row of an address, its windows rolled to `now`; another may give way for it."""
    number, row = _number(now), _find(sources, source)
    if row < 0:
        first = row = int(_first(sources, source))
        for k in range(first, first + WAYS):
            if sources.key[k] == 0:
                row = k
                break
            if sources.window[k] < sources.window[row]:
                row = k
        sources.key[row], sources.window[row] = source, number
        sources.apps[row, :], sources.counts[row, :], sources.bucket[row, :] = 0, 0.0, 0.0
        return row
    step = number - sources.window[row]
    if step > 0:
        sources.window[row] = number
        sources.apps[row, 1] = sources.apps[row, 0] if step == 1 else np.uint64(0)
        sources.apps[row, 0] = 0
        for column in range(0, N_COUNTS, 2):
            kept = sources.counts[row, column] if step == 1 else 0.0
            sources.counts[row, column + 1], sources.counts[row, column] = kept, 0.0
    return row


@njit(cache=True, inline="always")
def note_request(
    sources: Sources, source: np.uint64, app: np.uint64, new: bool, now: float
) -> None:
    """Count an app's request that came from an address. `new`: first request of an unknown app."""
    if source == 0:
        return
    row = _row(sources, source, now)
    # other bits than those that place the app in the engine's table
    sources.apps[row, 0] |= np.uint64(1) << ((app >> np.uint64(40)) & np.uint64(63))
    if new:
        sources.counts[row, NEW] += 1.0


@njit(cache=True)
def note_answer(sources: Sources, source: np.uint64, failed: bool, now: float) -> None:
    """Count an answer to a request that came from an address. `failed`: a 4xx."""
    if source == 0:
        return
    row = _row(sources, source, now)
    sources.counts[row, ANSWERS] += 1.0
    if failed:
        sources.counts[row, FAILED] += 1.0


@njit(cache=True, inline="always")
def look(sources: Sources, source: np.uint64, now: float, view: np.ndarray) -> None:
    """Write what is known of an address at `now`, which may lie ahead, into `view`, float64 (3,).

    These are an estimate of how many apps it has, how many of them were new, and the share of
    failed answers. The table does not change.
    """
    view[:] = 0.0
    row = _find(sources, source) if source != 0 else -1
    if row < 0:
        return
    moved = _number(now) - sources.window[row]
    if moved > 1:
        return
    keep = 1.0 - ((now - EPOCH) / WINDOW_S - _number(now))
    bits = sources.apps[row, 0]
    if moved <= 0:
        bits |= sources.apps[row, 1]
    view[V_APPS] = distinct(bits)
    view[V_NEW] = _in_window(sources, row, NEW, keep, moved)
    answers = _in_window(sources, row, ANSWERS, keep, moved)
    if answers > 0.0:
        view[V_FAILED_SHARE] = _in_window(sources, row, FAILED, keep, moved) / answers


@njit(cache=True, inline="always")
def _in_window(sources: Sources, row: int, column: int, keep: float, moved: int) -> float:
    """Return the count in a sliding window, as `features_of` does for apps."""
    now, before = float(sources.counts[row, column]), float(sources.counts[row, column + 1])
    return now + keep * before if moved <= 0 else keep * now


@njit(cache=True)
def refill(sources: Sources, source: np.uint64, rate: float, burst: float, now: float) -> float:
    """Refill the bucket that unknown apps of an address share, and return its tokens.

    Clients without an address share one, too.
    """
    row = _row(sources, max(source, np.uint64(1)), now)
    bucket = sources.bucket[row]
    if bucket[1] == 0.0:
        bucket[0] = burst
    else:
        bucket[0] = min(burst, bucket[0] + rate * max(0.0, now - bucket[1]))
    bucket[1] = max(now, bucket[1])
    return float(bucket[0])


@njit(cache=True)
def spend(sources: Sources, source: np.uint64, now: float) -> None:
    """Take a token from the bucket of an address. Call `refill` for it first."""
    sources.bucket[_row(sources, max(source, np.uint64(1)), now), 0] -= 1.0
