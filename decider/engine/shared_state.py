"""What all apps share: the services with their prices, and the tenants with their use of them;
compiled.

The room of a service is the target share of its capacity. While the service is slow or fails, it is
the same share of what it has lately shown it can do (`_find_room`). A service becomes short of room
when more than SHORT_FROM_S of work waits, and stays so until hardly any work waits and the demand
fits what it can do.

While a service is short of room, higher tiers are served first: what they ask for is taken off the
room, and the first tier that no longer fits, and all below it, pay. Among the tenants of a tier the
fair share is weighted max-min (Bertsekas and Gallager, Data Networks, 6.5.2): the level at which
the demands of all active tenants, each capped at its weight times the level, fill what is left. The
service's price says how much they pay. An integral controller raises it while the service is given
more than its room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from decider.contracts.config import Service
from decider.contracts.store import ServiceStatus

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
    ANSWERS,
    MS_SUM,
    FAILED,
    LOCAL_RATE,
    ANSWER_RATE,
    MEAN_COST,
    ADMITS,
    DEMAND_RATE,
    ABLE,  # share of the capacity that the service has lately shown it can do
    ROOM,  # cost units a second that may be admitted, by all deciders
    QUEUE,  # seconds of work that it has been given and cannot have done
    BOOKED,  # engine time up to which places for repeats of refused requests are given away
    LATENCY_NOW,  # mean latency, ms, and share of failures of the latest answers
    ERRORS_NOW,
    LEVEL,  # the fair level of the lowest tier; those of the others follow
) = range(25)
N_TIERS = 4  # as many as `vocabulary.Tier` has
N_SERVICE = LEVEL + N_TIERS
# Rows of tenants. Row 0 is of all apps that are not known. One row for each tier is shared by the
# tenants that have no row of their own; behind them stand the rows that a tenant has alone.
SHARED_ROWS, FIRST_OWN_ROW = 1, 1 + N_TIERS

# Time constant of a tenant's use. Chosen: short enough that a tenant that slows down recovers soon,
# long enough that one burst is not overuse.
USE_TAU_S = 5.0
# Time constant of a service's rates. Chosen: some ten ticks, so that one odd tick moves no price.
RATE_TAU_S = 2.0
# Time constant of what says whether a service is slow or fails right now. Chosen: two or three
# ticks. By the slower one above, a service counted as short of room for half a minute after a
# backlog of one second (docs/adr/0033).
NOW_TAU_S = 0.5
# Seconds of work that count as waiting for each second of full strain. Chosen: a service that does
# all it is given, but slowly, is short of room after two seconds of that, not after one burst.
STRAIN_WORK = 0.3
# Seconds without an answer after which the latest ones no longer bound the work that waits.
FRESH_S = 1.0
# Seconds of work that may wait beyond what the latest answers waited for. Chosen: what arrives at
# twice the capacity in the second before a batch of outcomes.
UNSEEN_S = 1.0
# Price that a pressure of 1 adds in a second. Chosen: at twice its target, a service's price
# reaches 1, the worth of an ordinary request, within two seconds.
PRICE_GAIN = 0.5
# Chosen: above the worth of any request (at most 1.5 ordinary ones).
PRICE_MAX = 4.0
# What a price loses in a second once the service is no longer short of room. Chosen: the highest is
# gone within four seconds; slower, it refused requests for which there was room.
PRICE_FALL = 1.0
# What a price is expected to lose in a second, when a way back to admit is searched. Chosen: far
# below PRICE_FALL, as the service may stay short of room for some time.
RECOVERY = 0.1
# A price below this is 0: the service counts as not busy.
PRICE_FLOOR = 0.02
# Seconds of work that may wait before a service counts as short of room, at which it no longer
# does, and the most that is remembered. Chosen: a burst that it works off within half a second
# needs no refusals.
SHORT_FROM_S, SHORT_UPTO_S, LONGEST_QUEUE_S = 0.5, 0.1, 4.0
# Share of what it was able to do that a service loses in a second of full strain. Chosen: a service
# whose capacity falls to a third is found out within some ten seconds.
LOSS_PER_S = 0.15
# Share of its capacity that it wins back in a second without strain. Chosen: at 4% more requests
# were refused under overload than probing for room cost, and all of it is back in ten seconds.
REGAIN_PER_S = 0.1
# The least share of its capacity that a service is taken to be able to do, so that there are always
# outcomes to judge by.
LEAST_ABLE = 0.05
# Share of a short service's room that is given away as places for repeats of refused requests.
# Chosen: with half of the room, a service in a rush failed a quarter more of what it was given
# (docs/adr/0029).
KEPT_SHARE = 0.25
# Seconds after which outcomes say nothing about the present: latency goes back to the usual and
# errors to 0, so that a broken feed does not keep a price up. Chosen: well above the pause between
# two batches.
LATE_FEEDBACK_S = 10.0


class Region(NamedTuple):
    """The services and tenants that all deciders share, as this decider sees them."""

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
    tier: np.ndarray
    """int64 (tenants,): tier of the tenant's apps."""


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


