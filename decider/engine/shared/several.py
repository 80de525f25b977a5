"""Endpoints that load several services at once; compiled.

A payment, say, costs its own service one unit and the ledger two. Each service counts what it is
asked for and given, and sets its own price. The request is decided by the service that is hardest
to get: where it would pay most. That one stands in its signals and in its record, so the answer and
the explanation name the service that was short. Where none is short, its own service stands there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from decider import policy
from decider.engine.buffers import Batch
from decider.engine.shared import tenant_use
from decider.engine.shared.state import PRICE, Region

# Most services of one endpoint. Chosen: few requests are that costly to serve, and each service
# costs a decision about a tenth of a microsecond.
MOST_EACH = 8
# Columns of a row: pairs of a service's row and the cost there; -1 stands behind the last one.
WIDTH = 2 * MOST_EACH


def rows_of(loads: list[list[tuple[int, float]]]) -> np.ndarray:
    """Return the table of endpoints with several services, float64 (1 + endpoints, WIDTH).

    `loads`: for each endpoint (service row, cost) of all its services, its own first. Row 0 of the
    table stands for all other endpoints and is not read.
    """
    table = np.full((1 + len(loads), WIDTH), -1.0)
    for k, load in enumerate(loads, 1):
        flat = [figure for part in load for figure in part]
        table[k, : len(flat)] = flat
    return table


@njit(cache=True)
def _price_of(region: Region, at: int, cost: float) -> float:
    """Return what a request of `cost` units pays at the service of a pair."""
    row = region.pair[at]
    price, fair = region.service[row["service"], PRICE], tenant_use.fair_share(region, at)
    if not policy.is_short(price, fair):
        return 0.0
    return float(policy.tenant_price(price, row["use"], fair) * cost)


@njit(cache=True, inline="always")
def note_demand(
    region: Region,
    table: np.ndarray,
    batch: Batch,
    i: int,
    tenant: int,
    number: int,
    now: float,
) -> int:
    """Add request `i` to what its services are asked for. Return the pair of the service that
    decides, which is noted with the cost there in the request's answer.

    `table`: from `rows_of`. `tenant` and `number`: as in `tenant_use.note_demand`.
    """
    request, answer = batch.request[i], batch.answer[i]
    if request["several"] == 0:
        answer["cost"] = cost = request["cost"]
        at = tenant_use.note_demand(region, request["service"], tenant, number, cost, now)
    else:
        at, answer["cost"] = _note_each(region, table[request["several"]], tenant, number, now)
    answer["pair"] = at
    return int(at)


@njit(cache=True)
def _note_each(
    region: Region, loads: np.ndarray, tenant: int, number: int, now: float
) -> tuple[int, float]:
    """Return the pair of the service where a request pays most, and its cost there."""
    pair, cost, most = -1, 0.0, -1.0
    for k in range(0, WIDTH, 2):
        if loads[k] < 0.0:
            break
        at = tenant_use.note_demand(region, int(loads[k]), tenant, number, loads[k + 1], now)
        paid = _price_of(region, at, loads[k + 1])
        if paid > most:
            pair, cost, most = at, loads[k + 1], paid
    return pair, cost


@njit(cache=True, inline="always")
def note_admitted(
    region: Region, table: np.ndarray, batch: Batch, i: int, tenant: int, number: int
) -> None:
    """Add admitted request `i` to what its services were given. Call `note_demand` first."""
    row = batch.request[i]["several"]
    if row == 0:
        tenant_use.note_admitted(region, batch.answer[i]["pair"], batch.request[i]["cost"])
        return
    for k in range(0, WIDTH, 2):
        service = int(table[row, k])
        if service < 0:
            break
        at = tenant_use.place(region, service, tenant, region.tier[number])
        tenant_use.note_admitted(region, at, table[row, k + 1])
