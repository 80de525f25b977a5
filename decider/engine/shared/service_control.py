"""How busy each service is, and the price that its tenants pay while it is short of room; compiled.

The room of a service is the target share of its capacity. While the service is slow or fails, it is
the same share of what it has lately shown it can do (`_find_room`). A service becomes short of room
when more than SHORT_FROM_S of work waits, and stays so until hardly any work waits and the demand
fits what it can do.

While a service is short of room, higher tiers are served first: what they ask for is taken off the
room, and the first tier that no longer fits, and all below it, pay. Among the tenants of a tier the
fair share is weighted max-min (Bertsekas and Gallager, Data Networks, 6.5.2): the level at which
the demands of all active tenants, each capped at its weight times the level, fill what is left. The
service's price says how much they pay. It starts at the share by which the demand exceeds the room,
and an integral controller then raises it while the service is given more than its room.

All figures are the region's. What the other deciders admit and are asked for comes from `peers`;
where they have not been heard of lately, this decider takes its own traffic for its part of the
region's (`part`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider.engine.shared.state import (
    ABLE,
    ADMIT_NOW,
    ADMITS,
    ADMITTED,
    ANSWER_RATE,
    ANSWERED_LONG,
    ANSWERS,
    ASKED_NOW,
    BACKLOG,
    BOOKED,
    CAPACITY,
    DEMAND_RATE,
    ERRORS,
    ERRORS_NOW,
    FAILED,
    FEEDBACK_AT,
    GIVEN_LONG,
    LATENCY,
    LATENCY_NOW,
    LEVEL,
    LOCAL_RATE,
    MEAN_COST,
    MS_SUM,
    OFFERED,
    OTHERS_ADMIT,
    OTHERS_ASKED,
    OTHERS_PRICE,
    PRICE,
    QUEUE,
    ROOM,
    SHORT_AT,
    TARGET,
    USUAL_MS,
    UTILISATION,
    Region,
)
from decider.engine.shared.tenant_use import forgive, share_levels

# Time constant of a service's rates. Chosen: some ten ticks, so that one odd tick moves no price.
RATE_TAU_S = 2.0
# Time constant of what says whether a service is slow or fails right now. Chosen: two or three
# ticks. By the slower one above, a service counted as short of room for half a minute after a
# backlog of one second (docs/adr/0033).
NOW_TAU_S = 0.5
# Time constant over which what is answered is compared with what was admitted. Chosen: long enough
# that work which waits, and outcomes that come late, hardly matter.
LONG_TAU_S = 30.0
# Share by which answers may exceed what all known deciders admitted. Chosen: their cost is a mean.
UNKNOWN_FROM = 1.2
# Seconds of work that count as waiting for each second of full strain. Chosen: a service that does
# all it is given, but slowly, is short of room after two seconds of that, not after one burst.
STRAIN_WORK = 0.3
# Latency that a backlog explains, as a multiple of it. Chosen: while it is worked off at a tenth of
# the capacity, the latest answers waited for a tenth more.
MORE_BACKLOG = 1.25
# Seconds without an answer after which the latest ones no longer bound the work that waits.
FRESH_S = 1.0
# Seconds of work that may wait beyond what the latest answers waited for. Chosen: what arrives at
# twice the capacity in the second before a batch of outcomes.
UNSEEN_S = 1.0
# Price that a pressure of 1 adds in a second. Chosen: at twice its target, a service's price
# reaches 1, the worth of an ordinary request, within two seconds.
PRICE_GAIN = 0.5
# How much faster a price falls than it rises. Chosen: at 1, three times the capacity left 5% of the
# room unused for half a minute.
FALL_FASTER = 2.0
# Highest price at which a service starts to be short of room, and how fast it starts higher with
# the share of the demand for which there is no room. Chosen: the worth of the best request, at
# which tenants get their fair share, from a demand that is half as much again as the room.
PRICE_START, START_GAIN = 1.5, 3.0
# Seconds for which a falling fair level forgives what was used before, once a service has become
# short of room. Chosen: the levels follow most of a surge in that time.
SETTLE_S = 1.0
# Share of the way to the mean price of the other deciders that a price goes in a tick. Chosen:
# deciders that began at different times agree within a second.
AGREE = 0.3
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


@njit(cache=True)
def note_answer(region: Region, service: int, status: int, latency_ms: float, now: float) -> None:
    """Count one outcome of a service. `status`: HTTP status; `latency_ms`: milliseconds."""
    row = region.service[service]
    row[ANSWERS] += 1.0
    row[MS_SUM] += latency_ms
    if status >= 500:
        row[FAILED] += 1.0
    row[FEEDBACK_AT] = now


@njit(cache=True, inline="always")
def look(region: Region, service: int, out: np.ndarray) -> None:
    """Write utilisation, latency ratio and error share of a service into `out`, float64 (3,)."""
    row = region.service[service]
    out[0] = row[UTILISATION]
    out[1] = row[LATENCY] / row[USUAL_MS] if row[LATENCY] > 0.0 else 1.0
    out[2] = row[ERRORS]


@njit(cache=True)
def _measure(row: np.ndarray, seconds: float, part: float, now: float) -> None:
    """Turn the counts of the last `seconds` into smoothed rates, and count from zero again."""
    blend, blend_now = 1.0 - math.exp(-seconds / RATE_TAU_S), 1.0 - math.exp(-seconds / NOW_TAU_S)
    admitted, asked = row[ADMITTED] / seconds, row[OFFERED] / seconds
    row[LOCAL_RATE] += blend * (admitted - row[LOCAL_RATE])
    row[DEMAND_RATE] += blend * (asked - row[DEMAND_RATE])
    row[ADMIT_NOW] += blend_now * (admitted - row[ADMIT_NOW])
    row[ASKED_NOW] += blend_now * (asked - row[ASKED_NOW])
    row[ANSWER_RATE] += blend * (row[ANSWERS] / seconds - row[ANSWER_RATE])
    # the mean of admitted requests only, as only they are answered; refused ones may cost more
    if row[ADMITS] > 0.0:
        mean = row[ADMITTED] / row[ADMITS]
        row[MEAN_COST] += (blend if row[MEAN_COST] > 0.0 else 1.0) * (mean - row[MEAN_COST])
    if row[ANSWERS] > 0.0:
        latency, errors = row[MS_SUM] / row[ANSWERS], row[FAILED] / row[ANSWERS]
        _blend_answers(row, latency, errors, blend, blend_now)
    elif now - row[FEEDBACK_AT] > LATE_FEEDBACK_S:
        _blend_answers(row, row[USUAL_MS], 0.0, blend, blend)
    given = (row[LOCAL_RATE] + row[OTHERS_ADMIT]) / part
    answered, blend_long = row[ANSWER_RATE] * row[MEAN_COST], 1.0 - math.exp(-seconds / LONG_TAU_S)
    row[GIVEN_LONG] += blend_long * (given - row[GIVEN_LONG])
    row[ANSWERED_LONG] += blend_long * (answered - row[ANSWERED_LONG])
    # outcomes come late; the larger figure counts
    row[UTILISATION] = max(given, answered) / row[CAPACITY]


@njit(cache=True, inline="always")
def _unknown_factor(row: np.ndarray) -> float:
    """Return by how much the service gets more than all known deciders admit, at least 1: deciders
    of an older version and other clients send to it, too.
    """
    if row[ANSWERED_LONG] <= UNKNOWN_FROM * row[GIVEN_LONG] or row[GIVEN_LONG] <= 0.0:
        return 1.0
    # at most as many as a fleet has: with hardly any traffic of its own, the factor means little
    return min(20.0, float(row[ANSWERED_LONG] / row[GIVEN_LONG]))


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
def _find_room(row: np.ndarray, seconds: float, part: float, now: float) -> None:
    """Write how much a service may be given (less than it lately did while it is slow or fails),
    and how much work waits.
    """
    # chosen: up to four times the usual latency is what a full service shows, and 5% of errors are
    # everyday
    late_ms = max(0.0, row[LATENCY_NOW] - 4.0 * row[USUAL_MS])
    failing = max(0.0, row[ERRORS_NOW] - 0.05)
    # A service that works off what it was given too much of is late, but not unable. The latest
    # answers waited longer than those to come, as the backlog was longer when they were sent.
    given = (row[ADMITTED] / seconds + row[OTHERS_ADMIT]) / part * _unknown_factor(row)
    row[BACKLOG] = max(0.0, row[BACKLOG] + seconds * (given / row[CAPACITY] - 1.0))
    unexplained_ms = max(0.0, late_ms - 1000.0 * MORE_BACKLOG * row[BACKLOG])
    strain = min(1.0, 0.15 * unexplained_ms / row[USUAL_MS] + failing)
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
    _reckon_queue(row, seconds, given / row[CAPACITY], strain, seen, now)


@njit(cache=True)
def _reckon_queue(
    row: np.ndarray, seconds: float, given: float, strain: float, seen: float, now: float
) -> None:
    """Write how much work waits. `given`: share of the capacity that was given in the last
    `seconds`, not smoothed, as that would tell of an overload seconds later. `seen`: seconds of
    work that the latest answers waited for.
    """
    unable = given - row[ABLE] + STRAIN_WORK * strain
    waiting = max(0.0, row[QUEUE] + seconds * unable)
    if now - row[FEEDBACK_AT] <= FRESH_S:
        # what the answers waited for is measured, and what was given since is bounded
        waiting = min(max(waiting, seen), seen + UNSEEN_S)
    row[QUEUE] = min(LONGEST_QUEUE_S, waiting)


@njit(cache=True)
def _own_part(row: np.ndarray, part: float) -> float:
    """Return this decider's part, 0.05 to 1, of the load that a service is given."""
    known = (row[LOCAL_RATE] + row[OTHERS_ADMIT]) / part
    if known <= 0.0:
        return part
    return max(0.05, float(row[LOCAL_RATE] / (known * _unknown_factor(row))))


