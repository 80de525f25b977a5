"""How much each tenant uses of each service and asks for, in rows that are made when needed;
compiled.

A platform has hundreds of services and millions of tenants, but only few of their pairs are in use
at a time. So each pair of a service and a tenant has a row only while it is used. Rows stand in a
hash table (open addressing, linear probing). There are two tables: every ROTATE_S, or when it is
half full, the present one becomes the earlier one and an empty one takes its place. A row that is
used again moves over; what nobody used is forgotten with its table. So nothing is ever rebuilt
while requests wait.

The other deciders of the region say what their part of a tenant's traffic is (`peers`). A tenant
may use here its fair share times this decider's part of what the tenant asks for, so each decider
thins out a tenant's traffic alike, and the parts add up to the share.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from decider.engine.shared.report import NAMED
from decider.engine.shared.state import (
    ADMITS,
    ADMITTED,
    CAPACITY,
    EARLIER,
    EARLIER_SIZE,
    LEVEL,
    MERGE,
    N_TIERS,
    OFFERED,
    PRESENT,
    SIZE,
    USED,
    Region,
)

# Time constant of a tenant's use. Chosen: short enough that a tenant that slows down recovers soon,
# long enough that one burst is not overuse.
USE_TAU_S = 5.0
# Time constant of what a tenant asks for. Chosen shorter, so that fair levels follow a surge within
# seconds: while they lag behind it, room is left unused.
DEMAND_TAU_S = 2.0
# Seconds after which a pair that asks for nothing no longer counts: hardly any of its demand is
# left then, and a twentieth of its use.
ACTIVE_S = 3.0 * USE_TAU_S
# Seconds between two rotations of the tables. Chosen: four times ACTIVE_S, so that hardly a row
# that still counts is moved, and what is idle is forgotten within two minutes.
ROTATE_S = 60.0


@njit(cache=True, inline="always")
def _key_of(service: int, tenant: int) -> np.uint64:
    """Return a pair's key, never 0. `tenant`: hash of its id, 0 for apps without one."""
    mixed = np.uint64(tenant) ^ (np.uint64(service + 1) * np.uint64(0x9E3779B97F4A7C15))
    # the finisher of MurmurHash3: every bit of both reaches every bit of the key
    mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return mixed ^ (mixed >> np.uint64(33)) | np.uint64(1)


@njit(cache=True, inline="always")
def _row_of(rows: np.ndarray, size: int, key: np.uint64) -> int:
    """Return the row of a key, or the empty row where it would stand."""
    mask = size - 1
    # the lowest bit is always 1
    at = np.int64(key >> np.uint64(1)) & mask
    while rows[at]["key"] != 0 and rows[at]["key"] != key:
        at = (at + 1) & mask
    return int(at)


@njit(cache=True)
def find(region: Region, service: int, tenant: int) -> int:
    """Return a pair's row in the present table, -1 without one. Looking changes nothing."""
    at = _row_of(region.pair, region.pairs_of[SIZE], _key_of(service, tenant))
    return at if region.pair[at]["key"] != 0 else -1


@njit(cache=True)
def place(region: Region, service: int, tenant: int, tier: int) -> int:
    """Return a pair's row in the present table, moved from the earlier one or made where missing.

    While the table is nearly full, new pairs share their tier's spare row.
    """
    size, key = int(region.pairs_of[SIZE]), _key_of(service, tenant)
    at = _row_of(region.pair, size, key)
    if region.pair[at]["key"] == key:
        return at
    # linear probing needs empty rows
    if 8 * region.pairs_of[USED] >= 7 * size:
        at = size + service * N_TIERS + tier
        if region.pair[at]["key"] != 0:
            return at
        tenant = 0
    else:
        region.pairs_of[USED] += 1
        _move(region, key, at)
    row = region.pair[at]
    row["key"], row["tenant"], row["service"] = key, tenant, service
    row["next"], region.first[PRESENT, service] = region.first[PRESENT, service], at
    return at


