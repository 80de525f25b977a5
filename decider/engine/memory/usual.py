"""What is usual: what endpoints answer, and how fast the apps of a tier and of a tenant send;
compiled.

A sign-in that failed often answers 200 or a redirect, as one that worked does, but with another
page. So each endpoint's answers are counted by status and size. An answer that is rare at its
endpoint says more about an app than its status alone. An app's answers count by the logarithm of
their number, so a loud client does not make its own answers the usual ones.

Usual paces are geometric means over apps, because rates are spread over powers of ten.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

# Endpoints whose answers are remembered, and how many rows an endpoint may stand in. Chosen: more
# endpoints than a platform has; of those that share four rows, the least known gives way.
ENDPOINTS, WAYS = 4_096, 4
# Kinds of answers: 16 sizes of a 2xx, each twice the one before and the first below 64 bytes; not
# modified, other 3xx, 401 and 403, 402, 404 and 410, 429, other 4xx, and the rest.
SIZES = 16
(UNCHANGED, REDIRECT, DENIED, UNPAID, MISSING, TOO_MANY, OTHER_4XX, REST, KINDS) = range(
    SIZES, SIZES + 9
)
# Weight of an endpoint's answers from which on its usual ones are known; and weight at which all
# are halved, so that they follow a new release within days. Chosen: the answers of about ten apps,
# and of some hundred.
LEAST_ANSWERS, MOST_ANSWERS = 20.0, 500.0
# The rarest kinds that together make up this share of an endpoint's answers are unusual. Chosen:
# more often than one time in five is not rare, and sign-ins fail less often than that.
RARE = 0.2
# Weight of paces from which on the usual one is known, and beyond which the oldest fade. One app
# adds 1 a minute. Chosen: fewer than five apps are no crowd, and a thousand tell a mean to a tenth.
LEAST_PACES, MOST_PACES = 5.0, 1_000.0
# columns of Usual.pace: mean of log2 of requests a minute, and its weight
MEAN, WEIGHT = range(2)


class Usual(NamedTuple):
    """Arrays of what one decider knows to be usual."""

    key: np.ndarray
    """uint64 (ENDPOINTS,): keyed hash of the endpoint, 0 for an empty row."""
    answers: np.ndarray
    """float32 (ENDPOINTS, KINDS): weight of its answers of each kind."""
    pace: np.ndarray
    """float32 (tenants, 2): by row of the tenant or, for a tier, its shared row."""


def allocate(tenants: int) -> Usual:
    """Return empty arrays, with rows of paces for `tenants`."""
    return Usual(
        np.zeros(ENDPOINTS, np.uint64),
        np.zeros((ENDPOINTS, KINDS), np.float32),
        np.zeros((tenants, 2), np.float32),
    )


@njit(cache=True, inline="always")
def kind_of(status: int, size: float) -> int:
    """Return the kind of an answer. `size`: of its body, bytes."""
    if 200 <= status < 300:
        return min(SIZES - 1, max(0, int(math.log2(size + 1.0)) - 5))
    if 300 <= status < 400:
        return UNCHANGED if status == 304 else REDIRECT
    if status == 401 or status == 403:
        return DENIED
    if status == 402:
        return UNPAID
    if status == 404 or status == 410:
        return MISSING
    if status == 429:
        return TOO_MANY
    return OTHER_4XX if 400 <= status < 500 else REST


@njit(cache=True)
def _row(usual: Usual, endpoint: np.uint64) -> int:
    """Return the row of an endpoint; for a new one, the least used of its WAYS rows gives way."""
    first = int(np.int64(endpoint & np.uint64(ENDPOINTS - 1))) & ~(WAYS - 1)
    row, least = first, np.inf
    for k in range(first, first + WAYS):
        if usual.key[k] == endpoint:
            return k
        weight = usual.answers[k].sum() if usual.key[k] != 0 else -1.0
        if weight < least:
            row, least = k, weight
    usual.key[row] = endpoint
    usual.answers[row, :] = 0.0
    return row


@njit(cache=True)
def note_answer(
    usual: Usual, endpoint: np.uint64, status: int, size: float, answers: float
) -> float:
    """Count an answer of an endpoint, and return how unusual it is there, 0 to 1.

    It is 1 for a kind that never occurred, and falls to 0 where this kind and all that are as rare
    make up RARE of the answers. So a client like all others meets at most RARE / 2 on average,
    however much an endpoint's answers differ. It is 0 while little is known, and for errors of the
    service, which are not the client's fault. `answers`: how many answers the app got in the last
    ten minutes. An unknown endpoint has the hash 0; then nothing is counted.
    """
    if endpoint == 0 or status >= 500:
        return 0.0
    row, kind = _row(usual, endpoint), kind_of(status, size)
    seen = usual.answers[row]
    weight, unusual = seen.sum(), 0.0
    if weight >= LEAST_ANSWERS:
        as_rare = 0.0
        for k in range(KINDS):
            as_rare += seen[k] if seen[k] <= seen[kind] else 0.0
        unusual = max(0.0, 1.0 - as_rare / (RARE * weight))
    if weight >= MOST_ANSWERS:
        seen *= np.float32(0.5)
    seen[kind] += 1.0 / (1.0 + answers)
    return unusual


@njit(cache=True, inline="always")
def note_paces(usual: Usual, tier: int, tenant: int, rate: float) -> None:
    """Take an app's pace into the means of the rows of its tier and its tenant."""
    _note_pace(usual, tier, rate)
    # a tenant without a row of its own shares its tier's
    if tenant != tier:
        _note_pace(usual, tenant, rate)


@njit(cache=True, inline="always")
def _note_pace(usual: Usual, row: int, rate: float) -> None:
    """Take an app's pace into the mean of a row. `rate`: requests a second over the last minute,
    this one among them.

    Each request weighs less the more there are, so that each app counts about alike.
    """
    a_minute = max(1.0, 60.0 * rate)
    pace = usual.pace[row]
    pace[WEIGHT] = min(MOST_PACES, pace[WEIGHT] + 1.0 / a_minute)
    pace[MEAN] += (math.log2(a_minute) - pace[MEAN]) / (a_minute * pace[WEIGHT])


@njit(cache=True, inline="always")
def look(usual: Usual, tier: int, tenant: int, paces: np.ndarray) -> None:
    """Write the usual paces of a tier's and a tenant's rows into `paces`, float64 (2,): requests a
    second, 0 while not known.
    """
    paces[0], paces[1] = _pace_of(usual, tier), _pace_of(usual, tenant)


@njit(cache=True, inline="always")
def _pace_of(usual: Usual, row: int) -> float:
    pace = usual.pace[row]
    return math.pow(2.0, pace[MEAN]) / 60.0 if pace[WEIGHT] >= LEAST_PACES else 0.0
