"""Fairness and protection with several deciders: what a service gets and what its tenants get, in
simulated time through the real reports.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np

from bench import row
from bench.fleet import chain
from bench.fleet.world import World
from decider import compiled_cache
from decider.scoring.model import Model
from learning.training import shipped

# Deciders, loads as multiples of the capacity, and worlds of each. Chosen: the last decider's
# figures may differ from the first's by 5%, which three worlds tell from chance.
DECIDERS, LOADS, SEEDS = (1, 2, 4, 8), (1.3, 1.8, 3.0), (1, 2, 3)
# Seconds after the surge from which on it counts, and at which it ends.
SETTLED, SECONDS = 2, 22
# Targets: least and most of what may be admitted, and the least of their due that a tenant which
# did not send more gets, and of Jain's index.
LEAST, MOST, DUE, JAIN = 0.90, 1.05, 0.95, 0.95

# Share of what may be admitted, least share of its due of any quiet tenant, Jain's index.
Figures = tuple[float, float, float]


def measure() -> list[dict[str, object]]:
    """Return a row for each number of deciders and each load, the mean of its worlds."""
    jobs = list(product(DECIDERS, LOADS, SEEDS))
    # one core plays one world, so two of them are measured at a time
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(_play, jobs), strict=True))
    rows = []
    for deciders, load in product(DECIDERS, LOADS):
        figures = np.array([found[deciders, load, seed] for seed in SEEDS]).mean(axis=0)
        rows.append(_row(deciders, load, *figures.tolist()))
    return [*rows, *chain.measure()]


def _play(job: tuple[int, float, int]) -> Figures:
    deciders, load, seed = job
    compiled_cache.use_own_folder()
    model = Model.load(shipped.read())
    result = World(model, deciders, load, SECONDS, seed=seed).run()
    quiet = result.parts(SETTLED, SECONDS)[1:]
    return result.share(SETTLED, SECONDS), float(quiet.min()), result.jain(SETTLED, SECONDS)


def _row(deciders: int, load: float, share: float, quiet: float, jain: float) -> dict[str, object]:
    conditions = (
        f"mean of {len(SEEDS)} worlds, seconds {SETTLED} to {SECONDS} after the surge; least of its"
        f" due that a quiet tenant got {quiet:.3f}, Jain's index {jain:.3f}"
    )
    return row(
        f"fleet: {deciders} deciders, {load} times the capacity: admitted over what may be",
        round(share, 3),
        "",
        target=f"{LEAST} to {MOST}, due {DUE}, Jain {JAIN}",
        met=LEAST <= share <= MOST and quiet >= DUE and jain >= JAIN,
        conditions=conditions,
    )
