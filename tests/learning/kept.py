"""What takes seconds to make, kept on disk for as long as nothing changes that it depends on:
small trainings and refusals of simulated traffic.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from msgspec import msgpack, structs

from decider.contracts import artifact
from decider.contracts.config import Config, ModelRef, Sampling
from decider.contracts.event import Event
from decider.contracts.files import write_atomically
from decider.scoring.model import Model
from learning.traffic import services, simulate
from learning.training import train

ROOT = Path(__file__).resolve().parents[2]
# All that it depends on: these sources, the trainer's, the decider's, and the libraries' versions.
_DEPENDS_ON = ("decider", "learning", "tests/learning/kept.py", "requirements-dev.lock")


def kept(folder: Path, name: str, make: Callable[[], bytes]) -> bytes:
    """Return what `make` makes, from `folder` if the same sources made it. Processes take turns."""
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / f"{sources_key()}-{name}"
        if not path.is_file():
            made = make()
            for older in folder.glob(f"*-{name}"):
                older.unlink()
            write_atomically(path, made)
    return path.read_bytes()


def sources_key() -> str:
    """Return 16 hex digits that change with any source that what is kept depends on."""
    digest = hashlib.blake2b(digest_size=8)
    for name in _DEPENDS_ON:
        place = ROOT / name
        for source in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            text = source.read_bytes()
            digest.update(f"{source.relative_to(ROOT).as_posix()}\0{len(text)}\0".encode())
            digest.update(text)
    return digest.hexdigest()


def small_training(folder: Path, seconds: float = 70.0, apps: int = 500) -> train.Trained:
    """Return a training of these runs."""

    def make() -> bytes:
        return train.train(seed=3, seconds=seconds, apps=apps, crowds=2, workers=0).data

    data = kept(folder, f"{seconds:g}s-{apps}", make)
    return train.Trained(data, artifact.digest_of(data), artifact.decode(data))


def refusals(folder: Path, trained: train.Trained) -> tuple[list[Event], dict[int, Config]]:
    """Return refusals of simulated apps by the real engine, in an order drawn once, and the config
    documents by version. A service is short of room for a while.
    """
    plays = [_play(version, rate, trained.digest) for version, rate in ((1, 90.0), (2, 150.0))]
    documents = {document.version: document for _, document in plays}

    def make() -> bytes:
        model, found = Model.load(trained.data), []
        for scenario, document in plays:
            loop = simulate.Simulation(scenario, document, model)
            loop.run()
            found += loop.engine.take_events()
        order = np.random.default_rng(4).permutation(len(found))
        # the simulation counts time in numpy's numbers
        return msgpack.encode([found[k] for k in order], enc_hook=lambda number: number.item())

    return msgpack.decode(kept(folder, "refusals", make), type=list[Event]), documents


def _play(version: int, rate: float, digest: str) -> tuple[simulate.Scenario, Config]:
    """Return a run of `rate` first tries a second, and its config, which keeps all refusals."""
    scenario = simulate.Scenario(
        seed=90 + version,
        start=train.MONDAY + 9 * 3600,
        seconds=90,
        apps=600,
        rate=rate,
        slowdowns=(services.Slowdown("search", 25, 60, 60, 0.25),),
    )
    return scenario, structs.replace(
        simulate.starting_config(scenario),
        version=version,
        model=ModelRef("risk", 1, digest),
        sampling=Sampling(admit=0.0, refuse=1, block=1, enterprise_refuse=1, budget_per_s=1e9),
    )