@njit(cache=True)
def _move(region: Region, key: np.uint64, at: int) -> None:
    """Copy what the earlier table knows of a pair to row `at` of the present one."""
    was = _row_of(region.earlier, region.pairs_of[EARLIER_SIZE], key)
    if region.earlier[was]["key"] == 0:
        return
    row, before = region.pair[at], region.earlier[was]
    before["moved"] = 1
    row["at"], row["use"], row["demand"] = before["at"], before["use"], before["demand"]
    row["others_demand"] = before["others_demand"]
    row["weight"], row["tier"], row["merge"] = before["weight"], before["tier"], before["merge"]


@njit(cache=True)
def note_demand(
    region: Region, service: int, tenant: int, number: int, cost: float, now: float
) -> int:
    """Add a request of `cost` units to what a service and a tenant's pair with it are asked for;
    first decay the pair's use and demand to `now`. Return the pair's row.

    `tenant`: hash of its id. `number`: its row in `region.tier` and `region.weight`.
    """
    tier = region.tier[number]
    at = place(region, service, tenant, tier)
    row = region.pair[at]
    if row["at"] == 0.0:
        row["use"] = row["demand"] = 0.0
        row["at"] = now
    elif now > row["at"]:
        row["use"] *= math.exp((row["at"] - now) / USE_TAU_S)
        row["demand"] *= math.exp((row["at"] - now) / DEMAND_TAU_S)
        row["at"] = now
    row["demand"] += cost / DEMAND_TAU_S
    region.service[service, OFFERED] += cost
    row["weight"], row["tier"] = region.weight[number], tier
    return at


@njit(cache=True, inline="always")
def note_admitted(region: Region, at: int, cost: float) -> None:
    """Add an admitted request to what a pair and its service were given. Call `note_demand` first,
    which decays.
    """
    row = region.pair[at]
    row["use"] += cost / USE_TAU_S
    region.service[row["service"], ADMITTED] += cost
    region.service[row["service"], ADMITS] += 1.0


@njit(cache=True, inline="always")
def others_demand(region: Region, at: int) -> float:
    """Return what a pair asks for at the other deciders, cost units a second."""
    row = region.pair[at]
    return float(row["others_demand"]) if row["merge"] == region.pairs_of[MERGE] else 0.0


@njit(cache=True, inline="always")
def share_of_capacity(region: Region, at: int) -> float:
    """Return the share of the service's capacity, up to 1, that a pair asks all deciders for."""
    row = region.pair[at]
    asked = row["demand"] + others_demand(region, at)
    return min(1.0, float(asked / region.service[row["service"], CAPACITY]))


@njit(cache=True, inline="always")
def fair_share(region: Region, at: int) -> float:
    """Return how much a pair may use here, cost units a second; infinite where all demand fits.

    It is the tenant's fair share of the service times this decider's part of what the tenant asks
    for.
    """
    row = region.pair[at]
    share = region.service[row["service"], LEVEL + row["tier"]] * row["weight"]
    others = others_demand(region, at)
    part = row["demand"] / (row["demand"] + others) if others > 0.0 else 1.0
    return float(share * part)


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
def _list_active(
    region: Region, rows: np.ndarray, first: int, now: float, found: np.ndarray, count: int
) -> int:
    """Write tier, demand and weight of a service's active pairs in one table into `found` from row
    `count` on. Return how many rows are filled then; those beyond the end are counted only.
    """
    at = first
    while at >= 0:
        row = rows[at]
        merged = row["merge"] == region.pairs_of[MERGE]
        others, asked = row["others_demand"] if merged else 0.0, 0.0
        if now - row["at"] < ACTIVE_S:
            asked = row["demand"] * math.exp(min(0.0, row["at"] - now) / DEMAND_TAU_S)
        if row["moved"] == 0 and asked + others > 0.0:
            if count < len(found):
                found[count, 0], found[count, 1] = row["tier"], asked + others
                found[count, 2] = row["weight"]
            count += 1
        at = row["next"]
    return count


@njit(cache=True)
def active(region: Region, service: int, now: float) -> np.ndarray:
    """Return tier, demand in cost units a second, and weight of all that ask for a service now, at
    any decider, float64 (n, 3). The others' tenants that are not named are one row for each tier.
    """
    found, size = np.empty((256, 3)), -1
    while size != len(found):
        # a second time where the first try was too short
        found = np.empty((max(len(found), size), 3))
        size = 0
        for tier in range(N_TIERS):
            demand, weight = region.rest[service, 2 * tier], region.rest[service, 2 * tier + 1]
            if demand > 0.0 and weight > 0.0:
                found[size, 0], found[size, 1], found[size, 2] = tier, demand, weight
                size += 1
        size = _list_active(region, region.pair, region.first[PRESENT, service], now, found, size)
        size = _list_active(
            region, region.earlier, region.first[EARLIER, service], now, found, size
        )
        if size <= len(found):
            return found[:size]
    return found


