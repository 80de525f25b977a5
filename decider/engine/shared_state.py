"""What all apps share: the services with their prices, and the tenants with their use of them;
compiled.

A service's price is an integral controller on its pressure: utilisation over target, latency over
its usual, errors. The fair share is weighted max-min (Bertsekas and Gallager, Data Networks,
6.5.2): the level at which the demands of all active tenants, each capped at its weight times the
level, fill the target capacity.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

# columns of Region.service (float64)
(
    CAPACITY,
    TARGET,
    USUAL_MS,
    UTILISATION,
    PRICE,
    LATENCY,
    ERRORS,
    FEEDBACK_AT,
    OFFERED,
    ADMITTED,
    REQUESTS,
    ANSWERS,
    MS_SUM,
    FAILED,
    LOCAL_RATE,
    ANSWER_RATE,
    MEAN_COST,
    LEVEL,
) = range(18)
N_SERVICE = 18  # as many as there are

# Time constant of a tenant's use. Chosen: short enough that a tenant that slows down recovers soon,
# long enough that one burst is not overuse.
USE_TAU_S = 5.0
# Time constant of a service's rates. Chosen: some ten ticks, so that one odd tick moves no price.
RATE_TAU_S = 2.0
# Price that a pressure of 1 adds in a second. Chosen: at twice its target, a service's price
# reaches 1, the worth of an ordinary request, within two seconds.
PRICE_GAIN = 0.5
# Chosen: above the worth of any request (at most 1.5 ordinary ones); a service that falls idle is
# rid of it within about eight seconds.
PRICE_MAX = 4.0
# What a price is expected to lose in a second, when a wait is forecast; the controller's own fall
# is 0.05 or more.
RECOVERY = 0.1
# A price below this is 0: the service counts as not busy.
PRICE_FLOOR = 0.02
# Outcomes older than this say nothing about now: latency and errors go back to the usual, so that a
# feed that broke does not keep a price up. Chosen: well above the pause between two batches.
LATE_FEEDBACK_S = 10.0


class Region(NamedTuple):
    """What the deciders' shared services and tenants look like to this one."""

    service: np.ndarray
    """float64 (services, N_SERVICE)."""
    use: np.ndarray
    """float64 (services, tenants): cost units a second admitted, decayed, as of `use_at`."""
    demand: np.ndarray
    """float64 (services, tenants): cost units a second asked for."""
    use_at: np.ndarray
    """float64 (services, tenants)."""
    weight: np.ndarray
    """float64 (tenants,)."""
    tenant_key: np.ndarray
    """int64 (tenants,): hash of the tenant id, for rules."""


def allocate(services: int, tenants: int) -> Region:
    """Return an empty region with this many services and rows for tenants."""
    shape = (services, tenants)
    zeros = np.zeros
    return Region(
        zeros((services, N_SERVICE)),
        zeros(shape),
        zeros(shape),
        zeros(shape),
        np.ones(tenants),
        zeros(tenants, np.int64),
    )


@njit(cache=True)
def note_demand(region: Region, service: int, tenant: int, cost: float, now: float) -> None:
    """Add a request to what its tenant asks of a service; first decay use and demand to `now`."""
    at = region.use_at[service, tenant]
    if now > at:
        decay = math.exp((at - now) / USE_TAU_S) if at > 0.0 else 0.0
        region.use[service, tenant] *= decay
        region.demand[service, tenant] *= decay
        region.use_at[service, tenant] = now
    region.demand[service, tenant] += cost / USE_TAU_S
    region.service[service, OFFERED] += cost
    region.service[service, REQUESTS] += 1.0


@njit(cache=True)
def note_admitted(region: Region, service: int, tenant: int, cost: float) -> None:
    """Add an admitted request to its tenant's use. Call after its `note_demand`, which decays."""
    region.use[service, tenant] += cost / USE_TAU_S
    region.service[service, ADMITTED] += cost


@njit(cache=True)
def note_answer(region: Region, service: int, status: int, latency_ms: float, now: float) -> None:
    """Count one outcome of a service. `status`: HTTP status; `latency_ms`: milliseconds."""
    row = region.service[service]
    row[ANSWERS] += 1.0
    row[MS_SUM] += latency_ms
    if status >= 500:
        row[FAILED] += 1.0
    row[FEEDBACK_AT] = now


