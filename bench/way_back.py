"""Recourse (ways back): for how many of 1,000 refusals one is found and verified, and how long a
search takes.
"""

from __future__ import annotations

import random
import time
from itertools import islice

import numpy as np
from msgspec import structs

from bench import row
from decider.contracts.config import Config, ModelRef, Sampling
from decider.contracts.event import Event
from decider.contracts.vocabulary import Action
from decider.scoring.model import Model
from explain.recourse import search as recourse_search
from learning.traffic import services, simulate
from learning.training import runs, shipped

# Refusals searched, the share that must have a way back, and milliseconds that a search may take: a
# page waits for it.
REFUSALS, SHARE_TARGET, MS_TARGET = 1000, 0.95, 200.0
# Seed, requests a second, and capacity over the usual, of each simulated run.
RUNS = ((91, 140.0, 1.0), (92, 220.0, 0.5), (93, 120.0, 1.0))


def measure() -> list[dict[str, object]]:
    """Return the rows: refusals of the real engine in simulated traffic, each searched once, after
    one search that is not counted.
    """
    model = Model.load(shipped.read())
    refused = list(islice(_refusals(model), REFUSALS))
    recourse_search.find_recourse(*refused[0], model)
    found: dict[bool, list[bool]] = {True: [], False: []}
    took = []
    for event, document in refused:
        started = time.perf_counter()
        ways = recourse_search.find_recourse(event, document, model).ways
        took.append((time.perf_counter() - started) * 1e3)
        found[event.action == Action.BLOCK].append(bool(ways))
    return _rows(found[True], found[False], took)


def _rows(blocks: list[bool], others: list[bool], took: list[float]) -> list[dict[str, object]]:
    """Return the rows: whether blocks and other refusals have a way back, and how long each search
    took (ms).
    """
    said = (
        f"{len(took):,} refusals of {len(RUNS)} simulated runs, all reasons as they came, the"
        f" model of a first start, wall time; {sum(blocks)} of {len(blocks)} blocks and"
        f" {sum(others):,} of {len(others):,} others have one"
    )
    share, slowest = (sum(blocks) + sum(others)) / len(took), max(took)
    return [
        row(
            "way back: refusals that have one",
            round(share, 3),
            "share",
            SHARE_TARGET,
            share >= SHARE_TARGET,
            said,
        ),
        row("way back: median", round(float(np.median(took)), 1), "ms", None, None, said),
        row("way back: slowest", round(slowest, 1), "ms", MS_TARGET, slowest <= MS_TARGET, said),
    ]


def _refusals(model: Model) -> list[tuple[Event, Config]]:
    """Return the refusals of all runs, shuffled; in two runs a service is slow for a while."""
    found: list[tuple[Event, Config]] = []
    for k, (seed, rate, room) in enumerate(RUNS, 1):
        slow = (services.Slowdown("search", 40, 90, 60, 0.25),) if k != 2 else ()
        scenario = simulate.Scenario(
            seed, runs.MONDAY + 9 * 3600.0 + 60, 110.0, apps=900, rate=rate, slowdowns=slow
        )
        base = simulate.Simulation(scenario).config
        document = structs.replace(
            base,
            version=k,
            model=ModelRef("risk", 1, model.digest),
            services=[structs.replace(s, capacity=s.capacity * room) for s in base.services],
            sampling=Sampling(
                budget_per_s=1e9, admit=0.0, refuse=1.0, block=1.0, enterprise_refuse=1.0
            ),
        )
        loop = simulate.Simulation(scenario, document, model)
        loop.run()
        found += [(event, document) for event in loop.engine.take_events()]
    random.Random(1).shuffle(found)
    return found
