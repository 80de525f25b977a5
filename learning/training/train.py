"""Trainer of the risk and value models on simulated, labelled traffic.

`python -m learning.training.train` makes the model that ships (`learning.training.shipped`) and
prints its card; with `--out DIR` it writes the artifact to DIR/<digest>. The same seed gives the
same models on the same machine type. Apps are split, never rows: an app is in training, calibration
or test, not in two of them.

Training has two stages. The first model learns from runs in which nothing is refused or the
fallback limiter decides. It then decides further runs, so that the final model also learns from
requests that get past a model, and from how clients behave when a model refuses them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import lightgbm
import numpy as np
import numpy.typing as npt
from msgspec import structs
from tqdm import tqdm

from decider.contracts import artifact, features
from decider.contracts.artifact import Artifact, ModelCard
from decider.contracts.files import write_atomically
from decider.contracts.vocabulary import Tier
from decider.scoring.model import Model, make_golden
from learning.traffic import simulate
from learning.traffic.simulate import Scenario, Traffic
from learning.training import fit, metrics, runs, shipped
from learning.training.leakage import TrainingError

# Other modules find these here: the runs of the ordinary crowd, and the Monday on which the week of
# all runs begins.
scenarios, MONDAY = runs.ordinary, runs.MONDAY
# Milliseconds that scoring a batch may take while a model decides runs. A decider's 5 ms would hand
# requests to the fallback limiter when the machine is busy, and no two trainings would be equal.
UNHURRIED_MS = 1e6
# Held-out rows for the mean absolute SHAP values: LightGBM's exact values are slow, and means over
# a thousand rows order the features well enough.
SHAP_ROWS = 1_000
# Simulated seconds and apps of each run of apps. With a model trained on about a quarter of that
# traffic, more refusals had no recourse (docs/adr, record 13).
SECONDS, APPS = 200.0, 1_600
# Where the apps are split: the first 60% train, the next 15% calibrate, and the rest test.
# Calibration fits two numbers and needs the fewest apps.
TRAIN_UPTO, CALIBRATE_UPTO = 0.6, 0.75
LIMITS = (
    "Trained on simulated clients only: a start, to be replaced by a model trained on"
    " matured outcomes of real traffic. Weak on abuse at the pace and shape of ordinary"
    " use, and on apps seen for less than a minute. Not to be used as the only ground for"
    " closing an account."
)


@dataclass(frozen=True, slots=True)
class Trained:
    """An artifact ready to be stored under its digest."""

    data: bytes
    digest: str
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Split:
    """Masks of rows, bool (n,); all rows of an app are in the same one."""

    train: npt.NDArray[np.bool_]
    calibrate: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]


PlayRuns = Callable[[list[Scenario], bytes], Traffic]


@contextmanager
def play_runs(
    workers: int = 0, progress: Callable[[float], object] | None = None
) -> Iterator[PlayRuns]:
    """Yield a function that plays scenarios and returns their rows joined, in order. Its second
    argument is the encoded artifact of the model that decides, empty for none.

    The function plays in `workers` processes, or in this one for 0. The same scenarios give the
    same rows to the bit either way. `progress` is called with simulated seconds as they pass.
    """
    if not workers:
        yield lambda wanted, model: simulate.join_traffic(
            [_play(scenario, model, progress) for scenario in wanted]
        )
        return
    # A short run compiles the engine here, so that it is not compiled in every process.
    simulate.Simulation(Scenario(1, MONDAY, seconds=1.0, apps=50, rate=5.0)).run()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def play_all(wanted: list[Scenario], model: bytes) -> Traffic:
            parts: list[Traffic] = []
            played = pool.map(_play, wanted, repeat(model))
            for scenario, traffic in zip(wanted, played, strict=True):
                parts.append(traffic)
                if progress is not None:
                    progress(scenario.seconds)
            return simulate.join_traffic(parts)

        yield play_all


def seconds_to_play(seconds: float = SECONDS, crowds: int = runs.CROWDS) -> float:
    """Return the simulated seconds of all runs of a training whose runs of apps last `seconds`."""
    return sum(scenario.seconds for scenario in runs.all_runs(0, seconds, 1, crowds))


def _usual_workers() -> int:
    """Return one process for each core, up to four; 0 in a process that may not start others (a
    Celery worker).
    """
    return 0 if multiprocessing.current_process().daemon else min(4, os.cpu_count() or 1)


def _play(
    scenario: Scenario, model: bytes, progress: Callable[[float], object] | None = None
) -> Traffic:
    config = structs.replace(simulate.starting_config(scenario), ml_time_limit_ms=UNHURRIED_MS)
    decider = Model.load(model) if model else None
    return simulate.Simulation(scenario, config, decider).run(progress).traffic


def split_apps(traffic: Traffic, seed: int) -> Split:
    """Return a random split of the rows: 60% of the apps train, 15% calibrate, 25% test."""
    apps = np.unique(traffic.app)
    side = np.random.default_rng(seed).permutation(len(apps)) / len(apps)
    of_row = side[np.searchsorted(apps, traffic.app)]
    training, testing = of_row < TRAIN_UPTO, of_row >= CALIBRATE_UPTO
    return Split(training, ~training & ~testing, testing)


def join_splits(first: Split, second: Split) -> Split:
    """Return the split of two traffics whose rows are joined, those of `first` first."""
    return Split(
        *(np.concatenate([getattr(s, name) for s in (first, second)]) for name in Split.__slots__)
    )


def choose_calibrated(traffic: Traffic, parts: Split, played: list[Scenario]) -> Split:
    """Return the split in which only apps of runs with true profiles calibrate. Other apps that
    were to calibrate train instead.

    Where profiles tell nothing, the same raw score stands for far more abuse. A model calibrated on
    such runs as well would refuse too many apps with a good profile. Loud web attackers, whose risk
    is certain, would raise the middle of the scale in the same way.
    """
    true = [scenario.seed for scenario in played if runs.tells_truth(scenario)]
    chosen = np.isin(traffic.app // simulate.APPS_PER_SEED, true)
    return Split(parts.train | (parts.calibrate & ~chosen), parts.calibrate & chosen, parts.test)


def train(
    seed: int = 7,
    by: str = "learning.training.train",
    seconds: float = SECONDS,
    apps: int = APPS,
    crowds: int = runs.CROWDS,
    workers: int | None = None,
    progress: Callable[[float], object] | None = None,
) -> Trained:
    """Simulate runs of `seconds` and `apps` for each crowd, then train, calibrate and measure both
    models.

    `by` goes on the model card; `progress` is called with simulated seconds as they pass, which are
    `seconds_to_play` in all. Raises TrainingError when the traffic gives no usable model.
    """
    began = time.perf_counter()
    plain = runs.first_stage(seed, seconds, apps, crowds)
    further = runs.second_stage(seed, seconds, apps, crowds)
    with play_runs(_usual_workers() if workers is None else workers, progress) as play:
        first = play(plain, b"")
        simulated = time.perf_counter() - began
        parts = choose_calibrated(first, split_apps(first, seed), plain)
        decider = _first_model(first, parts, seed)
        resumed = time.perf_counter()
        second = play(further, decider)
        simulated += time.perf_counter() - resumed
    # The split of the first stage stays as it is; only the second stage's apps are split here.
    others = choose_calibrated(second, split_apps(second, seed + 1), further)
    parts = join_splits(parts, others)
    traffic = simulate.join_traffic([first, second])
    risk, value = fit.fit_both(traffic, parts.train, seed)
    origin = _Origin(seed, by, began, simulated, plain + further)
    made = wrap_models(traffic, parts, risk, value, origin)
    return Trained(data := artifact.encode(made), artifact.digest_of(data), made)


def _first_model(traffic: Traffic, parts: Split, seed: int) -> bytes:
    """Return the encoded artifact of the first stage's model, which only decides runs."""
    risk, value = fit.fit_both(traffic, parts.train, seed, fit.FIRST_SHARE)
    c = parts.calibrate
    risk = fit.shift_tiers(risk, traffic, c, seed)
    risk_cal = _fit_calibration(risk, traffic, c, traffic.abusive)
    value_cal = _fit_calibration(value, traffic, c, traffic.value)
    origin = _Origin(seed, "the first stage of training", 0.0, 0.0, [])
    texts = risk.model_to_string(), value.model_to_string()
    made = Artifact(
        name="first-stage",
        feature_schema=features.SCHEMA,
        risk_model=texts[0],
        value_model=texts[1],
        risk_calibration=risk_cal,
        value_calibration=value_cal,
        golden=make_golden(_golden_rows(traffic.features[c]), *texts, risk_cal, value_cal),
        card=_card(traffic, origin, {}, []),
    )
    return artifact.encode(made)


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a model comes from, for its card."""

    seed: int
    by: str
    began: float
    """Reading of `time.perf_counter` at the start of training, seconds."""
    simulated_s: float
    """Wall time of the simulation, seconds."""
    runs: list[Scenario]


def wrap_models(
    traffic: Traffic, parts: Split, risk: lightgbm.Booster, value: lightgbm.Booster, origin: _Origin
) -> Artifact:
    """Calibrate on the calibration apps, measure on the test apps, and return the artifact."""
    c, t = parts.calibrate, parts.test
    risk = fit.shift_tiers(risk, traffic, c, origin.seed)
    risk_cal = _fit_calibration(risk, traffic, c, traffic.abusive)
    value_cal = _fit_calibration(value, traffic, c, traffic.value)
    p_risk = metrics.calibrate(_raw(risk, traffic, t), risk_cal)
    p_value = metrics.calibrate(_raw(value, traffic, t), value_cal)
    figures = _held_out_metrics(traffic, t, p_risk, p_value)
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


def _fit_calibration(
    booster: lightgbm.Booster,
    traffic: Traffic,
    rows: npt.NDArray[np.bool_],
    label: npt.NDArray[np.generic],
) -> artifact.Calibration:
    """Return Platt scaling fitted on `rows` (bool mask). `label` holds all rows, 0 to 1.

    Apps are weighed as in a fit: loud apps, whose risk is certain, must not decide the middle of
    the scale.
    """
    weight = fit.balance_apps(traffic)[rows]
    return metrics.fit_platt(_raw(booster, traffic, rows), label[rows].astype(np.float64), weight)


def _held_out_metrics(
    traffic: Traffic, test: npt.NDArray[np.bool_], p_risk: metrics.Floats, p_value: metrics.Floats
) -> dict[str, float]:
    """Return the metrics of both models on the test rows."""
    weight = traffic.weight[test]
    abusive, tier, web = traffic.abusive[test], traffic.tier[test], traffic.web[test]
    figures = metrics.risk_metrics(abusive, p_risk, weight, tier)
    for name, rows in (("apps", ~web), ("web", web)):
        # A short training may have no attack among the web clients held out.
        if 0 < abusive[rows].sum() < rows.sum():
            part = metrics.risk_metrics(abusive[rows], p_risk[rows], weight[rows], tier[rows])
            figures |= {f"{key}_{name}": part[key] for key in ("risk_auc", "risk_ece")}
    figures |= metrics.reliability(abusive, p_risk, weight, tier)
    return figures | metrics.value_metrics(traffic.value[test].astype(np.float64), p_value, weight)


def _raw(model: lightgbm.Booster, traffic: Traffic, rows: npt.NDArray[np.bool_]) -> metrics.Floats:
    return np.asarray(model.predict(traffic.features[rows], raw_score=True), dtype=np.float64)


def _importance(risk: lightgbm.Booster, rows: npt.NDArray[np.float32], seed: int) -> list[float]:
    """Return each feature's mean absolute SHAP value on a sample of held-out rows, log-odds."""
    sample = np.random.default_rng(seed).permutation(len(rows))[:SHAP_ROWS]
    contributions = np.asarray(risk.predict(rows[sample], pred_contrib=True))
    # LightGBM puts the expected value into the last column; it belongs to no feature.
    return [float(v) for v in np.abs(contributions[:, :-1]).mean(axis=0)]


