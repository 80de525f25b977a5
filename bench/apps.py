"""What several parts measure with: a model of the usual size, a config that a benchmark's load
cannot exhaust, apps to track.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import msgspec

from bench import model_scoring
from decider.contracts import artifact as artifacts
from decider.contracts import defaults
from decider.contracts.artifact import Artifact, Calibration, ModelCard
from decider.contracts.config import Config, ModelRef
from decider.contracts.features import SCHEMA
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from decider.engine.engine import Engine
from decider.scoring.model import make_golden

VALUE_TREES = 80
# Every so many apps belong to a cohort that triage passes on to the model.
RANKED_SHARE = 5
TENANTS = 5000
# Cohort priors: below and above what triage's cheap score lets pass.
EASY, SUSPECT = 0.05, 0.9
MODEL_WORDS = (
    f"risk model of {model_scoring.TREES} trees x {model_scoring.LEAVES} leaves, value model of"
    f" {VALUE_TREES} x 31"
)


@cache
def model_data() -> bytes:
    """An artifact with a risk model of TREES x LEAVES and a smaller value model, made from random
    rows; its risks are low.
    """
    rows = model_scoring.make_rows(20_000)
    risk = model_scoring.train(rows).model_to_string()
    value = model_scoring.train(rows, VALUE_TREES).model_to_string()
    low, even = Calibration(0.5, -3.0), Calibration(1.0, 0.0)
    card = ModelCard(
        title="Random rows",
        trained_at=0.0,
        trained_by="bench",
        data="random rows",
        data_from=0.0,
        data_to=0.0,
        label_maturity="none",
        rows=len(rows),
        positives=0,
        parameters={},
        metrics={},
        limits="Worth nothing.",
        typical={},
    )
    golden = make_golden(rows[:32], risk, value, low, even)
    return artifacts.encode(
        Artifact(
            name="bench",
            feature_schema=SCHEMA,
            risk_model=risk,
            value_model=value,
            risk_calibration=low,
            value_calibration=even,
            golden=golden,
            card=card,
        )
    )


def config(digest: str = "", rank_all: bool = False) -> Config:
    """The starting document with services and plans too large to run out, so that a benchmark
    measures deciding, not refusing.
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
    """Profile of app number `k`; every fifth is of a cohort that is ranked."""
    cohort = SUSPECT if k % RANKED_SHARE == 0 else EASY
    return Profile(f"app_{k:07d}", "", f"ten_{k % TENANTS:04d}", k % 4, 1.7e9, k % 2 == 0, cohort)


def track(engine: Engine, count: int) -> None:
    """Makes an engine track apps 0 to count - 1."""
    for start in range(0, count, 10_000):
        engine.know([profile(k) for k in range(start, min(count, start + 10_000))])


def requests(count: int, apps: int, seed: int) -> Iterator[CheckRequest]:
    """Requests of random apps, as a gateway asks them; every text is a new object whose hash is not
    yet known.
    """
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
