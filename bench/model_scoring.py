"""Scoring a tree ensemble: our bin masks against LightGBM's own predictors, on one model in one
process.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lightgbm as lgb
import numpy as np

# LightGBM gives Python its C API by this private name only.
from lightgbm.basic import _LIB  # type: ignore[attr-defined]

from bench import random_model
from decider.contracts import artifact as artifacts
from decider.contracts.artifact import Calibration
from decider.contracts.features import N_FEATURES, NAMES
from decider.scoring import model, trees
from decider.scoring.model import Model
from decider.scoring.trees import TreeEnsemble

# Size of the models that `learning.training.train` makes, and the engine's largest batch.
TREES, LEAVES, BATCH = 200, 31, 256
CONDITIONS = (
    f"{TREES} trees x {LEAVES} leaves, {N_FEATURES} float32 features of which 5% are NaN, random"
    " rows, CPU time of one thread"
)
# C_API_PREDICT_RAW_SCORE and C_API_DTYPE_FLOAT32 of LightGBM's c_api.h.
RAW_SCORE, FLOAT32 = 1, 0


def measure(rounds: int = 5) -> list[dict[str, object]]:
    """Return the rows: medians of `rounds` interleaved rounds, after one that is not counted."""
    model.warm_up()
    rows = make_rows(100_000)
    booster = train(rows[:40_000])
    text = booster.model_to_string()
    with one_core():
        return [
            _equality(booster, text, rows),
            *_single_rows(booster, text, rows[:2000], rounds),
            _batches(booster, text, rows[:25_600], rounds),
            _hot_swap(text, rows[:1000], rounds),
        ]


def make_rows(count: int, seed: int = 1) -> np.ndarray:
    """Return heavy-tailed float32 rows (count, N_FEATURES): each fifth column whole, 5% NaN."""
    random = np.random.default_rng(seed)
    rows = np.exp(random.normal(0, 1.5, (count, N_FEATURES))).astype(np.float32)
    rows[:, ::5] = np.round(rows[:, ::5])
    rows[random.random(rows.shape) < 0.05] = np.nan
    return rows


def train(rows: np.ndarray, trees: int = TREES) -> lgb.Booster:
    """Return a model with `trees` trees of LEAVES leaves that splits on all columns."""
    random = np.random.default_rng(2)
    known = np.log1p(np.nan_to_num(rows))
    target = (
        known @ random.normal(size=N_FEATURES)
        + 3 * np.sin(known[:, 3] * 3)
        + random.normal(0, 2, len(rows))
    )
    data = lgb.Dataset(rows, (target > np.median(target)).astype(float), feature_name=list(NAMES))
    return lgb.train(
        {"objective": "binary", "num_leaves": LEAVES, "verbose": -1, "seed": 1, "num_threads": 1},
        data,
        trees,
    )


class SingleRowFast:
    """LightGBM's fastest way to score one row, `LGBM_BoosterPredictForMatSingleRowFast`, set up
    once.
    """

    def __init__(self, booster: lgb.Booster) -> None:
        self.booster = booster  # owns the handle
        self.config = ctypes.c_void_p()
        self.length, self.result = ctypes.c_int64(), ctypes.c_double()
        self._out = ctypes.byref(self.length), ctypes.byref(self.result)
        self._call = _LIB.LGBM_BoosterPredictForMatSingleRowFast
        done = _LIB.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle,
            RAW_SCORE,
            0,
            -1,
            FLOAT32,
            ctypes.c_int32(N_FEATURES),
            b"num_threads=1",
            ctypes.byref(self.config),
        )
        if done != 0:
            raise RuntimeError(f"LightGBM could not set up its single-row predictor (code {done})")

    def score(self, row: ctypes.c_void_p) -> float:
        """Return the raw score of the float32 row at an address."""
        self._call(self.config, row, *self._out)
        return self.result.value

    def close(self) -> None:
        _LIB.LGBM_FastConfigFree(self.config)


@contextmanager
def one_core() -> Iterator[None]:
    """Run the body on the last core this process may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def interleaved(rounds: int, *runs: Callable[[], None]) -> list[float]:
    """Return the median CPU seconds of each run, taken in turns; the first turn is not counted.

    Nothing here waits, so CPU time is the time on a core of its own.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        for run, taken in zip(runs, seconds, strict=True):
            start = time.process_time()
            run()
            if turn:
                taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in seconds]


def _entry(
    name: str, seconds: float, peer: str, peer_seconds: float, target: float, conditions: str
) -> dict[str, object]:
    """Return a row: microseconds for each scored row, and how much longer the peer takes."""
    ratio = peer_seconds / seconds
    return {
        "name": name,
        "figure": round(seconds * 1e6, 2),
        "unit": "us/row",
        "peer": peer,
        "peer_figure": round(peer_seconds * 1e6, 2),
        "ratio": round(ratio, 1),
        "target": target,
        "met": ratio >= target,
        "conditions": conditions,
    }


def _equality(booster: lgb.Booster, text: str, rows: np.ndarray) -> dict[str, object]:
    ours = TreeEnsemble.from_text(text).raw(rows)
    theirs = np.asarray(booster.predict(rows, raw_score=True, num_threads=1))
    # Compared as integers, so that zeros of different sign do not count as equal.
    equal = int((ours.view(np.int64) == theirs.view(np.int64)).sum())
    return {
        "name": "model scoring: equal to the bit",
        "figure": equal,
        "unit": "rows",
        "peer": "Booster.predict(raw_score=True)",
        "peer_figure": len(rows),
        "ratio": equal / len(rows),
        "target": 1.0,
        "met": equal == len(rows),
        "conditions": CONDITIONS,
    }


def _single_rows(
    booster: lgb.Booster, text: str, rows: np.ndarray, rounds: int
) -> list[dict[str, object]]:
    own, theirs, fastest = _time_single_rows(booster, text, rows, rounds)
    conditions = (
        f"{CONDITIONS}; called from Python row by row, median of {rounds} rounds over {len(rows)}"
        " rows"
    )
    return [
        _entry("model scoring: one row", own, "Booster.predict, one row", theirs, 12.0, conditions),
        _entry(
            "model scoring: one row, C API",
            own,
            "LGBM_BoosterPredictForMatSingleRowFast",
            fastest,
            4.0,
            conditions,
        ),
    ]


def _time_single_rows(
    booster: lgb.Booster, text: str, rows: np.ndarray, rounds: int
) -> list[float]:
    """Return CPU seconds of one row: ours, `Booster.predict`, LightGBM's single-row C API. Raise
    RuntimeError when the last gives other scores than ours.
    """
    ensemble, fast = TreeEnsemble.from_text(text), SingleRowFast(booster)
    tables, scratch = tuple(ensemble.tables), trees.new_scratch()
    ours = [row.copy() for row in rows]
    matrices = [row.reshape(1, -1) for row in ours]
    addresses = [ctypes.c_void_p(row.ctypes.data) for row in ours]

    def masks() -> None:
        for row in ours:
            # numba's dispatcher has no signature for mypy.
            trees.score_row(row, *tables, scratch)  # type: ignore[call-arg]

    def predict() -> None:
        for matrix in matrices:
            booster.predict(matrix, raw_score=True, num_threads=1)

    def single_row_fast() -> None:
        for address in addresses:
            fast.score(address)

    if [fast.score(address) for address in addresses[:100]] != ensemble.raw(rows[:100]).tolist():
        raise RuntimeError(
            "LightGBM's single-row predictor gives other scores than ours, so it is set up wrongly"
        )
    taken = interleaved(rounds, masks, predict, single_row_fast)
    fast.close()
    return [seconds / len(rows) for seconds in taken]


def _batches(booster: lgb.Booster, text: str, rows: np.ndarray, rounds: int) -> dict[str, object]:
    ensemble = TreeEnsemble.from_text(text)
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

    def masks() -> None:
        for batch in batches:
            ensemble.raw(batch)

    def predict() -> None:
        for batch in batches:
            booster.predict(batch, raw_score=True, num_threads=1)

    own, theirs = (seconds / len(rows) for seconds in interleaved(rounds, masks, predict))
    conditions = (
        f"{CONDITIONS}; batches of {BATCH}, median of {rounds} rounds over {len(rows)} rows"
    )
    return _entry(
        f"model scoring: batches of {BATCH}",
        own,
        "Booster.predict, the same batch",
        theirs,
        5.0,
        conditions,
    )


def _hot_swap(text: str, rows: np.ndarray, rounds: int) -> dict[str, object]:
    """Measure how long it takes to make a checked model from the bytes of an artifact."""
    plain = Calibration(1.0, 0.0)
    data = random_model.encode_artifact((text, text), (plain, plain), rows)
    digest = artifacts.digest_of(data)

    def load() -> None:
        Model.load(data, digest)

    def load_text() -> None:
        for _ in range(2):
            lgb.Booster(model_str=text)

    own, theirs = interleaved(rounds, load, load_text)
    return _swap_row(own, theirs, len(rows), rounds)


def _swap_row(own: float, theirs: float, golden: int, rounds: int) -> dict[str, object]:
    return {
        "name": "model scoring: ready for a hot swap",
        "figure": round(own, 3),
        "unit": "s",
        "peer": "lgb.Booster(model_str) twice, no check",
        "peer_figure": round(theirs, 3),
        "ratio": round(theirs / own, 2),
        "target": "under 1 s",
        "met": own < 1.0,
        "conditions": (
            f"artifact of two models, each {TREES} trees x {LEAVES} leaves: digest, parsing, tables"
            f" and {golden} golden vectors; CPU time, median of {rounds} rounds, one core"
        ),
    }