def carry_over(
    old: Region | None, index: Mapping[str, int], services: Sequence[Service], most_tenants: int
) -> Region:
    """Return a region for `services` that keeps what `old` knows of those that stay. It may be
    `old` itself, changed.

    `index`: the rows of `old` by the names of its services.
    """
    # copies: a service may take the row of another one
    before = {} if old is None else {name: old.service[row].copy() for name, row in index.items()}
    if old is not None and len(old.service) == len(services):
        region = old
    else:
        region = allocate(len(services), most_tenants)
        if old is not None:
            region.weight[:], region.tier[:] = old.weight, old.tier
    for row, service in zip(region.service, services, strict=True):
        if service.name in before:
            row[:] = before[service.name]
        else:
            row[:] = 0.0
            row[LEVEL:], row[ABLE] = np.inf, 1.0
            row[LATENCY] = row[LATENCY_NOW] = service.latency_ms
        row[: USUAL_MS + 1] = (service.capacity, service.target, service.latency_ms)
    return region


def describe(region: Region, names: Sequence[str], now: float) -> list[ServiceStatus]:
    """Return how each service stands at `now`, engine time."""
    return [
        ServiceStatus(
            name,
            float(row[UTILISATION]),
            float(row[PRICE]),
            float(row[LATENCY]),
            float(row[ERRORS]),
            float(now - row[FEEDBACK_AT]) if row[FEEDBACK_AT] else 1e9,
        )
        for name, row in zip(names, region.service, strict=True)
    ]


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


@njit(cache=True)
def note_admitted(region: Region, service: int, tenant: int, cost: float) -> None:
    """Add an admitted request to its tenant's use. Call `note_demand` first, which decays."""
    region.use[service, tenant] += cost / USE_TAU_S
    region.service[service, ADMITTED] += cost
    region.service[service, ADMITS] += 1.0


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
def _fill(demand: np.ndarray, weight: np.ndarray, supply: float) -> float:
    """Return the level of the weighted max-min share that fills `supply`, which demand exceeds.

    `demand`, cost units a second, and `weight`: float64, a row for each tenant.
    """
    low, high = 0.0, 0.0
    for t in range(len(demand)):
        high = max(high, demand[t] / weight[t])
    # bisection: 24 halvings are float32's precision
    for _ in range(24):
        level = 0.5 * (low + high)
        filled = 0.0
        for t in range(len(demand)):
            filled += min(demand[t], weight[t] * level)
        if filled > supply:
            high = level
        else:
            low = level
    return low


