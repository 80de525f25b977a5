"""How a service is divided among tenants, from the reports that deciders exchange: what each tenant
asks for and gets at all deciders of a region, and what it is due.
"""

from __future__ import annotations

import time
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
from decider.engine.shared.state import N_TIERS
from monitoring import fleet

# Seconds of silence after which a decider's figures no longer count. Chosen: heartbeats come once a
# second, and reports of a decider that lives are never older than this (`store.REPORT_TTL_S`).
SILENT_S = 5.0


@dataclass(frozen=True)
class TenantShare:
    """One tenant at one service, cost units a second at all deciders of a region."""

    key: int
    """Keyed hash of its id (`TextHash`); 0 for the tenants of a tier that no decider names."""
    tier: int
    weight: float
    asks: float
    gets: float
    due: float
    """Its fair part of what the service is given now; all that it asks for where all fits."""


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
    """Those that ask for most first."""


def read_shares(service: str, now: float | None = None) -> tuple[ServiceShares, ...]:
    """Return how a service is divided, by region. Raise `fleet.Unreachable`."""
    valkey = fleet.client(settings.VALKEY_URL)
    now = time.time() if now is None else now
    try:
        report = fleet.read_fleet(now)
        alive = [node for node in report.nodes if now - node.at < SILENT_S]
        keys = [store.REPORT_PREFIX + node.node for node in alive]
        sealed = cast("list[bytes | None]", valkey.mget(keys)) if keys else []
    except (redis.RedisError, OSError) as error:
        raise fleet.Unreachable(str(error)) from error
    regions: dict[str, list[Report]] = {}
    for node, data in zip(alive, sealed, strict=True):
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
    rows = [(key, int(t), w, asks, gets) for key, (asks, gets, t, w) in named.items()]
    rest = figures[reports.REST :]
    # what the unnamed tenants of a tier get is not told
    rows += [
        (0, tier, rest[2 * tier + 1], rest[2 * tier], 0.0)
        for tier in range(N_TIERS)
        if rest[2 * tier] > 0.0 and rest[2 * tier + 1] > 0.0
    ]
    given, short = float(figures[reports.ADMITTED]), bool(figures[reports.PRICE] > 0.0)
    due = divide([row[1:4] for row in rows], given if short else np.inf)
    tenants = [
        TenantShare(key, tier, float(weight), float(asks), float(gets), float(part))
        for (key, tier, weight, asks, gets), part in zip(rows, due, strict=True)
    ]
    tenants.sort(key=lambda tenant: -tenant.asks)
    asked = float(figures[reports.ASKED])
    return ServiceShares(region, len(found), asked, given, short, tuple(tenants))


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