@njit(cache=True)
def _fair_level(region: Region, service: int, supply: float, now: float) -> float:
    """Return the level of the weighted max-min share, infinite when all demand fits.

    `supply`: cost units a second.
    """
    row = region.demand[service]
    total = peak = 0.0
    active = np.empty(row.shape[0], np.int64)
    count = 0
    for t in range(row.shape[0]):
        # after three time constants a twentieth of the demand is left: the tenant has stopped
        if row[t] > 0.0 and now - region.use_at[service, t] < 3.0 * USE_TAU_S:
            active[count] = t
            count += 1
            total += row[t]
            peak = max(peak, row[t] / region.weight[t])
    if total <= supply:
        return np.inf
    low, high = 0.0, peak
    # bisection: 24 halvings are float32's precision
    for _ in range(24):
        level = 0.5 * (low + high)
        filled = 0.0
        for k in range(count):
            t = active[k]
            filled += min(row[t], region.weight[t] * level)
        if filled > supply:
            high = level
        else:
            low = level
    return low


@njit(cache=True)
def _measure(row: np.ndarray, seconds: float, now: float) -> None:
    """Turn the counts of the last `seconds` into smoothed rates, and count from zero again."""
    blend = 1.0 - math.exp(-seconds / RATE_TAU_S)
    row[LOCAL_RATE] += blend * (row[ADMITTED] / seconds - row[LOCAL_RATE])
    row[ANSWER_RATE] += blend * (row[ANSWERS] / seconds - row[ANSWER_RATE])
    if row[REQUESTS] > 0.0:
        row[MEAN_COST] += blend * (row[OFFERED] / row[REQUESTS] - row[MEAN_COST])
    if row[ANSWERS] > 0.0:
        row[LATENCY] += blend * (row[MS_SUM] / row[ANSWERS] - row[LATENCY])
        row[ERRORS] += blend * (row[FAILED] / row[ANSWERS] - row[ERRORS])
    elif now - row[FEEDBACK_AT] > LATE_FEEDBACK_S:
        row[LATENCY] += blend * (row[USUAL_MS] - row[LATENCY])
        row[ERRORS] -= blend * row[ERRORS]
    row[OFFERED] = row[ADMITTED] = row[REQUESTS] = row[ANSWERS] = row[MS_SUM] = row[FAILED] = 0.0
    # other deciders send to the service too: outcomes of all of them come here, admits only of this
    # one. The larger holds when the feed is late.
    row[UTILISATION] = max(row[LOCAL_RATE], row[ANSWER_RATE] * row[MEAN_COST]) / row[CAPACITY]


@njit(cache=True)
def control(region: Region, seconds: float, now: float) -> None:
    """Do one step of every service's controller, `seconds` after the one before.

    `share_out` is due for each service then.
    """
    for s in range(region.service.shape[0]):
        row = region.service[s]
        _measure(row, seconds, now)
        fill = row[UTILISATION] / row[TARGET]
        # chosen: latency up to twice its usual and 5% of errors are everyday
        strain = min(
            1.0, 0.15 * max(0.0, row[LATENCY] / row[USUAL_MS] - 2.0) + max(0.0, row[ERRORS] - 0.05)
        )
        # a service that is slow though it has little to do is not helped by refusing more
        pressure = fill - 1.0 + strain * min(1.0, max(0.0, (fill - 0.3) / 0.4))
        # it falls by 0.05 a second at least, or a load just under the target would keep it up
        price = row[PRICE] + PRICE_GAIN * seconds * (
            pressure if pressure > 0.0 else min(pressure, -0.1)
        )
        row[PRICE] = (
            min(PRICE_MAX, price)
            if price > PRICE_FLOOR
            else (max(0.0, price) if pressure > 0.0 else 0.0)
        )


@njit(cache=True)
def share_out(region: Region, service: int, now: float) -> None:
    """Find a service's fair share again.

    It stands apart from `control`, as it takes about 1 ms with 65,000 active tenants.
    """
    row = region.service[service]
    row[LEVEL] = (
        _fair_level(region, service, row[CAPACITY] * row[TARGET], now)
        if row[PRICE] > 0.0
        else np.inf
    )
