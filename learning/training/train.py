"""Trains the risk and value models on simulated, labelled traffic and wraps them as an artifact.

`python -m learning.training.train --out DIR --seed N` writes DIR/<digest> and prints the model
card. The same seed gives the same models on the same machine type; apps are split, never rows: an
app is in training, calibration or test, not in two.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import lightgbm
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from decider.contracts import artifact, features
from decider.contracts.artifact import Artifact, ModelCard
from decider.contracts.vocabulary import Tier
from decider.scoring.model import make_golden
from learning.traffic import services, simulate
from learning.traffic.simulate import Scenario, Traffic
from learning.training import metrics
from learning.training.leakage import TrainingError, check_label

# Hour of the week at which each run begins: no one hour is the whole training set.
WEEK_HOURS = (34, 81, 130, 9)
# A Monday at 00:00 UTC, from which the runs' hours count; ages are relative to it.
MONDAY = 1_789_344_000.0
# Directions in which risk may only go; they keep explanations from saying the opposite of what
# anyone would defend.
MONOTONE = {
    "abuse_history": 1,
    "chargeback_history": 1,
    "cohort_prior": 1,
    "not_found_share_60s": 1,
    "auth_error_share_60s": 1,
    "payment_error_share_60s": 1,
    "verified": -1,
    "app_age": -1,
}
# Minutes of simulation say nothing about a week, a day or a full ten minutes, so nothing may be
# learnt from these.
UNTAUGHT = ("hour_of_week", "quota_used", "rate_600s")
# The state of a service is no evidence against an app; risk does not see it, the policy does.
NOT_OF_THE_APP = (
    "service_utilisation",
    "service_latency_ratio",
    "service_error_share",
    "feedback_age",
)
RISK_ROUNDS, VALUE_ROUNDS, LEAVES = 200, 80, 31
SHAP_ROWS = 1_000
# Length and population of each of the four runs.
SECONDS, APPS = 240.0, 2_000


@dataclass(frozen=True, slots=True)
class Trained:
    """An artifact ready to be stored under its digest."""

    data: bytes
    digest: str
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Split:
    """Row masks; every app is on one side only."""

    train: npt.NDArray[np.bool_]
    calibrate: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]


def scenarios(seed: int, seconds: float, apps: int) -> list[Scenario]:
    """Four runs, so that no policy censors the data alone: two admit everything, two refuse by the
    fallback limiter; two with an empty memory, two with services that have bad times.
    """
    hard = (
        services.Slowdown("search", 90, 400, 40, 0.25),
        services.Slowdown("payments", 160, 400, 40, 0.3),
    )
    return [
        Scenario(
            seed=seed * 10 + k,
            start=MONDAY + WEEK_HOURS[k] * 3600.0 + (60, 130, 200, 270)[k],
            seconds=seconds,
            apps=apps,
            rate=apps * (0.1, 0.1, 0.13, 0.08)[k],
            observe_only=k in (0, 2),
            fresh=k in (1, 2),
            slowdowns=hard if k in (1, 2) else (),
        )
        for k in range(len(WEEK_HOURS))
    ]


def collect(
    runs: list[Scenario], workers: int = 0, progress: Callable[[float], object] | None = None
) -> Traffic:
    """Plays all scenarios and gives their rows together, in order.

    With `workers`, in that many processes, which hash text alike: then the same scenarios give the
    same rows to the bit. With none, in this process, where the distinct counts of two runs of
    Python may differ by a little.
    """
    if not workers:
        return simulate.join_traffic(
            [simulate.Simulation(scenario).run(progress).traffic for scenario in runs]
        )
    simulate.Simulation(
        replace(runs[0], seconds=1.0, apps=50, rate=5.0)
    ).run()  # compiles once, not once in each process
    parts: list[Traffic] = []
    with (
        _hash_seed("0"),
        ProcessPoolExecutor(min(workers, len(runs)), multiprocessing.get_context("spawn")) as pool,
    ):
        for scenario, traffic in zip(runs, pool.map(_play, runs), strict=True):
            parts.append(traffic)
            if progress is not None:
                progress(scenario.seconds)
    return simulate.join_traffic(parts)


def _usual_workers() -> int:
    """One process for each core, up to the number of runs; none where this process may not start
    any (a Celery worker).
    """
    return 0 if multiprocessing.current_process().daemon else min(4, os.cpu_count() or 1)


@contextmanager
def _hash_seed(seed: str) -> Iterator[None]:
    """Processes started inside hash text by `seed`; this one is left as it is."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = seed
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def _play(scenario: Scenario) -> Traffic:
    return simulate.Simulation(scenario).run().traffic


def split_apps(traffic: Traffic, seed: int) -> Split:
    """60% of the apps train, 15% calibrate, 25% test."""
    apps = np.unique(traffic.app)
    side = np.random.default_rng(seed).permutation(len(apps)) / len(apps)
    of_row = side[np.searchsorted(apps, traffic.app)]
    return Split(of_row < 0.6, (of_row >= 0.6) & (of_row < 0.75), of_row >= 0.75)


