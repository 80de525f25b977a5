"""A full node: 1.2 million apps active of 8 million, 256 services, the table of paying apps: its
memory, and decisions while strangers come and push others out.
"""

from __future__ import annotations

import gc
import time

import numpy as np
from msgspec import structs

from bench import apps, row
from bench.memory.resident import resident
from bench.model_scoring import one_core
from decider.contracts import artifact, defaults
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from decider.contracts.vocabulary import Tier
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.engine.memory import app_state
from decider.scoring import model
from decider.scoring.model import Model

# Apps of the platform, those active at the node, those that pay, services, and the share of
# requests from apps that are not tracked yet.
ALL, ACTIVE, PAYING, SERVICES, NEW = 8_000_000, 1_200_000, 1_000_000, 256, 0.05
# Apps of the peer, decisions timed, requests of one call. Chosen: what fits a cache; enough for a
# p99 of batches; a batch as the edge makes it under load.
FEW, BATCHES, SIZE = 10_000, 2_000, 64
# Targets: gigabytes of memory, and how much longer a p99 may be than with few apps.
GIGABYTES, TIMES = 2.0, 3.0


def measure() -> list[dict[str, object]]:
    """Return the rows: resident memory, evictions, and times of batches beside a small node's."""
    model.warm_up()
    data = apps.model_data()
    with one_core():
        few = _filled(FEW, data, 5)
        _timed(few, FEW, 200)
        gc.collect()
        before = resident()
        full = _filled(ACTIVE, data, SERVICES)
        _know(full)
        gc.collect()
        grown = resident() - before
        gc.freeze()
        gc.disable()
        peer, own = _timed(few, FEW, BATCHES), _timed(full, ACTIVE, BATCHES)
        gc.enable()
        gc.unfreeze()
    evicted = int(full.state.meta[app_state.M_EVICTED])
    return [_memory(grown), *_times(own, peer, evicted)]


def _filled(count: int, data: bytes, services: int) -> Engine:
    digest = artifact.digest_of(data)
    engine = Engine("bench", "local", b"bench" * 4, count)
    more = [
        structs.replace(defaults.SERVICES[0], name=f"service-{k}", prefixes=[f"/s{k}"])
        for k in range(services - len(defaults.SERVICES))
    ]
    config = apps.config(digest)
    engine.apply(
        structs.replace(config, services=[*config.services, *more]), Model.load(data, digest)
    )
    for start in range(0, count, 256):
        engine.decide([_request(k) for k in range(start, min(count, start + 256))])
        _empty(engine)
    return engine


def _request(k: int) -> CheckRequest:
    return CheckRequest(f"app_{k:07d}", "GET", f"/v2/orders/{k % 5000}")


def _empty(engine: Engine) -> None:
    """Remove samples and wanted profiles, as the decider does."""
    engine.take_events()
    engine.wanted_profiles.clear()


def _know(engine: Engine) -> None:
    """Give the engine the table of all paying apps."""
    profiles = [
        Profile(f"app_{k * (ALL // PAYING):07d}", tenant=f"t{k % 50_000}", tier=Tier.STANDARD)
        for k in range(PAYING)
    ]
    engine.hold_known(known_apps.of_profiles(profiles, engine.text_hash))


def _timed(engine: Engine, count: int, batches: int) -> np.ndarray:
    """Return CPU microseconds for each request of `batches` batches, float64 (batches,)."""
    rng, took = np.random.default_rng(1), np.empty(batches)
    drawn = rng.integers(0, count, (batches, SIZE))
    strange = rng.integers(count, ALL, (batches, SIZE))
    drawn = np.where(rng.random((batches, SIZE)) < NEW, strange, drawn)
    for k, numbers in enumerate(drawn.tolist()):
        requests = [_request(n) for n in numbers]
        start = time.thread_time_ns()
        engine.decide(requests)
        took[k] = (time.thread_time_ns() - start) / 1e3 / SIZE
        _empty(engine)
    return took


def _memory(grown: int) -> dict[str, object]:
    return row(
        "memory: full node",
        round(grown / 1e9, 2),
        "GB",
        f"under {GIGABYTES:g}",
        grown < GIGABYTES * 1e9,
        f"growth of resident memory: {ACTIVE:,} apps tracked, {SERVICES} services, a table of"
        f" {PAYING:,} paying apps",
    )


def _times(own: np.ndarray, peer: np.ndarray, evicted: int) -> list[dict[str, object]]:
    where = (
        f"CPU time of a request in {BATCHES:,} batches of {SIZE}, {NEW:.0%} of them from apps that"
        f" are not tracked; {evicted:,} evictions; the peer tracks {FEW:,} apps of 5 services"
    )
    rows = []
    for name, at in (("median", 0.5), ("p99", 0.99)):
        figure, other = (float(np.quantile(each, at)) for each in (own, peer))
        rows.append(
            {
                "name": f"memory: full node, a request, {name} of batches",
                "figure": round(figure, 2),
                "unit": "us",
                "peer": "a node with few apps",
                "peer_figure": round(other, 2),
                "ratio": round(figure / other, 2),
                "target": f"at most {TIMES:g} times",
                "met": figure <= TIMES * other,
                "conditions": where,
            }
        )
    return rows
