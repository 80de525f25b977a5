"""Which requests are retries: one repeat of a request that was refused, once for each refusal."""

from __future__ import annotations

import numpy as np
from numba import njit

from decider.engine.memory.windows import EPOCH

# Entries of refused requests for each app; like requests share one. Chosen: a cache line. When an
# app needs more, the entry that ends first is forgotten, so fewer of its repeats count as retries.
REFUSED = 8
# Seconds: a repeat counts as a retry within twice the wait that was told, but at least for so long.
# Chosen: clients that heed no Retry-After give up or come back within a minute.
RETRY_WITHIN_S = 60.0
# An entry of State.refused: 24 bits tell the request, 8 count its refusals, 32 are the whole second
# after EPOCH up to which a repeat counts.
_COUNT_BITS, _UNTIL_BITS = np.uint64(8), np.uint64(32)
_COUNT_MASK, _UNTIL_MASK = np.uint64(0xFF), np.uint64(0xFFFF_FFFF)
_ONE_REFUSAL = np.uint64(1 << 32)
# Odd 64-bit numbers (the fractional parts of the golden ratio, the roots of 2 and of 3): path,
# credential and endpoint are keyed hashes, so any mix that depends on their order will do.
_MIX_PATH, _MIX_TOKEN, _MIX_ENDPOINT = (
    np.uint64(0x9E3779B97F4A7C15),
    np.uint64(0x6A09E667F3BCC909),
    np.uint64(0xBB67AE8584CAA73B),
)


@njit(cache=True, inline="always")
def _mark_of(path: np.uint64, token: np.uint64, endpoint: np.uint64) -> np.uint64:
    """Return what tells a request in `State.refused`, 24 bits: its method, path and credential."""
    # the hash of an endpoint covers the method; the high bits of a product depend on all of it
    mixed = path * _MIX_PATH + token * _MIX_TOKEN + endpoint * _MIX_ENDPOINT
    return (mixed >> np.uint64(40)) << (_COUNT_BITS + _UNTIL_BITS)


@njit(cache=True, inline="always")
def _is_of(entry: np.uint64, mark: np.uint64) -> bool:
    """Return whether an entry of `State.refused` is of the request with this mark."""
    return bool((entry ^ mark) >> (_COUNT_BITS + _UNTIL_BITS) == np.uint64(0))


@njit(cache=True)
def note(
    refused: np.ndarray,
    slot: int,
    now: float,
    path: np.uint64,
    token: np.uint64,
    endpoint: np.uint64,
    wait: float,
) -> None:
    """Remember a refused request, so that one repeat of it counts as a retry.

    `refused`: of all slots, as `State.refused`. `wait`: seconds that the client was told to wait, 0
    for none. A repeat counts within twice that, or within RETRY_WITHIN_S if that is longer; of like
    requests, within the longest time of them.
    """
    row, mark = refused[slot], _mark_of(path, token, endpoint)
    until = np.uint64(max(0.0, now + max(RETRY_WITHIN_S, 2.0 * wait) - EPOCH)) & _UNTIL_MASK
    second, place = np.uint64(max(0.0, now - EPOCH)), 0
    for k in range(REFUSED):
        ends = row[k] & _UNTIL_MASK
        if ends > second and _is_of(row[k], mark):
            count = min(_COUNT_MASK, ((row[k] >> _UNTIL_BITS) & _COUNT_MASK) + np.uint64(1))
            row[k] = mark | count << _UNTIL_BITS | max(ends, until)
            return
        # in an empty entry this is 0
        if ends < row[place] & _UNTIL_MASK:
            place = k
    row[place] = mark | _ONE_REFUSAL | until


@njit(cache=True)
def repeats(
    refused: np.ndarray,
    slot: int,
    now: float,
    path: np.uint64,
    token: np.uint64,
    endpoint: np.uint64,
    told: bool,
) -> bool:
    """Return whether a request repeats a refused one, and forget that refusal.

    So retries are never more than refusals. `told`: a trusted gateway says that this is a retry;
    then it counts as a repeat of any refusal that is remembered.
    """
    row, mark = refused[slot], _mark_of(path, token, endpoint)
    second = np.uint64(max(0.0, now - EPOCH))
    found = -1
    for k in range(REFUSED):
        if row[k] & _UNTIL_MASK > second:
            if _is_of(row[k], mark):
                found = k
                break
            if told:
                found = k
    if found < 0:
        return False
    left = ((row[found] >> _UNTIL_BITS) & _COUNT_MASK) - np.uint64(1)
    row[found] = row[found] - _ONE_REFUSAL if left > np.uint64(0) else np.uint64(0)
    return True
