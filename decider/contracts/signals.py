"""The policy signals: what the policy function sees besides features and scores.

A signal vector is float64, shape `(N_SIGNALS,)`, in this order. It is recorded with each kept
decision, so that the decision can be made again from its own record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal: its name, its unit and what it means."""

    name: str
    unit: str
    meaning: str


SIGNALS: tuple[Signal, ...] = (
    Signal("tier", "level", "tier of the app, `vocabulary.Tier`"),
    Signal("ml_state", "enum", "`vocabulary.MlState` when decided"),
    Signal("observe_only", "flag", "1 when the answer is admit whatever is decided"),
    Signal("list_verdict", "enum", "0 not listed, 1 allow list, 2 block list"),
    Signal("compliance", "flag", "1 when a compliance rule forbids the request"),
    Signal(
        "quota_left",
        "requests",
        "requests this node may still admit today for the app, before this one",
    ),
    Signal("quota_limit", "requests", "daily quota of the app"),
    Signal("quota_reset", "seconds", "until the quota starts again"),
    Signal("override_action", "enum", "action an override in force asks for, -1 for none"),
    Signal(
        "override_multiplier", "ratio", "what an override multiplies rate and burst by, 1 for none"
    ),
    Signal(
        "tokens",
        "requests",
        "tokens in the burst bucket before this request; negative in the headroom",
    ),
    Signal("bucket_rate", "per_s", "refill of the bucket"),
    Signal("bucket_burst", "requests", "size of the bucket"),
    Signal("cost", "cost units", "cost of this request"),
    Signal("batchable", "flag", "1 when the endpoint has a batch form"),
    Signal(
        "service_price",
        "utility per cost unit",
        "the controller's price for the service, 0 when there is room",
    ),
    Signal("service_utilisation", "share", "load of the service over its capacity"),
    Signal("tenant_usage", "cost units per s", "the tenant's use of the service, at this decider"),
    Signal(
        "tenant_fair_share",
        "cost units per s",
        "what the tenant is owed of the service under load, at this decider; inf while the service"
        " has room for all that the tenant's tier and the tiers above ask for",
    ),
    Signal(
        "error_budget_left",
        "refusals",
        "expected false throttles the app may still suffer now; inf where its tier has no budget",
    ),
    Signal("prior_risk", "probability", "risk assumed where no model speaks: the cohort's prior"),
    Signal("prior_value", "share", "value assumed where no model speaks"),
    Signal(
        "retry_hint",
        "seconds",
        "wait that the client is told: the engine's forecast, or what the refusing rule says, with"
        " some jitter; 0 when nothing was refused",
    ),
    Signal(
        "lease_due",
        "seconds",
        "wait after which more of the quota may be leased; 0 when no more can be had today",
    ),
    Signal(
        "unknown_wait",
        "seconds",
        "wait after which unknown apps get more; 0 when the app is known or there is room",
    ),
    Signal(
        "headroom_withheld",
        "requests",
        "how much less headroom than a whole burst the app has, because of its tier or because it"
        " gave no proof of honesty",
    ),
    Signal(
        "error_budget_rate",
        "share",
        "share of the app's requests that ML may refuse wrongly; 1 for no limit, as for tiers below"
        " enterprise while the service is far short of room; 0 in older records, whose budget was"
        " refusals an hour",
    ),
    Signal(
        "waited",
        "flag",
        "1 when the request repeats a refused one and its app waited as it was told: then the load"
        " does not count against it, and ML can refuse it only with a block",
    ),
)

N_SIGNALS = len(SIGNALS)
INDEX: dict[str, int] = {s.name: i for i, s in enumerate(SIGNALS)}
# The oldest stored records end before `lease_due`. Later signals read as 0 there, and with 0 the
# policy decides those records as it did then.
_FEWEST = INDEX["lease_due"]


def service_is_short(seen: Mapping[str, float]) -> bool:
    """Return whether the service was short of room for a request: it had a price, no room for all
    of the tenant's tier, and the request had not waited for a place. `seen`: signals by name.
    """
    return (
        seen.get("service_price", 0.0) > 0.0
        and seen.get("tenant_fair_share") != math.inf
        and seen.get("waited", 0.0) == 0.0
    )


def unpack(recorded: bytes) -> NDArray[np.float64]:
    """Return the signals of a record, float64 (N_SIGNALS,), as an array that may be written to.

    Raises ValueError for another layout.
    """
    seen = np.frombuffer(recorded, "<f8")
    if not _FEWEST <= len(seen) <= N_SIGNALS:
        raise ValueError(f"the record holds {len(seen)} signals, expected {N_SIGNALS}")
    return np.concatenate([seen, np.zeros(N_SIGNALS - len(seen))])
