"""Model, config and apps that several parts share: a model of the usual size, and a config that a
benchmark's load cannot exhaust.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import msgspec

from bench import model_scoring, random_model
from decider.contracts import defaults
from decider.contracts.artifact import Calibration
from decider.contracts.config import Config, ModelRef
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from decider.engine.engine import Engine

# As `learning.training.train` makes it.
VALUE_TREES = 80
# One app in so many belongs to a cohort that triage passes on to the model. Chosen: a fifth is a
# busy day; a calm one ranks fewer.
RANKED_SHARE = 5
# Tenants are fewer than apps, so that apps share tenants' counters as in production.
TENANTS = 5000
# Cohort priors: below and above what triage's cheap score lets pass.
EASY, SUSPECT = 0.05, 0.9
MODEL_WORDS = (
    f"risk model of {model_scoring.TREES} trees x {model_scoring.LEAVES} leaves, value model of"
    f" {VALUE_TREES} x 31"
)


# Training takes seconds, and several parts ask for the same bytes.
@cache
def model_data(times: int = 1) -> bytes:
    """Return an artifact with a risk model of `times` TREES x LEAVES and a smaller value model.

    Both are trained on random rows. Risks are low, so that few requests are refused.
    """
    rows = model_scoring.make_rows(20_000)
    risk = model_scoring.train(rows, times * model_scoring.TREES).model_to_string()
    value = model_scoring.train(rows, times * VALUE_TREES).model_to_string()
    low, even = Calibration(0.5, -3.0), Calibration(1.0, 0.0)
    return random_model.encode_artifact((risk, value), (low, even), rows[:32])


def config(digest: str = "", rank_all: bool = False) -> Config:
    """Return the starting config with services and plans that no load exhausts, so that a benchmark
    measures deciding, not refusing.

    `digest` names the live model, "" for none. With `rank_all`, the model ranks all requests.
    """
    base = defaults.config()
    services = [msgspec.structs.replace(s, capacity=1e9) for s in base.services]
    tiers = [
        msgspec.structs.replace(
            t, rate=1000.0, burst=1e5, quota_per_day=1e9, rank_from=0.0 if rank_all else 0.3
        )
        for t in base.tiers
    ]
    model = ModelRef("bench", 1, digest) if digest else None
    return msgspec.structs.replace(
        base,
        version=2 if rank_all else 1,
        services=services,
        tiers=tiers,
        model=model,
        ml_time_limit_ms=100.0,
    )


def profile(k: int) -> Profile:
    """Return the profile of app number `k`; every fifth is of a cohort that is ranked."""
    cohort = SUSPECT if k % RANKED_SHARE == 0 else EASY
    return Profile(f"app_{k:07d}", "", f"ten_{k % TENANTS:04d}", k % 4, 1.7e9, k % 2 == 0, cohort)


def track(engine: Engine, count: int) -> None:
    """Make an engine track apps 0 to count - 1."""
    for start in range(0, count, 10_000):
        engine.know([profile(k) for k in range(start, min(count, start + 10_000))])


def requests(count: int, apps: int, seed: int) -> Iterator[CheckRequest]:
    """Yield `count` requests of random apps below number `apps`, as a gateway sends them."""
    # Each text is a new object whose hash is not yet known: a real request comes from the wire.
    draw = random.Random(seed)
    for _ in range(count):
        k = draw.randrange(apps)
        source = f"10.{k >> 16 & 255}.{k >> 8 & 255}.{k & 255}"
        yield CheckRequest(
            f"app_{k:07d}",
            "GET",
            f"/v2/orders/{draw.randrange(20_000)}",
            f"token_{k}",
            source,
            f"req_{k}_{seed}",
        )