@njit(cache=True)
def share_levels(region: Region, service: int, supply: float, now: float) -> None:
    """Write the fair level of each tier: infinite where all demand fits, 0 where there is no room.

    `supply`: cost units a second.
    """
    asking = active(region, service, now)
    for tier in range(N_TIERS - 1, -1, -1):
        mine = asking[:, 0] == tier
        asked, of = asking[:, 1][mine], asking[:, 2][mine]
        total = asked.sum()
        if total <= supply:
            region.service[service, LEVEL + tier] = np.inf
            supply -= total
        else:
            region.service[service, LEVEL + tier] = _fill(asked, of, supply)
            supply = 0.0


@njit(cache=True)
def forgive(region: Region, service: int, before: np.ndarray) -> None:
    """Lower the use of a service's pairs as their fair shares fell from the levels `before`,
    float64 (N_TIERS,), but not below their share.

    What a tenant used while its share was larger, or before the service was known to be short of
    room, is no debt: paying it back would leave room unused for seconds.
    """
    levels = region.service[service, LEVEL:]
    at = region.first[PRESENT, service]
    while at >= 0:
        row = region.pair[at]
        level, was = levels[row["tier"]], before[row["tier"]]
        share = fair_share(region, at)
        if level < was and row["use"] > share:
            row["use"] = max(share, row["use"] * level / was)
        at = row["next"]


@njit(cache=True)
def take_others(region: Region, services: np.ndarray, named: np.ndarray) -> None:
    """Add what another decider says of tenants to their pairs. `services`: the row of each one's
    service here, -1 for none, int64 (n,). `named`: `report.NAMED` (n,).
    """
    merge = region.pairs_of[MERGE]
    for k in range(len(named)):
        if services[k] < 0:
            continue
        tier = int(named[k]["tier"])
        row = region.pair[place(region, services[k], named[k]["tenant"], tier)]
        if row["merge"] != merge:
            row["merge"], row["others_demand"] = merge, 0.0
        if row["at"] == 0.0:
            row["weight"], row["tier"] = named[k]["weight"], tier
        row["others_demand"] += named[k]["demand"]


@njit(cache=True)
def _list_own(
    region: Region, rows: np.ndarray, service: int, first: int, now: float, out: np.ndarray, n: int
) -> int:
    """Write a service's own active pairs of one table into `out` from row `n` on. Return how many
    rows are filled then; those beyond the end are counted only.
    """
    at = first
    while at >= 0:
        row = rows[at]
        if row["moved"] == 0 and row["demand"] > 0.0 and now - row["at"] < ACTIVE_S:
            if n < len(out):
                passed = min(0.0, row["at"] - now)
                told = out[n]
                told["service"], told["tier"], told["tenant"] = service, row["tier"], row["tenant"]
                told["weight"] = row["weight"]
                told["demand"] = row["demand"] * math.exp(passed / DEMAND_TAU_S)
                told["use"] = row["use"] * math.exp(passed / USE_TAU_S)
            n += 1
        at = row["next"]
    return n


@njit(cache=True)
def _fill_own(region: Region, service: int, now: float, out: np.ndarray) -> int:
    """Write a service's own active pairs into `out`. Return how many there are."""
    n = _list_own(region, region.pair, service, region.first[PRESENT, service], now, out, 0)
    return _list_own(region, region.earlier, service, region.first[EARLIER, service], now, out, n)


def own_pairs(region: Region, service: int, now: float) -> np.ndarray:
    """Return the tenants that ask this decider for a service now, as `report.NAMED` (n,)."""
    out = np.empty(256, NAMED)
    count = _fill_own(region, service, now, out)
    if count > len(out):
        out = np.empty(count, NAMED)
        count = _fill_own(region, service, now, out)
    return out[:count]