@njit(cache=True)
def book(region: Region, service: int, cost: float, now: float) -> float:
    """Book the next free place at a service for a request of `cost` units that is refused now.

    Return the seconds until that place. Places follow one another at KEPT_SHARE of this decider's
    part of the room.
    """
    row = region.service[service]
    room = row[ROOM] if row[ROOM] > 0.0 else row[TARGET] * row[CAPACITY]
    at = max(now, row[BOOKED]) + cost / (KEPT_SHARE * room * _own_part(row, region.part[0]))
    row[BOOKED] = at
    return float(at - now)


@njit(cache=True)
def control(region: Region, seconds: float, now: float) -> None:
    """Do one step of every service's controller, `seconds` after the one before.

    Call `share_out` for each service afterwards.
    """
    part = region.part[0]
    for s in range(region.service.shape[0]):
        row = region.service[s]
        _measure(row, seconds, part, now)
        _find_room(row, seconds, part, now)
        row[PRICE] = _next_price(row, seconds, part)
        row[OFFERED] = row[ADMITTED] = row[ADMITS] = 0.0
        row[ANSWERS] = row[MS_SUM] = row[FAILED] = 0.0


@njit(cache=True)
def _next_price(row: np.ndarray, seconds: float, part: float) -> float:
    """Return a service's price after a tick."""
    unknown, price = _unknown_factor(row), row[PRICE]
    asked = (row[ASKED_NOW] + row[OTHERS_ASKED]) / part * unknown
    lasting = (row[DEMAND_RATE] + row[OTHERS_ASKED]) / part * unknown
    if row[OTHERS_PRICE] >= 0.0:
        price += AGREE * (row[OTHERS_PRICE] - price)
    short = row[QUEUE] > SHORT_FROM_S or (
        price > 0.0 and (row[QUEUE] > SHORT_UPTO_S or lasting > row[CAPACITY] * row[ABLE])
    )
    if not short:
        price -= seconds * PRICE_FALL
        return float(price) if price > PRICE_FLOOR else 0.0
    if price <= 0.0:
        price = min(PRICE_START, START_GAIN * (asked / row[ROOM] - 1.0))
    given = (row[ADMIT_NOW] + row[OTHERS_ADMIT]) / part * unknown
    pressure = given / row[ROOM] - 1.0
    gain = PRICE_GAIN * (FALL_FASTER if pressure < 0.0 else 1.0)
    price += seconds * gain * pressure
    # above 0, so that the service is still short of room in the next tick
    return min(PRICE_MAX, max(PRICE_FLOOR, float(price)))


@njit(cache=True)
def share_out(region: Region, service: int, now: float) -> None:
    """Compute a service's fair levels again.

    It is not a part of `control`, because it takes about 1 ms with 65,000 active tenants.
    """
    row = region.service[service]
    if row[PRICE] > 0.0:
        before = row[LEVEL:].copy()
        room = row[ROOM] * region.part[0] / _unknown_factor(row)
        share_levels(region, service, room, now)
        if before.min() == np.inf:
            row[SHORT_AT] = now
        # Not for longer: levels rise and fall a little all the time, and whoever is over its share
        # would be forgiven with each fall.
        if now - row[SHORT_AT] < SETTLE_S:
            forgive(region, service, before)
    else:
        row[LEVEL:] = np.inf
