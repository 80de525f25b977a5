"""The engine by itself at a million tracked apps, against one hit of `limits` in memory at a
million keys.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from bench import apps, peers
from bench.model_scoring import one_core
from decider.contracts import artifact
from decider.contracts.requests import CheckRequest
from decider.engine.engine import Engine
from decider.scoring import model
from decider.scoring.model import Model

# Tracked apps (the most a decider is sized for), requests in a batch, and requests of one
# measurement one by one and in batches: enough to last tens of milliseconds.
APPS, BATCH, SINGLES, MANY = 1_000_000, 256, 10_000, 25_600
PEER = "limits: FixedWindowRateLimiter.hit, MemoryStorage"
_seeds = iter(range(1, 1_000_000))


def measure(rounds: int = 5) -> list[dict[str, object]]:
    """Return the rows: medians of `rounds` interleaved rounds, after one that is not counted.

    Times are CPU time of the calling thread.
    """
    model.warm_up()
    apps.model_data()
    with one_core(), _limits() as hits:
        engine = _engine()
        hit, one, batch, core = _medians_us(engine, hits, rounds)
        gc.unfreeze()
        gc.enable()
    counts = engine.sample.counts
    where = (
        f"{APPS:,} tracked apps in random order, every fifth ranked ({apps.MODEL_WORDS}), "
        f"{1 - counts[0] / counts.sum():.1%} refused, "
        f"texts new to each call; CPU time of one thread, median of {rounds} interleaved rounds"
    )
    return [
        _row("engine alone: Engine.decide, one request", one, hit, 1.0, where),
        _row(f"engine alone: Engine.decide, batches of {BATCH}", batch, hit, 0.2, where),
        _row(
            f"engine alone: compiled core, batches of {BATCH}",
            core,
            hit,
            0.2,
            f"Engine.decide_packed only: without packing "
            f"requests and making ids and decisions; {where}",
        ),
    ]


def _medians_us(engine: Engine, hits: Callable[[], float], rounds: int) -> list[float]:
    """Return median CPU microseconds of: a hit of the peer, a single request, a request of a batch,
    and a request of a batch in the compiled core.
    """
    runs = []
    for _ in range(rounds + 1):
        runs.append((hits(), _singles(engine), _batches(engine), _packed(engine)))
        engine.tick()
        engine.take_events()
    # The first round warms caches and branch predictors, so it is not counted.
    return [statistics.median(each) * 1e6 for each in zip(*runs[1:], strict=True)]


def _row(name: str, own: float, hit: float, target: float, where: str) -> dict[str, object]:
    return {
        "name": name,
        "figure": round(own, 2),
        "unit": "us/request",
        "peer": PEER,
        "peer_figure": round(hit, 2),
        "ratio": round(own / hit, 2),
        "target": f"at most {target:g} of the peer's",
        "met": own <= target * hit,
        "conditions": where,
    }


@contextmanager
def _limits() -> Iterator[Callable[[], float]]:
    """Start the peer in a process and yield a function that returns the CPU seconds of one hit."""
    command = peers.command("limits_hit.py", str(APPS))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield lambda: _ask(process.stdin, process.stdout)  # type: ignore[arg-type]
        process.terminate()


def _ask(to: IO[str], answer: IO[str]) -> float:
    to.write(f"{SINGLES}\n")
    to.flush()
    while (line := answer.readline().strip()) == "ready":
        pass
    if not line:
        raise RuntimeError("the process of the peer `limits` ended before it answered")
    return float(line) / SINGLES


def _engine() -> Engine:
    data = apps.model_data()
    digest = artifact.digest_of(data)
    engine = Engine("bench", "local", b"bench" * 4, APPS)
    engine.apply(apps.config(digest), Model.load(data, digest))
    apps.track(engine, APPS)
    gc.collect()
    gc.freeze()
    # As in the decider, which also runs with a frozen heap.
    gc.disable()
    return engine


def _fresh(count: int) -> list[CheckRequest]:
    return list(apps.requests(count, APPS, next(_seeds)))


def _groups() -> list[list[CheckRequest]]:
    found = _fresh(MANY)
    return [found[start : start + BATCH] for start in range(0, MANY, BATCH)]


def _singles(engine: Engine) -> float:
    """Return CPU seconds of one request decided by itself."""
    groups = [[request] for request in _fresh(SINGLES)]
    start = time.thread_time()
    for group in groups:
        engine.decide(group)
    return (time.thread_time() - start) / SINGLES


def _batches(engine: Engine) -> float:
    """Return CPU seconds of one request in a batch."""
    groups = _groups()
    start = time.thread_time()
    for group in groups:
        engine.decide(group)
    return (time.thread_time() - start) / MANY


def _packed(engine: Engine) -> float:
    """Return CPU seconds of one request of a packed batch in the compiled core."""
    seconds = 0.0
    for group in _groups():
        engine._pack(group)
        start = time.thread_time()
        engine.decide_packed(len(group), time.time())
        seconds += time.thread_time() - start
    return seconds / MANY