def fit_risk(traffic: Traffic, rows: npt.NDArray[np.bool_], seed: int) -> lightgbm.Booster:
    """The risk model: binary, raw score in log-odds."""
    x, y = traffic.features[rows], traffic.abusive[rows]
    check_label({name: x[:, i] for name, i in features.INDEX.items()}, y)
    params = _params(seed, ignore=(*UNTAUGHT, *NOT_OF_THE_APP)) | {
        "objective": "binary",
        "monotone_constraints": [MONOTONE.get(name, 0) for name in features.NAMES],
    }
    return lightgbm.train(params, _dataset(x, y.astype(np.float32)), num_boost_round=RISK_ROUNDS)


def fit_value(traffic: Traffic, rows: npt.NDArray[np.bool_], seed: int) -> lightgbm.Booster:
    """The value model: cross-entropy on a worth between 0 and 1."""
    params = _params(seed + 1, ignore=UNTAUGHT) | {"objective": "cross_entropy"}
    return lightgbm.train(
        params, _dataset(traffic.features[rows], traffic.value[rows]), num_boost_round=VALUE_ROUNDS
    )


def _params(seed: int, ignore: tuple[str, ...]) -> dict[str, object]:
    return {
        "num_leaves": LEAVES,
        "learning_rate": 0.07,
        "min_data_in_leaf": 150,
        "lambda_l2": 10.0,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "max_bin": 63,
        "feature_contri": [0.0 if name in ignore else 1.0 for name in features.NAMES],
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def _dataset(x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]) -> lightgbm.Dataset:
    return lightgbm.Dataset(x, label=y, feature_name=list(features.NAMES))


