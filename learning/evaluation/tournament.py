"""The matches of an evaluation: the list of them, and the processes that play them."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decider.contracts import artifact
from decider.scoring.model import Model
from learning.evaluation import arms, real_logs
from learning.evaluation.arms import EvaluationArm, Quotas
from learning.evaluation.figures import Scoreboard
from learning.evaluation.match import MatchResult, play
from learning.evaluation.real_logs import LogResult
from learning.traffic import referee
from learning.training import shipped

# Processes that play at once at most: a match keeps one core busy and some 200 MB of memory.
MOST_PLAYERS = 8


@dataclass(frozen=True, slots=True)
class Fixture:
    """One match to play. It names its world, because every process has the table of worlds."""

    world: str
    arm: EvaluationArm
    seed: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results of an evaluation."""

    model: str
    """Hash of the trees of the model under test; see `identify_model`."""
    quotas: Quotas
    seeds: tuple[int, ...]
    board: Scoreboard
    logs: list[LogResult]
    """Replays of real access logs; empty where there were none."""


def identify_model(made: artifact.Artifact) -> str:
    """Return a hash of both models' trees, 16 hex digits.

    The artifact's own digest also covers its card, so it differs for every training.
    """
    # 8 bytes are enough to tell a few models apart, because nobody would forge a report.
    trees = made.risk_model + made.value_model
    return hashlib.blake2b(trees.encode(), digest_size=8).hexdigest()


Played = Callable[[MatchResult], object]
PlayAll = Callable[[Sequence[Fixture]], list[MatchResult]]

# The model of a player's process, set once when the process starts.
_model: list[Model] = []


def evaluate(
    full: bool, workers: int, logs: Path, played: Played, say: Callable[[str], object]
) -> Evaluation:
    """Tune the static quotas, play every match with the model that ships, and replay the real logs
    in the folder `logs`. Return all results.

    `full` plays all seeds instead of half. `played` is called with each result, `say` with a line
    after each step. Raises OSError when the model is missing or damaged, and LogError for a log
    that cannot be read.
    """
    seeds = referee.SEEDS + (referee.MORE_SEEDS if full else ())
    model = shipped.read()
    with players(model, workers, played) as play_all:
        quotas = tune_quotas(play_all)
        say(f"tuned the static quotas: {quotas}")
        results = play_all(fixtures(quotas, seeds))
    say(f"played {len(results)} matches")
    replays = real_logs.play_all(logs, Model.load(model))
    say(f"replayed real logs {len(replays)} times")
    judged = identify_model(artifact.decode(model))
    return Evaluation(judged, quotas, seeds, Scoreboard(results), replays)


def fixtures(quotas: Quotas, seeds: Sequence[int]) -> list[Fixture]:
    """Return the matches of all worlds and arms; the oracle plays where there is overload."""
    usual = (arms.NOTHING, arms.static_quotas(quotas), arms.FALLBACK, arms.SLUICE)
    return [
        Fixture(world.name, arm, seed)
        for world in referee.WORLDS
        for arm in (*usual, *([arms.ORACLE] if world.overload else []))
        for seed in seeds
    ]


def tune_quotas(play_all: PlayAll) -> Quotas:
    """Return the best static quotas of the grid, by the usual world and the tuning seeds."""
    grid, seeds, usual = arms.quota_grid(), referee.TUNING_SEEDS, referee.USUAL.name
    tried = {quotas: arms.static_quotas(quotas) for quotas in grid}
    wanted = [
        Fixture(usual, arm, seed) for arm in (arms.NOTHING, *tried.values()) for seed in seeds
    ]
    results = play_all(wanted)
    base, boards = results[: len(seeds)], {}
    for k, quotas in enumerate(grid, start=1):
        boards[quotas] = Scoreboard([*base, *results[k * len(seeds) : (k + 1) * len(seeds)]])

    def measured(quotas: Quotas) -> tuple[float, float]:
        board, name = boards[quotas], tried[quotas].name
        return board.false_throttle(usual, name).mean, board.abuse_admitted(usual, name).mean

    return arms.tuned(grid, measured)


@contextmanager
def players(model: bytes, workers: int, played: Played) -> Iterator[PlayAll]:
    """Yield a function that plays matches in `workers` processes and returns results in order.

    `model` is an encoded artifact. `played` is called with each result. With 0 workers the matches
    are played in this process.
    """
    if not workers:
        _load(model)
        yield lambda wanted: [_told(_play(fixture), played) for fixture in wanted]
        return
    with ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_load, initargs=(model,)
    ) as pool:
        yield lambda wanted: [_told(result, played) for result in pool.map(_play, wanted)]


def usual_workers() -> int:
    """Return the number of cores, MOST_PLAYERS at most."""
    return min(MOST_PLAYERS, os.cpu_count() or 1)


def _told(result: MatchResult, played: Played) -> MatchResult:
    played(result)
    return result


def _load(model: bytes) -> None:
    _model[:] = [Model.load(model)]


def _play(fixture: Fixture) -> MatchResult:
    return play(referee.BY_NAME[fixture.world], fixture.arm, fixture.seed, _model[0])
