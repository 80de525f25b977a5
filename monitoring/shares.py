"""How a service is divided among tenants, from the reports that deciders exchange: what each tenant
asks for and gets at all deciders of a region, and what it is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import redis
from django.conf import settings

from decider.contracts import store
from decider.engine.shared import report as reports
from decider.engine.shared.report import Report, ReportError
from monitoring import fleet


@dataclass(frozen=True)
class TenantShare:
    """One tenant at one service, cost units a second at all deciders of a region."""

    key: int
    """Keyed hash of its id (`TextHash`)."""
    tier: int
    weight: float
    asks: float
    gets: float
    due: float
    """Its fair part of what these tenants got together; all that it asks for where all fits."""


@dataclass(frozen=True)
class ServiceShares:
    """One service in one region, cost units a second."""

    region: str
    deciders: int
    asked: float
    given: float
    short: bool
    """Whether a decider prices it, because it is short of room."""
    tenants: tuple[TenantShare, ...]
    """Those that deciders name, who ask for most, in this order."""
    unnamed: float
    """What all others ask for."""


def read_shares(service: str, now: float | None = None) -> tuple[ServiceShares, ...]:
    """Return how a service is divided, by region. Raise `fleet.Unreachable`.

    A decider that falls silent no longer counts once its report is gone, `store.REPORT_TTL_S`.
    """
    valkey = fleet.client(settings.VALKEY_URL)
    try:
        nodes = fleet.read_fleet(now).nodes
        keys = [store.REPORT_PREFIX + node.node for node in nodes]
        sealed = cast("list[bytes | None]", valkey.mget(keys)) if keys else []
    except (redis.RedisError, OSError) as error:
        raise fleet.Unreachable(str(error)) from error
    regions: dict[str, list[Report]] = {}
    for node, data in zip(nodes, sealed, strict=True):
        if (read := _unsealed(data)) is not None and service in read.services:
            regions.setdefault(node.region, []).append(read)
    return tuple(add_up(region, service, found) for region, found in sorted(regions.items()))


def _unsealed(data: bytes | None) -> Report | None:
    """Return a report; None for none, and for what is no report of this fleet."""
    try:
        return reports.unseal(data, _key(settings.SLUICE_KEYS)) if data else None
    except ReportError:
        return None


@lru_cache(maxsize=4)
def _key(folder: Path) -> bytes:
    return reports.derive_key(bytes.fromhex((folder / "token.key").read_text()))


def add_up(region: str, service: str, found: Sequence[Report]) -> ServiceShares:
    """Return how a service is divided in a region, from its deciders' reports."""
    figures = np.zeros(reports.N_FIGURES)
    named: dict[int, np.ndarray] = {}
    for one in found:
        row = one.services.index(service)
        figures += one.read_figures()[row]
        for tenant in one.read_named():
            if tenant["service"] == row:
                asks_gets = named.setdefault(
                    int(tenant["tenant"]), np.array([0.0, 0.0, tenant["tier"], tenant["weight"]])
                )
                asks_gets[:2] += tenant["demand"], tenant["use"]
    short = bool(figures[reports.PRICE] > 0.0)
    rows = [(key, int(t), float(w), asks, gets) for key, (asks, gets, t, w) in named.items()]
    # Of what they got: it is a mean of the same seconds, while what is given changes faster.
    due = divide([row[1:4] for row in rows], sum(row[4] for row in rows) if short else np.inf)
    tenants = [
        TenantShare(key, tier, weight, float(asks), float(gets), float(part))
        for (key, tier, weight, asks, gets), part in zip(rows, due, strict=True)
    ]
    tenants.sort(key=lambda tenant: -tenant.asks)
    return ServiceShares(
        region,
        len(found),
        float(figures[reports.ASKED]),
        float(figures[reports.ADMITTED]),
        short,
        tuple(tenants),
        float(figures[reports.REST :: 2].sum()),
    )


def divide(asking: Sequence[tuple[int, float, float]], supply: float) -> list[float]:
    """Return each one's due as deciders reckon it: higher tiers first, and within a tier the
    weighted max-min share. `asking`: tier, weight and demand.
    """
    due = [0.0] * len(asking)
    for tier in sorted({tier for tier, _, _ in asking}, reverse=True):
        # those that ask for least, for their weight, are satisfied first
        mine = sorted(
            (k for k in range(len(asking)) if asking[k][0] == tier),
            key=lambda k: asking[k][2] / asking[k][1],
        )
        left = sum(asking[k][1] for k in mine)
        for k in mine:
            _, weight, demand = asking[k]
            due[k] = min(demand, supply * weight / left if supply < np.inf else demand)
            supply, left = max(0.0, supply - due[k]), left - weight
    return due
