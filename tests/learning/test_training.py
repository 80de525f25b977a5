"""The closed loop and what is learnt from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from decider.contracts import artifact, features
from decider.scoring.model import Model
from learning.traffic import simulate
from learning.traffic.simulate import Scenario, Simulation
from learning.training import fit, metrics, train
from learning.training.leakage import TrainingError, check_label
from tests.learning import logs

START = train.MONDAY + 8 * 3600.0


def scenario(**more) -> Scenario:
    return Scenario(
        **{
            "seed": 5,
            "start": START,
            "seconds": 20.0,
            "warm_up": 5.0,
            "apps": 400,
            "rate": 80.0,
            **more,
        }
    )


@pytest.fixture(scope="module")
def trained(small_training: train.Trained) -> train.Trained:
    return small_training


def test_the_loop_collects_features_and_truth_for_what_the_engine_decided() -> None:
    run = Simulation(scenario()).run()
    traffic = run.traffic
    n = len(traffic.at)
    assert run.requests == sum(run.by_action) > 500
    assert traffic.features.shape == (n, features.N_FEATURES)
    assert traffic.features.dtype == np.float32
    assert {len(getattr(traffic, name)) for name in simulate.Traffic.__slots__} == {n}
    assert traffic.features[:, features.INDEX["rate_10s"]].max() > 1
    assert (traffic.matured_at > traffic.at).all()
    assert 0 <= traffic.value.min() <= traffic.value.max() <= 1


def test_observe_only_admits_everything_and_the_fallback_does_not() -> None:
    calm = Simulation(scenario(observe_only=True, seconds=30.0)).run()
    assert calm.by_action[0] == calm.requests
    strict = Simulation(scenario(apps=1200, rate=240.0, seconds=60.0)).run()
    assert strict.by_action[0] < strict.requests


def test_the_same_scenario_gives_the_same_labels_and_outcomes() -> None:
    one, two = (Simulation(scenario(observe_only=True)).run() for _ in range(2))
    assert one.requests == two.requests
    assert np.array_equal(one.traffic.features, two.traffic.features)


def test_no_app_is_on_two_sides_of_the_split() -> None:
    traffic = Simulation(scenario()).run().traffic
    parts = train.split_apps(traffic, 1)
    sides = [set(traffic.app[mask]) for mask in (parts.train, parts.calibrate, parts.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == len(set(traffic.app))


def test_risk_is_shifted_so_that_it_is_true_of_each_tier_and_keeps_its_order_within_one() -> None:
    traffic = Simulation(scenario()).run().traffic
    rng, tier = np.random.default_rng(4), traffic.features[:, features.INDEX["tier"]]
    # truth: a common part that the model learns, and one of the tier that it never saw
    pace = traffic.features[:, features.INDEX["rate_60s"]] > 0.2
    seen = replace(traffic, abusive=rng.random(len(tier)) < np.where(pace, 0.5, 0.2))
    truth = np.array([0.15, 0.4, 0.6, 0.3])[tier.astype(int)] + 0.2 * pace
    real = replace(traffic, abusive=rng.random(len(tier)) < truth)
    every = np.ones(len(tier), bool)
    before = fit.fit_risk(seen, every, 1)
    after = fit.shift_tiers(before, real, every, 1)
    raw, shifted = (m.predict(traffic.features, raw_score=True) for m in (before, after))
    weight = fit.balance_apps(real)
    for one in range(4):
        mine = tier == one
        assert np.ptp((shifted - raw)[mine]) < 1e-6
        if mine.sum() > 200:
            told = np.average(1 / (1 + np.exp(-shifted[mine])), weights=weight[mine])
            found = np.average(real.abusive[mine], weights=weight[mine])
            assert told == pytest.approx(found, abs=0.03)
            was = np.average(1 / (1 + np.exp(-raw[mine])), weights=weight[mine])
            assert abs(was - found) > 2 * abs(told - found) or abs(was - found) < 0.05


def test_a_trained_artifact_loads_and_its_golden_vectors_hold(trained: train.Trained) -> None:
    model = Model.load(trained.data, trained.digest)
    assert model.digest == artifact.digest_of(trained.data)
    with pytest.raises(artifact.ArtifactError):
        Model.load(trained.data[:-1], trained.digest)


def test_a_first_model_is_useful_on_apps_it_never_saw_but_not_an_oracle(
    trained: train.Trained,
) -> None:
    figures = trained.artifact.card.metrics
    assert 0.85 < figures["risk_auc"] < 0.9995
    # 0.12 measured, of some minutes of a small crowd; the model that ships has 0.01
    assert figures["risk_ece"] < 0.15
    assert figures["value_auc"] > 0.7


def test_the_card_tells_what_is_typical_of_each_tier(trained: train.Trained) -> None:
    card = trained.artifact.card
    assert set(card.typical) == {"free", "standard", "premium", "enterprise"}
    for rows in card.quantiles.values():
        assert len(rows) == features.N_FEATURES
        assert all(low <= middle <= high for low, middle, high in rows)
    assert len(card.importance) == features.N_FEATURES
    assert all(
        card.importance[features.INDEX[name]] == 0
        for name in (*fit.UNTAUGHT, *fit.NOT_OF_THE_APP, *fit.OWN_DOING)
    )
    assert trained.digest in train.describe_card(trained)


def test_the_artifact_is_written_under_its_digest(trained: train.Trained, tmp_path) -> None:
    path = train.write_artifact(trained, tmp_path / "models")
    assert path.name == trained.digest
    assert path.read_bytes() == trained.data
    assert [p.name for p in path.parent.iterdir()] == [trained.digest]


SIGNED = [feature for feature in features.FEATURES if feature.risk]


@pytest.fixture(scope="module")
def model(trained: train.Trained) -> Model:
    return Model.load(trained.data)


@pytest.fixture(scope="module")
def some_rows() -> NDArray[np.float32]:
    return Simulation(scenario()).run().traffic.features[:300]


@pytest.mark.parametrize("feature", SIGNED, ids=lambda feature: feature.name)
def test_risk_moves_only_the_way_the_registry_allows(model: Model, some_rows, feature) -> None:
    """Rows of simulated traffic, one feature of them raised step by step."""
    rows = some_rows.copy()
    highest = float(np.nanmax(rows[:, features.INDEX[feature.name]]))
    before = None
    for level in np.linspace(0.0, max(1.0, 3.0 * highest), 12, dtype=np.float32):
        rows[:, features.INDEX[feature.name]] = level
        risk = model.score(rows).risk
        assert before is None or (feature.risk * (risk - before) >= -1e-12).all()
        before = risk


def test_each_sign_of_abuse_that_the_traffic_of_an_app_shows_may_only_raise_risk() -> None:
    rising = {feature.name for feature in SIGNED if feature.risk == 1}
    kinds = ("client_error", "auth_error", "not_found", "payment_error")
    kinds += ("refused", "retry", "early_retry")
    assert rising >= {f"{kind}_share_60s" for kind in kinds} | {"error_share_60s"}
    assert rising >= {"client_errors_60s", "auth_errors_60s", "not_found_60s"}
    assert rising >= {"payment_errors_60s", "refused_60s", "retries_60s", "early_retries_60s"}
    assert rising >= {"distinct_tokens_60s", "distinct_sources_60s"}


def test_a_label_that_one_column_decides_is_refused_by_name() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=2000)
    columns = {"noise": rng.normal(size=2000), "leak": x, "word": np.where(x > 1, "a", "b")}
    with pytest.raises(TrainingError, match="'leak' alone decides"):
        check_label({k: columns[k] for k in ("noise", "leak")}, x > 0.3)
    with pytest.raises(TrainingError, match="'word' alone decides"):
        check_label({k: columns[k] for k in ("noise", "word")}, x > 1)
    check_label(columns, rng.random(2000) < 0.3)


def test_a_label_known_only_by_what_is_missing_is_refused() -> None:
    label = np.arange(1000) % 3 == 0
    with pytest.raises(TrainingError, match="'hole'"):
        check_label({"hole": np.where(label, np.nan, np.arange(1000.0))}, label)


def test_a_label_of_one_class_is_refused() -> None:
    with pytest.raises(TrainingError, match="one class only"):
        check_label({"x": np.arange(10.0)}, np.zeros(10, bool))


def column(texts: list[str]) -> np.ndarray:
    """Return numbers where all texts are numbers or empty, else the words."""
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return np.array(texts)


def test_the_degenerate_published_table_is_refused_and_its_column_named() -> None:
    rows = logs.table("tangodelta_api_behaviour_supervised_1699.csv.gz")
    known = ("", "_id", "classification")
    columns = {name: column([row[name] for row in rows]) for name in rows[0] if name not in known}
    label = np.array([row["classification"] == "outlier" for row in rows])
    with pytest.raises(TrainingError, match="'num_users' alone decides"):
        check_label(columns, label)


def test_platt_scaling_finds_the_scale_it_was_made_with() -> None:
    rng = np.random.default_rng(2)
    raw = rng.normal(size=200_000) * 2
    label = (rng.random(len(raw)) < metrics.sigmoid(0.7 * raw - 1.1)).astype(float)
    found = metrics.fit_platt(raw, label, np.ones(len(raw)))
    assert found.slope == pytest.approx(0.7, abs=0.02)
    assert found.intercept == pytest.approx(-1.1, abs=0.02)
    assert (
        metrics.expected_calibration_error(label, metrics.calibrate(raw, found), np.ones(len(raw)))
        < 0.01
    )