@njit(cache=True)
def _share_levels(region: Region, service: int, supply: float, now: float) -> None:
    """Write the fair level of each tier: infinite where all demand fits, 0 where there is no room.

    `supply`: cost units a second.
    """
    row = region.demand[service]
    active, asking = np.empty(row.shape[0], np.int64), 0
    count = np.zeros(N_TIERS, np.int64)
    for t in range(row.shape[0]):
        # after three time constants a twentieth of the demand is left: the tenant has stopped
        if row[t] > 0.0 and now - region.use_at[service, t] < 3.0 * USE_TAU_S:
            active[asking] = t
            asking += 1
            count[region.tier[t]] += 1
    for tier in range(N_TIERS - 1, -1, -1):
        asked, of, k = np.empty(count[tier]), np.empty(count[tier]), 0
        for t in active[:asking]:
            if region.tier[t] == tier:
                asked[k], of[k] = row[t], region.weight[t]
                k += 1
        total = asked.sum()
        if total <= supply:
            region.service[service, LEVEL + tier] = np.inf
            supply -= total
        else:
            region.service[service, LEVEL + tier] = _fill(asked, of, supply)
            supply = 0.0


@njit(cache=True)
def _measure(row: np.ndarray, seconds: float, now: float) -> None:
    """Turn the counts of the last `seconds` into smoothed rates, and count from zero again."""
    blend = 1.0 - math.exp(-seconds / RATE_TAU_S)
    row[LOCAL_RATE] += blend * (row[ADMITTED] / seconds - row[LOCAL_RATE])
    row[DEMAND_RATE] += blend * (row[OFFERED] / seconds - row[DEMAND_RATE])
    row[ANSWER_RATE] += blend * (row[ANSWERS] / seconds - row[ANSWER_RATE])
    # the mean of admitted requests only, as only they are answered; refused ones may cost more
    if row[ADMITS] > 0.0:
        row[MEAN_COST] += blend * (row[ADMITTED] / row[ADMITS] - row[MEAN_COST])
    if row[ANSWERS] > 0.0:
        latency, errors = row[MS_SUM] / row[ANSWERS], row[FAILED] / row[ANSWERS]
        _blend_answers(row, latency, errors, blend, 1.0 - math.exp(-seconds / NOW_TAU_S))
    elif now - row[FEEDBACK_AT] > LATE_FEEDBACK_S:
        _blend_answers(row, row[USUAL_MS], 0.0, blend, blend)
    row[OFFERED] = row[ADMITTED] = row[ADMITS] = 0.0
    row[ANSWERS] = row[MS_SUM] = row[FAILED] = 0.0
    # Other deciders send to the service too. Outcomes come from all of them, admits only from this
    # one; the larger figure counts, as the feed may be late.
    row[UTILISATION] = max(row[LOCAL_RATE], row[ANSWER_RATE] * row[MEAN_COST]) / row[CAPACITY]


@njit(cache=True)
def _blend_answers(
    row: np.ndarray, latency_ms: float, errors: float, blend: float, blend_now: float
) -> None:
    """Move latency and share of failures towards those of the last answers: the slow means by the
    share `blend` of the difference, the quick ones by `blend_now`.
    """
    row[LATENCY] += blend * (latency_ms - row[LATENCY])
    row[ERRORS] += blend * (errors - row[ERRORS])
    row[LATENCY_NOW] += blend_now * (latency_ms - row[LATENCY_NOW])
    row[ERRORS_NOW] += blend_now * (errors - row[ERRORS_NOW])


