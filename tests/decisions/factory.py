"""Decision events and stored decisions for tests."""

from __future__ import annotations

import itertools
import time
import uuid

import numpy as np

from decider.contracts import features, signals
from decider.contracts.event import Event, EventBatch
from decider.contracts.ids import IdSource
from decider.contracts.vocabulary import Action, Arm, MlState, Reason, Stage

_ids = IdSource()
_count = itertools.count(1)


def vector(**values: float) -> bytes:
    """A feature vector as served: defaults, and what is named."""
    row = np.array([f.default for f in features.FEATURES], np.float32)
    for name, value in values.items():
        row[features.INDEX[name]] = value
    return row.tobytes()


def signal_vector(**values: float) -> bytes:
    row = np.zeros(signals.N_SIGNALS, np.float64)
    calm = {
        "override_action": -1,
        "override_multiplier": 1,
        "tokens": 20,
        "bucket_rate": 15,
        "bucket_burst": 300,
        "quota_left": 1000,
        "quota_limit": 2_000_000,
        "cost": 1,
        "tenant_fair_share": np.inf,
        "error_budget_left": 5,
        "prior_risk": 0.05,
        "prior_value": 0.5,
    }
    for name, value in (calm | values).items():
        row[signals.INDEX[name]] = value
    return row.tobytes()


def event(**fields) -> Event:
    """A ranked, deferred request of an app, now; any field may be given."""
    at = fields.pop("at", None) or time.time()
    n = next(_count)
    base = {
        "id": _ids.one() if abs(at - time.time()) < 1 else id_at(at),
        "at": at,
        "request_id": f"req_{n:012x}",
        "region": "local",
        "node": "d01",
        "app": "app_7q2m4kx9",
        "tenant": "ten_tidewell",
        "tier": 1,
        "token_digest": "9f20" * 8,
        "method": "GET",
        "endpoint": "/v2/orders/{id}",
        "service": "orders-read",
        "action": int(Action.DEFER),
        "observed": False,
        "stage": int(Stage.RANK),
        "reason": int(Reason.RISK_HIGH),
        "retry_after": 4.0,
        "risk": 0.81,
        "value": 0.38,
        "raw_risk": 1.452,
        "raw_value": -0.49,
        "model": "8c1f9a52" * 8,
        "arm": int(Arm.LIVE),
        "ml_state": int(MlState.LIVE),
        "config_version": 1,
        "feature_schema": features.SCHEMA,
        "features": vector(
            rate_1s=48, rate_10s=42, rate_60s=12, burst_ratio=3.4, tier=1, app_age=1204
        ),
        "signals": signal_vector(tier=1, tokens=-300),
        "inclusion_probability": 0.5,
        "latency_us": 12.5,
        "payload_bytes": 0,
    }
    return Event(**(base | fields))


def unranked(**fields) -> Event:
    """An admitted request that no model was asked about."""
    base = {
        "action": int(Action.ADMIT),
        "stage": int(Stage.TRIAGE),
        "reason": int(Reason.HARMLESS),
        "retry_after": 0.0,
        "risk": None,
        "value": None,
        "raw_risk": None,
        "raw_value": None,
        "arm": int(Arm.NONE),
        "inclusion_probability": 0.02,
    }
    return event(**(base | fields))


def id_at(at: float) -> bytes:
    """A UUIDv7 of a moment."""
    tail = uuid.uuid4().int & ((1 << 62) - 1)
    high = (int(at * 1000) << 16) | 0x7000 | (tail >> 50)
    return high.to_bytes(8, "big") + ((0x2 << 62) | (tail & ((1 << 62) - 1))).to_bytes(8, "big")


def batch(events: list[Event], **fields) -> EventBatch:
    base = {
        "id": id_at(time.time()),
        "node": "d01",
        "sent_at": time.time(),
        "dropped": 0,
        "events": events,
    }
    return EventBatch(**(base | fields))
