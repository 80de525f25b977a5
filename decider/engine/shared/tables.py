"""Makes the tables of services, tenants and their pairs anew: for other services, and before the
table of pairs is full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit

from decider.contracts.config import Service
from decider.engine.shared import tenant_use
from decider.engine.shared.state import (
    ABLE,
    EARLIER,
    EARLIER_SIZE,
    LATENCY,
    LATENCY_NOW,
    LEVEL,
    OTHERS_PRICE,
    PRESENT,
    SIZE,
    USED,
    USUAL_MS,
    Region,
    allocate,
    make_pairs,
    rows_for,
)

# Rows of the largest table of pairs. Chosen: a node whose apps use two million pairs a minute; its
# tables then take 600 MB.
MOST_ROWS = 1 << 22


def carry_over(
    old: Region | None, index: Mapping[str, int], services: Sequence[Service], most_tenants: int
) -> Region:
    """Return a region for `services` that keeps what `old` knows of those that stay. It may be
    `old` itself, changed.

    `index`: the rows of `old` by the names of its services.
    """
    # copies: a service may take the row of another one
    before = {} if old is None else {name: old.service[row].copy() for name, row in index.items()}
    if old is not None and [index.get(s.name, -1) for s in services] == [*range(len(old.service))]:
        region = old
    else:
        region = allocate(len(services), most_tenants)
        if old is not None:
            region = region._replace(weight=old.weight, tier=old.tier, part=old.part)
            region = _keep_pairs(old, region, [index.get(s.name, -1) for s in services])
    for row, service in zip(region.service, services, strict=True):
        if service.name in before:
            row[:] = before[service.name]
        else:
            row[:] = 0.0
            row[LEVEL:], row[ABLE], row[OTHERS_PRICE] = np.inf, 1.0, -1.0
            row[LATENCY] = row[LATENCY_NOW] = service.latency_ms
        row[: USUAL_MS + 1] = (service.capacity, service.target, service.latency_ms)
    return region


def _keep_pairs(old: Region, new: Region, rows: Sequence[int]) -> Region:
    """Return `new` with the pairs of `old`. `rows`: each service's row in `old`, -1 for none."""
    new = _with_present(new, 2 * int(old.pairs_of[USED]))
    to = np.full(len(old.service), -1, np.int64)
    for now, was in enumerate(rows):
        if was >= 0:
            to[was] = now
    # the earlier table first, so that what moved is taken from the present one
    for pairs in (old.earlier, old.pair):
        _copy_pairs(new, pairs, to)
    return new


@njit(cache=True)
def _copy_pairs(new: Region, pairs: np.ndarray, to: np.ndarray) -> None:
    """Copy the pairs of services that stay. `to`: the new row of each service, -1 for none."""
    for k in range(len(pairs)):
        row = pairs[k]
        if row["key"] == 0 or row["moved"] != 0 or to[row["service"]] < 0:
            continue
        at = tenant_use.place(new, to[row["service"]], row["tenant"], row["tier"])
        kept = new.pair[at]
        kept["at"], kept["use"], kept["demand"] = row["at"], row["use"], row["demand"]
        kept["weight"], kept["tier"] = row["weight"], row["tier"]


def _with_present(region: Region, pairs: int) -> Region:
    """Return the region with an empty present table for about this many pairs."""
    size = min(MOST_ROWS, rows_for(pairs))
    region.pairs_of[USED], region.pairs_of[SIZE] = 0, size
    region.first[PRESENT] = -1
    present = make_pairs(size // 4, len(region.service))
    return region._replace(pair=present)


def wants_rotation(region: Region, seconds: float) -> bool:
    """Return whether the present table of pairs has stood long enough (`seconds`), or is half full
    and may still grow.
    """
    used, size = int(region.pairs_of[USED]), int(region.pairs_of[SIZE])
    return seconds >= tenant_use.ROTATE_S or (2 * used > size and size < MOST_ROWS)


def rotate(region: Region) -> Region:
    """Return the region with its present table as the earlier one, and an empty present table."""
    used = int(region.pairs_of[USED])
    region.pairs_of[EARLIER_SIZE] = region.pairs_of[SIZE]
    region.first[EARLIER] = region.first[PRESENT]
    return _with_present(region._replace(earlier=region.pair), used)