@njit(cache=True)
def _find_room(row: np.ndarray, seconds: float, now: float) -> None:
    """Write how much a service may be given (less than it lately did while it is slow or fails),
    and how much work waits.
    """
    # chosen: up to four times the usual latency is what a full service shows, and 5% of errors are
    # everyday
    late_ms = max(0.0, row[LATENCY_NOW] - 4.0 * row[USUAL_MS])
    failing = max(0.0, row[ERRORS_NOW] - 0.05)
    strain = min(1.0, 0.15 * late_ms / row[USUAL_MS] + failing)
    # refusing more does not help a service that is slow though it has little to do
    strain *= min(1.0, max(0.0, (row[UTILISATION] / max(row[ABLE], LEAST_ABLE) - 0.3) / 0.4))
    if strain > 0.0:
        did = row[UTILISATION] * (1.0 - row[ERRORS])
        lower = max(LEAST_ABLE, min(row[ABLE] * (1.0 - LOSS_PER_S * seconds * strain), 1.0))
        # not below what it does without errors
        row[ABLE] = min(row[ABLE], max(lower, did))
    else:
        row[ABLE] = min(1.0, row[ABLE] + REGAIN_PER_S * seconds)
    row[ROOM] = row[TARGET] * row[CAPACITY] * row[ABLE]
    # Failures count as waiting work, too: a service may fail before it is slow.
    seen = late_ms / 1000.0 + LONGEST_QUEUE_S * failing
    _reckon_queue(row, seconds, strain, seen, now)


@njit(cache=True)
def _reckon_queue(row: np.ndarray, seconds: float, strain: float, seen: float, now: float) -> None:
    """Write how much work waits. `seen`: seconds of work that the latest answers waited for."""
    unable = row[UTILISATION] - row[ABLE] + STRAIN_WORK * strain
    waiting = max(0.0, row[QUEUE] + seconds * unable)
    if now - row[FEEDBACK_AT] <= FRESH_S:
        # what the answers waited for is measured, and what was given since is bounded
        waiting = min(max(waiting, seen), seen + UNSEEN_S)
    row[QUEUE] = min(LONGEST_QUEUE_S, waiting)


@njit(cache=True)
def _own_part(row: np.ndarray) -> float:
    """Return this decider's part, 0.05 to 1, of the load that all deciders give a service."""
    everyone = row[UTILISATION] * row[CAPACITY]
    # outcomes lag and their cost is a mean, so up to a fifth more is no sign of other deciders
    if everyone <= 1.2 * row[LOCAL_RATE]:
        return 1.0
    return max(0.05, row[LOCAL_RATE] / everyone)


@njit(cache=True)
def book(region: Region, service: int, cost: float, now: float) -> float:
    """Book the next free place at a service for a request of `cost` units that is refused now.

    Return the seconds until that place. Places follow one another at KEPT_SHARE of this decider's
    part of the room.
    """
    row = region.service[service]
    room = row[ROOM] if row[ROOM] > 0.0 else row[TARGET] * row[CAPACITY]
    at = max(now, row[BOOKED]) + cost / (KEPT_SHARE * room * _own_part(row))
    row[BOOKED] = at
    return at - now


@njit(cache=True)
def control(region: Region, seconds: float, now: float) -> None:
    """Do one step of every service's controller, `seconds` after the one before.

    Call `share_out` for each service afterwards.
    """
    for s in range(region.service.shape[0]):
        row = region.service[s]
        _measure(row, seconds, now)
        _find_room(row, seconds, now)
        able = row[CAPACITY] * row[ABLE] * _own_part(row)
        short = row[QUEUE] > SHORT_FROM_S or (
            row[PRICE] > 0.0 and (row[QUEUE] > SHORT_UPTO_S or row[DEMAND_RATE] > able)
        )
        pressure = row[UTILISATION] * row[CAPACITY] / row[ROOM] - 1.0
        step = PRICE_GAIN * pressure if short else -PRICE_FALL
        price = row[PRICE] + seconds * step
        row[PRICE] = (
            min(PRICE_MAX, price)
            if price > PRICE_FLOOR
            else (max(0.0, price) if step > 0.0 else 0.0)
        )


@njit(cache=True)
def share_out(region: Region, service: int, now: float) -> None:
    """Compute a service's fair levels again.

    It is not a part of `control`, because it takes about 1 ms with 65,000 active tenants.
    """
    row = region.service[service]
    if row[PRICE] > 0.0:
        _share_levels(region, service, row[ROOM] * _own_part(row), now)
    else:
        row[LEVEL:] = np.inf