def _golden_rows(held_out: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return 64 rows whose scores every scorer must repeat: ordinary ones and edge cases."""
    rows: npt.NDArray[np.float32] = held_out[
        np.linspace(0, len(held_out) - 1, 64).astype(int)
    ].copy()
    # Missing values take their own branch in a tree; some rows must walk it.
    rows[40:48, ::3] = np.nan
    # Nothing known at all, then the cold start as the engine serves it.
    rows[48] = np.nan
    rows[49] = [f.default for f in features.FEATURES]
    # Zero has a bin of its own in LightGBM; the other two are near the ends of float32.
    rows[50], rows[51] = 0.0, 3e38
    rows[52] = -3e38
    return rows


def _card(
    traffic: Traffic, origin: _Origin, figures: dict[str, float], importance: list[float]
) -> ModelCard:
    quantiles = {tier.word: _quantiles(traffic, tier) for tier in Tier}
    return ModelCard(
        title="Risk and value from simulated traffic",
        trained_at=time.time(),
        trained_by=origin.by,
        data=_data_sentence(traffic, origin.runs),
        data_from=float(traffic.at.min()),
        data_to=float(traffic.at.max()),
        label_maturity=_maturity_sentence(traffic),
        rows=len(traffic.at),
        positives=int(traffic.abusive.sum()),
        parameters=_parameters(origin),
        metrics=figures,
        limits=LIMITS,
        # "Typical" is the median, the middle one of the three quantiles.
        typical={word: [q[1] for q in rows] for word, rows in quantiles.items()},
        quantiles=quantiles,
        importance=importance,
    )


def _data_sentence(traffic: Traffic, played: list[Scenario]) -> str:
    free = sum(run.observe_only for run in played)
    ranked = sum(run.explore > 0.0 for run in played)
    return (
        f"{len(traffic.at):,} requests of {len(np.unique(traffic.app)):,} simulated apps in"
        f" {len(played)} runs: {free} without refusals, {len(played) - free - ranked} behind the"
        f" fallback limiter, and {ranked} behind a first model"
    )


def _maturity_sentence(traffic: Traffic) -> str:
    days = (float(traffic.matured_at.max()) - float(traffic.at.max())) / 86_400
    return (
        "All labels matured. In the simulation the last one was known"
        f" {days:.0f} days after the last request."
    )


def _parameters(origin: _Origin) -> dict[str, float | int | str]:
    return {
        "seed": origin.seed,
        "risk_trees": fit.RISK_ROUNDS,
        "value_trees": fit.VALUE_ROUNDS,
        "tier_trees": fit.TIER_ROUNDS,
        "leaves": fit.LEAVES,
        "simulated_seconds": sum(r.seconds for r in origin.runs),
        "not_learnt_from": ", ".join((*fit.UNTAUGHT, *fit.NOT_OF_THE_APP, *fit.OWN_DOING)),
    }


def _quantiles(traffic: Traffic, tier: Tier) -> list[list[float]]:
    """Return the 10th, 50th and 90th percentile of each feature over the honest requests of a tier.
    Web clients are left out, because "usual" is said of apps with a profile.

    Raises TrainingError when the tier has no honest request.
    """
    rows = traffic.features[(traffic.tier == tier) & ~traffic.abusive & ~traffic.web]
    if not len(rows):
        raise TrainingError(
            f"no honest request of tier {tier.word} was simulated. Use more apps or more seconds."
        )
    return [
        [float(v) for v in column] for column in np.nanquantile(rows, (0.1, 0.5, 0.9), axis=0).T
    ]


def describe_card(trained: Trained) -> str:
    """Return the model card as text for a terminal."""
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
    """Store the artifact in `folder` under its digest and return its path."""
    path = folder / trained.digest
    # Atomic, so that a half-written file never carries the digest as its name.
    write_atomically(path, trained.data)
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m learning.training.train",
        description="Train the first model on simulated traffic.",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the artifact; by default it becomes the one that ships"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="seed of the traffic and the models (default 7)"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="simulated seconds of each run of apps"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="number of processes that simulate; 0 simulates in this process",
    )
    return parser.parse_args()


def main() -> int:
    """Train, store the artifact and print its card. Return 1 when no model could be made."""
    asked = _arguments()
    try:
        with tqdm(
            total=seconds_to_play(asked.seconds),
            unit="s",
            desc="simulating",
            leave=False,
            disable=None,
            bar_format="{l_bar}{bar}| {n:.0f} s",
        ) as bar:
            trained = train(
                asked.seed, seconds=asked.seconds, workers=asked.workers, progress=bar.update
            )
        path = write_artifact(trained, asked.out) if asked.out else shipped.write(trained.data)
    except (TrainingError, OSError) as error:
        print(f"learning.training.train: {error}", file=sys.stderr)
        return 1
    print(describe_card(trained))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
