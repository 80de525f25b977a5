"""What all apps share: the services with their prices, and the tenants with their use of them.

`service_control` has the controller that sets the prices, `tenant_use` how much each tenant uses
and what its fair share is, `peers` what the other deciders of the region say, and `tables` makes
the tables anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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
    ADMIT_NOW,  # cost units a second that this decider admitted and was asked for of late
    ASKED_NOW,
    OTHERS_ADMIT,  # the same at the region's other deciders, and their mean price, -1 for none
    OTHERS_ASKED,
    OTHERS_PRICE,
    SHORT_AT,  # engine time since when it has been short of room
    BACKLOG,  # seconds of work that would wait if the service did all of its capacity
    GIVEN_LONG,  # cost units a second that all deciders admitted, and that were answered, of late
    ANSWERED_LONG,
    LEVEL,  # the fair level of the lowest tier; those of the others follow
) = range(34)
N_TIERS = 4  # as many as `vocabulary.Tier` has
N_SERVICE = LEVEL + N_TIERS
# Rows of tenants. Row 0 is of all apps that are not known. One row for each tier is shared by the
# tenants that have no row of their own; behind them stand the rows that a tenant has alone.
SHARED_ROWS, FIRST_OWN_ROW = 1, 1 + N_TIERS

# One pair of a service and a tenant. `use` and `demand`: cost units a second admitted and asked
# for, decayed, as of `at` (engine time). `others_demand`: what the other deciders are asked for, as
# of merge number `merge`. `next`: the service's pair made before this one, -1 none.
PAIR = np.dtype(
    [
        ("key", "u8"),
        ("tenant", "i8"),
        ("at", "f8"),
        ("use", "f8"),
        ("demand", "f8"),
        ("others_demand", "f8"),
        ("weight", "f8"),
        ("tier", "i4"),
        ("service", "i4"),
        ("next", "i4"),
        ("merge", "i4"),
        ("moved", "i8"),
    ]
)
# Places in Region.pairs_of (int64): rows used and rows of the present and of the earlier table;
# number of the last merge of the other deciders' figures.
USED, SIZE, EARLIER_SIZE, MERGE = range(4)
# Rows of Region.first for the present and for the earlier table.
PRESENT, EARLIER = range(2)
# Rows of the smallest table of pairs. Chosen: some hundred kilobytes.
LEAST_ROWS = 4_096


class Region(NamedTuple):
    """The services and tenants that all deciders share, as this decider sees them."""

    service: np.ndarray
    """float64 (services, N_SERVICE)."""
    pair: np.ndarray
    """PAIR (size + spare rows,): the present table of pairs of a service and a tenant."""
    earlier: np.ndarray
    """PAIR (size + spare rows,): the table before it."""
    first: np.ndarray
    """int64 (2, services): each service's newest pair in both tables, -1 none."""
    pairs_of: np.ndarray
    """int64 (4,): columns USED to MERGE."""
    rest: np.ndarray
    """float64 (services, 2 * N_TIERS): for each tier, demand and weight of the tenants of other
    deciders that these do not name.
    """
    part: np.ndarray
    """float64 (1,): this decider's part of the region's traffic, 0 to 1, where the other deciders
    have not been heard of; 1 where their figures are there, or where there are none.
    """
    weight: np.ndarray
    """float64 (tenants,)."""
    tier: np.ndarray
    """int64 (tenants,): tier of the tenant's apps."""


def make_pairs(pairs: int, services: int) -> np.ndarray:
    """Return an empty table for about this many pairs, at most a quarter full. Behind it stands a
    spare row for each service and tier, which pairs share while the table is full.
    """
    return np.zeros(rows_for(pairs) + services * N_TIERS, PAIR)


def rows_for(pairs: int) -> int:
    """Return the rows, a power of two, of a table for about this many pairs."""
    return max(LEAST_ROWS, 1 << (4 * max(1, pairs) - 1).bit_length())


def allocate(services: int, tenants: int) -> Region:
    """Return an empty region with this many services and rows for tenants."""
    weight = np.zeros(tenants)
    weight[0] = 1.0
    return Region(
        service=np.zeros((services, N_SERVICE)),
        pair=make_pairs(0, services),
        earlier=make_pairs(0, services),
        first=np.full((2, services), -1, np.int64),
        pairs_of=np.array([0, LEAST_ROWS, LEAST_ROWS, 0], np.int64),
        rest=np.zeros((services, 2 * N_TIERS)),
        part=np.ones(1),
        weight=weight,
        tier=np.zeros(tenants, np.int64),
    )


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
