"""Memory of a tracked app, its limit, and the time of a decision that evicts an app."""

from __future__ import annotations

import gc
import time

import numpy as np

from bench import apps
from bench.memory import full_node
from bench.memory.resident import resident
from bench.model_scoring import one_core
from decider.contracts import artifact
from decider.contracts.requests import CheckRequest
from decider.engine.engine import Engine
from decider.engine.memory import app_state
from decider.scoring import model
from decider.scoring.model import Model

# Tracked apps, enough that the arrays are far larger than the rest; and decisions of one round.
APPS, STEPS = 300_000, 10_000
# Targets: bytes of an app, milliseconds that evicting may add, growth past capacity as a share.
BYTES, STALL_MS, GROWTH = 600, 1.0, 0.01
# A quantile that leaves out one decision of a round, so that a single interrupt does not decide.
WORST_OF = 0.9999


def measure(rounds: int = 10) -> list[dict[str, object]]:
    """Return the rows: growth of resident memory while apps arrive, and times of single decisions
    with and without evictions.
    """
    model.warm_up()
    data = apps.model_data()
    with one_core():
        engine = _engine(2048, data)
        # After this everything is compiled and warm.
        _ask(engine, 0, 4096)
        gc.collect()
        before = resident()
        engine = _engine(APPS, data)
        _ask(engine, 0, APPS)
        filled = resident()
        _ask(engine, APPS, 3 * APPS)
        gc.collect()
        after = resident()
        gc.freeze()
        gc.disable()
        kept, made_room = _times(engine, rounds)
        gc.enable()
        gc.unfreeze()
    per_app, arrays = (filled - before) / APPS, app_state.bytes_per_app(engine.state)
    evicted = int(engine.state.meta[app_state.M_EVICTED])
    return [
        _app_size(per_app, arrays),
        _growth(filled - before, after - filled, evicted),
        *_stalls(kept, made_room, rounds),
        *full_node.measure(),
    ]


def _engine(capacity: int, data: bytes) -> Engine:
    digest = artifact.digest_of(data)
    engine = Engine("bench", "local", b"bench" * 4, capacity)
    engine.apply(apps.config(digest), Model.load(data, digest))
    return engine


def _ask(engine: Engine, first: int, last: int) -> None:
    """Send one request of each app from number `first` up to `last`, in batches. Remove samples and
    wanted profiles, as the decider does.
    """
    for start in range(first, last, 256):
        engine.decide(
            [
                CheckRequest(f"app_{k:07d}", "GET", f"/v2/orders/{k % 5000}")
                for k in range(start, min(last, start + 256))
            ]
        )
        engine.take_events()
        engine.wanted_profiles.clear()


def _times(engine: Engine, rounds: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return CPU milliseconds of each decision, for each round: of tracked apps, and of new apps
    that each evict another one. The two are measured by turns.
    """
    kept, made_room, new = [], [], 10 * APPS
    for _ in range(rounds):
        kept.append(
            _single(engine, [f"app_{3 * APPS - 1 - k % (APPS // 2):07d}" for k in range(STEPS)])
        )
        made_room.append(_single(engine, [f"app_{new + k:07d}" for k in range(STEPS)]))
        new += STEPS
    return kept, made_room


def _single(engine: Engine, names: list[str]) -> np.ndarray:
    took = np.empty(len(names))
    for k, name in enumerate(names):
        request = [CheckRequest(name, "GET", "/v2/orders/1")]
        start = time.thread_time_ns()
        engine.decide(request)
        took[k] = time.thread_time_ns() - start
        engine.wanted_profiles.clear()
        if engine.events:
            engine.take_events()
    return took / 1e6


def _app_size(per_app: float, arrays: float) -> dict[str, object]:
    return {
        "name": "memory: bytes of a tracked app",
        "figure": round(per_app),
        "unit": "bytes",
        "peer": "sizes of the arrays",
        "peer_figure": round(arrays),
        "ratio": round(per_app / arrays, 2),
        "target": f"under {BYTES}",
        "met": per_app < BYTES,
        "conditions": (
            "growth of the process's resident memory from an idle engine with a model to"
            f" {APPS:,} tracked apps"
        ),
    }


def _growth(grown: int, later: int, evicted: int) -> dict[str, object]:
    """Return the row of the growth past full capacity: `grown` bytes up to it, `later` after it."""
    return {
        "name": "memory: growth past capacity",
        "figure": round(later / 1e6, 2),
        "unit": "MB",
        "peer": "memory of full capacity",
        "peer_figure": round(grown / 1e6, 1),
        "ratio": round(later / grown, 4),
        "target": f"under {GROWTH:.0%} of it",
        "met": later < GROWTH * grown,
        "conditions": (
            f"resident memory after {2 * APPS:,} more apps than the {APPS:,} it may track;"
            f" {evicted:,} evictions in all"
        ),
    }


def _stalls(
    kept: list[np.ndarray], made_room: list[np.ndarray], rounds: int
) -> list[dict[str, object]]:
    """Return the rows of how much longer a decision takes that evicts an app.

    The calmest round of each kind counts, because the kernel's own work is CPU time too.
    """
    where = (
        f"single decisions, CPU time, calmest of {rounds} rounds by turns of {STEPS:,} decisions;"
        " the peer's apps are all tracked"
    )
    rows = []
    for name, figure in (("worst", 1.0), ("p99.99", WORST_OF), ("median", 0.5)):
        own, peer = (
            min(float(np.quantile(each, figure)) for each in runs) for runs in (made_room, kept)
        )
        rows.append(_stall(name, own, peer, where))
    return rows


def _stall(name: str, own: float, peer: float, where: str) -> dict[str, object]:
    return {
        "name": f"memory: decision that evicts, {name}",
        "figure": round(own, 4),
        "unit": "ms",
        "peer": "decision that does not",
        "peer_figure": round(peer, 4),
        "ratio": round(own / peer, 2),
        "target": f"at most {STALL_MS:g} ms more",
        "met": own - peer <= STALL_MS,
        "conditions": where,
    }