def train(
    seed: int = 7,
    by: str = "learning.training.train",
    seconds: float = SECONDS,
    apps: int = APPS,
    workers: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Trained:
    """Simulates `seconds` of each scenario, trains, calibrates, measures and wraps. Raises
    TrainingError.
    """
    began = time.perf_counter()
    runs = scenarios(seed, seconds, apps)
    traffic = collect(runs, _usual_workers() if workers is None else workers, progress)
    simulated = time.perf_counter() - began
    parts = split_apps(traffic, seed)
    with ThreadPoolExecutor(
        2
    ) as side_by_side:  # one thread each: two threads in one model wait for each other
        fits = [
            side_by_side.submit(fit, traffic, parts.train, seed) for fit in (fit_risk, fit_value)
        ]
        risk, value = (fit.result() for fit in fits)
    made = wrap_models(traffic, parts, risk, value, _Origin(seed, by, began, simulated, runs))
    return Trained(data := artifact.encode(made), artifact.digest_of(data), made)


@dataclass(frozen=True, slots=True)
class _Origin:
    seed: int
    by: str
    began: float
    simulated_s: float
    runs: list[Scenario]


def wrap_models(
    traffic: Traffic, parts: Split, risk: lightgbm.Booster, value: lightgbm.Booster, origin: _Origin
) -> Artifact:
    """Calibrates on one third of the held-out apps, measures on the rest, and puts all into an
    artifact.
    """
    c, t = parts.calibrate, parts.test
    risk_cal = metrics.fit_platt(
        _raw(risk, traffic, c), traffic.abusive[c].astype(np.float64), traffic.weight[c]
    )
    value_cal = metrics.fit_platt(
        _raw(value, traffic, c), traffic.value[c].astype(np.float64), traffic.weight[c]
    )
    p_risk, p_value = (
        metrics.calibrate(_raw(risk, traffic, t), risk_cal),
        metrics.calibrate(_raw(value, traffic, t), value_cal),
    )
    figures = metrics.risk_metrics(traffic.abusive[t], p_risk, traffic.weight[t], traffic.tier[t])
    figures |= metrics.value_metrics(
        traffic.value[t].astype(np.float64), p_value, traffic.weight[t]
    )
    importance = _importance(risk, traffic.features[t], origin.seed)
    figures["seconds_to_simulate"] = round(origin.simulated_s, 2)
    figures["seconds_to_train"] = round(time.perf_counter() - origin.began, 2)
    texts = risk.model_to_string(), value.model_to_string()
    return Artifact(
        name="first-light",
        feature_schema=features.SCHEMA,
        risk_model=texts[0],
        value_model=texts[1],
        risk_calibration=risk_cal,
        value_calibration=value_cal,
        golden=make_golden(_golden_rows(traffic.features[t]), *texts, risk_cal, value_cal),
        card=_card(traffic, origin, figures, importance),
    )


def _raw(model: lightgbm.Booster, traffic: Traffic, rows: npt.NDArray[np.bool_]) -> metrics.Floats:
    return np.asarray(model.predict(traffic.features[rows], raw_score=True), dtype=np.float64)


def _importance(risk: lightgbm.Booster, rows: npt.NDArray[np.float32], seed: int) -> list[float]:
    """Mean absolute SHAP value of each feature on a sample of held-out rows, log-odds."""
    sample = np.random.default_rng(seed).permutation(len(rows))[:SHAP_ROWS]
    contributions = np.asarray(risk.predict(rows[sample], pred_contrib=True))
    return [float(v) for v in np.abs(contributions[:, :-1]).mean(axis=0)]


def _golden_rows(held_out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Ordinary rows, rows with unknown values, the cold start, nothing known at all, and
    extremes.
    """
    rows = held_out[np.linspace(0, len(held_out) - 1, 64).astype(int)].copy()
    rows[40:48, ::3] = np.nan
    rows[48] = np.nan
    rows[49] = [f.default for f in features.FEATURES]
    rows[50], rows[51] = 0.0, 3e38
    rows[52] = -3e38
    return rows


def _card(
    traffic: Traffic, origin: _Origin, figures: dict[str, float], importance: list[float]
) -> ModelCard:
    now = time.time()
    quantiles = {tier.word: _quantiles(traffic, tier) for tier in Tier}
    return ModelCard(
        title="Risk and value from simulated traffic",
        trained_at=now,
        trained_by=origin.by,
        data=(
            f"{len(traffic.at):,} requests of {len(np.unique(traffic.app)):,} simulated apps in"
            f" {len(origin.runs)} runs, two of them without refusals, two behind the fallback"
            " limiter"
        ),
        data_from=float(traffic.at.min()),
        data_to=float(traffic.at.max()),
        label_maturity=(
            "All labels matured. In the simulation the last one was known"
            f" {(float(traffic.matured_at.max()) - float(traffic.at.max())) / 86_400:.0f} days"
            " after the last request."
        ),
        rows=len(traffic.at),
        positives=int(traffic.abusive.sum()),
        parameters={
            "seed": origin.seed,
            "risk_trees": RISK_ROUNDS,
            "value_trees": VALUE_ROUNDS,
            "leaves": LEAVES,
            "simulated_seconds": sum(r.seconds for r in origin.runs),
            "not_learnt_from": ", ".join((*UNTAUGHT, *NOT_OF_THE_APP)),
        },
        metrics=figures,
        limits=(
            "Trained on simulated clients only: a start, to be replaced by a model trained on"
            " matured outcomes of real traffic. Weak on abuse at the pace and shape of ordinary"
            " use, and on apps seen for less than a minute. Not to be used as the only ground for"
            " closing an account."
        ),
        typical={word: [q[1] for q in rows] for word, rows in quantiles.items()},
        quantiles=quantiles,
        importance=importance,
    )


def _quantiles(traffic: Traffic, tier: Tier) -> list[list[float]]:
    """10th, 50th and 90th percentile of each feature over the honest requests of a tier."""
    rows = traffic.features[(traffic.tier == tier) & ~traffic.abusive]
    if not len(rows):
        raise TrainingError(
            f"no honest request of tier {tier.word} was simulated: use more apps or more time"
        )
    return [
        [float(v) for v in column] for column in np.nanquantile(rows, (0.1, 0.5, 0.9), axis=0).T
    ]


def describe_card(trained: Trained) -> str:
    """The model card as text."""
    card = trained.artifact.card
    order = np.argsort(card.importance)[::-1][:8]
    lines = [
        card.title,
        f"  digest     {trained.digest}",
        f"  data       {card.data}",
        f"  positives  {card.positives:,}",
    ]
    lines += [
        f"  labels     {card.label_maturity}",
        *(f"  {name:38} {value:.4f}" for name, value in card.metrics.items()),
    ]
    lines += [
        "  most important: "
        + ", ".join(f"{features.NAMES[i]} {card.importance[i]:.2f}" for i in order)
    ]
    return "\n".join([*lines, f"  limits     {card.limits}"])


def write_artifact(trained: Trained, folder: Path) -> Path:
    """Stores the artifact under its digest; a half-written file never has that name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / trained.digest
    part = folder / f".{trained.digest}.part"
    part.write_bytes(trained.data)
    part.replace(path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m learning.training.train",
        description="Train the first model on simulated traffic.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the artifact")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="simulated seconds of each of the four runs"
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="processes that simulate; 0: this one"
    )
    asked = parser.parse_args()
    try:
        with tqdm(
            total=4 * asked.seconds,
            unit="s",
            desc="simulating",
            leave=False,
            disable=None,
            bar_format="{l_bar}{bar}| {n:.0f} s",
        ) as bar:
            trained = train(
                asked.seed, seconds=asked.seconds, workers=asked.workers, progress=bar.update
            )
        path = write_artifact(trained, asked.out)
    except (TrainingError, OSError) as error:
        print(f"learning.training.train: {error}", file=sys.stderr)
        return 1
    print(describe_card(trained))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
