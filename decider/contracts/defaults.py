"""The config document a new installation starts with: four tiers and the five demo services."""

from __future__ import annotations

from decider.contracts import features
from decider.contracts.config import Config, EndpointPolicy, Service, TierPolicy

# Chosen for the demo: each tier has about three to four times the rate of the one below. `friction`
# grows with the tier, as a wrongly refused enterprise app costs most; `harm` falls a little, as
# abuse by a known, paying owner can be followed up. `rank_from` grows so that fewer requests of
# trusted tiers are scored. With the error budgets, ML may refuse more the surer it is: half of a
# free app's requests at a risk of 0.8, all of them at 0.9. Only apps with proof of honesty have the
# headroom; the others get what the plan promises.
TIERS = [
    TierPolicy(
        rate=5,
        burst=50,
        quota_per_day=50_000,
        weight=1,
        friction=1.0,
        harm=0.5,
        error_budget_per_hour=20,
        error_budget=0.1,
        rank_from=0.12,
        headroom_to="proven",
    ),
    TierPolicy(
        rate=15,
        burst=300,
        quota_per_day=2_000_000,
        weight=2,
        friction=1.5,
        harm=0.45,
        error_budget_per_hour=10,
        error_budget=0.05,
        rank_from=0.15,
        headroom_to="proven",
    ),
    TierPolicy(
        rate=50,
        burst=1_000,
        quota_per_day=10_000_000,
        weight=4,
        friction=2.5,
        harm=0.42,
        error_budget_per_hour=5,
        error_budget=0.02,
        rank_from=0.2,
        headroom_to="proven",
    ),
    TierPolicy(
        rate=200,
        burst=4_000,
        quota_per_day=50_000_000,
        weight=8,
        friction=6.0,
        harm=0.4,
        error_budget_per_hour=1,
        rank_from=0.3,
        headroom_to="proven",
    ),
]

# Chosen for the demo. Capacities are small, so that a laptop's load shows prices and refusals. None
# has the prefix "/", so a path that no service has is counted as unknown.
SERVICES = [
    Service(
        name="orders-read",
        prefixes=["/v2/orders"],
        capacity=400,
        latency_ms=12,
        endpoints=[
            EndpointPolicy("GET", "/v2/orders/{id}", 1.0, "POST /v2/orders:batchGet"),
            # a batch of many orders for the price of four: worth a client's while
            EndpointPolicy("POST", "/v2/orders:batchGet", 4.0),
            EndpointPolicy("GET", "/v2/orders", 3.0),
        ],
    ),
    Service(
        name="ledger-write",
        prefixes=["/v2/ledger"],
        capacity=120,
        latency_ms=30,
        endpoints=[
            EndpointPolicy("POST", "/v2/ledger/entries", 2.0, "POST /v2/ledger/entries:batch")
        ],
    ),
    Service(
        name="search",
        prefixes=["/v2/search"],
        capacity=200,
        latency_ms=25,
        endpoints=[EndpointPolicy("GET", "/v2/search", 2.0)],
    ),
    Service(
        name="payments",
        prefixes=["/v2/payments"],
        capacity=80,
        latency_ms=40,
        endpoints=[EndpointPolicy("POST", "/v2/payments/charges", 3.0)],
    ),
    Service(name="auth", prefixes=["/v2/auth"], capacity=150, latency_ms=15),
]


def config(version: int = 1, issued_at: float = 0.0) -> Config:
    """Return the starting document: no model, no switch, no override.

    `issued_at`: unix seconds.
    """
    return Config(
        version=version,
        feature_schema=features.SCHEMA,
        issued_at=issued_at,
        tiers=TIERS,
        services=SERVICES,
    )
