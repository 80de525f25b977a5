"""A model is loaded only when its digest, its feature schema, its trees and its golden vectors are
what they must be.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import lightgbm as lgb
import msgspec
import numpy as np
import pytest

from decider.contracts import artifact as artifacts
from decider.contracts.artifact import Artifact, ArtifactError, Calibration, ModelCard
from decider.contracts.features import N_FEATURES, NAMES, SCHEMA
from decider.scoring import trees
from decider.scoring.model import MAX_BYTES, Model, make_golden, probability, warm_up

RISK_CAL, VALUE_CAL = Calibration(1.3, -0.2), Calibration(0.7, 0.1)


def make_rows(count: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.exp(random.normal(0, 2, (count, N_FEATURES))).astype(np.float32)
    rows[random.random(rows.shape) < 0.05] = np.nan
    return rows


def train(objective: str, seed: int) -> lgb.Booster:
    rows = make_rows(3000, seed)
    target = np.nan_to_num(rows[:, 0]) > np.nan_to_num(rows[:, seed + 1])
    data = lgb.Dataset(rows, target.astype(float), feature_name=list(NAMES))
    return lgb.train({"objective": objective, "verbose": -1, "num_threads": 1}, data, 20)


@pytest.fixture(scope="module")
def boosters() -> tuple[lgb.Booster, lgb.Booster]:
    return train("binary", 1), train("regression", 2)


@pytest.fixture(scope="module")
def artifact(boosters: tuple[lgb.Booster, lgb.Booster]) -> Artifact:
    risk, value = (booster.model_to_string() for booster in boosters)
    card = ModelCard(
        title="Test",
        trained_at=0.0,
        trained_by="test",
        data="made up",
        data_from=0.0,
        data_to=1.0,
        label_maturity="full",
        rows=3000,
        positives=1500,
        parameters={},
        metrics={},
        limits="tests only",
        typical={},
    )
    return Artifact(
        name="test",
        feature_schema=SCHEMA,
        risk_model=risk,
        value_model=value,
        risk_calibration=RISK_CAL,
        value_calibration=VALUE_CAL,
        golden=make_golden(make_rows(50), risk, value, RISK_CAL, VALUE_CAL),
        card=card,
    )


def load(artifact: Artifact, **changes: object) -> Model:
    return Model.load(artifacts.encode(msgspec.structs.replace(artifact, **changes)))


def test_a_loaded_model_scores_as_lightgbm_and_calibrates(
    artifact: Artifact, boosters: tuple[lgb.Booster, lgb.Booster]
) -> None:
    data = artifacts.encode(artifact)
    model = Model.load(data, artifacts.digest_of(data))
    rows = make_rows(500, 9)
    scores = model.score(rows)
    for booster, raw in zip(boosters, (scores.raw_risk, scores.raw_value), strict=True):
        assert np.array_equal(
            raw.view(np.int64), booster.predict(rows, raw_score=True).view(np.int64)
        )
    assert np.allclose(scores.risk, 1 / (1 + np.exp(-(1.3 * scores.raw_risk - 0.2))), rtol=1e-14)
    assert np.allclose(scores.value, 1 / (1 + np.exp(-(0.7 * scores.raw_value + 0.1))), rtol=1e-14)
    assert model.digest == artifacts.digest_of(data)


def test_one_score_is_calibrated_as_many_are(artifact: Artifact) -> None:
    model = load(artifact)
    scores = model.score(make_rows(64, 5))
    alone = [probability(raw, model.risk_slope, model.risk_intercept) for raw in scores.raw_risk]
    assert alone == scores.risk.tolist()


def test_extreme_raw_scores_become_certainties_without_overflow() -> None:
    assert probability(1e6, 1.0, 0.0) == 1.0
    assert probability(-1e6, 1.0, 0.0) == 0.0
    assert probability(0.0, 1.0, 0.0) == 0.5


def test_the_digest_is_checked(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="is not the expected"):
        Model.load(artifacts.encode(artifact), "0" * 64)


def test_another_feature_schema_is_refused(artifact: Artifact) -> None:
    with pytest.raises(
        ArtifactError, match=f"feature schema 0123456789abcdef, but this version has {SCHEMA}"
    ):
        load(artifact, feature_schema="0123456789abcdef")


@pytest.mark.parametrize("which", ["raw_risk", "raw_value", "risk", "value"])
def test_a_golden_score_that_differs_in_its_last_bit_is_refused(
    artifact: Artifact, which: str
) -> None:
    scores = list(getattr(artifact.golden, which))
    scores[7] = math.nextafter(scores[7], math.inf)
    with pytest.raises(
        ArtifactError, match=rf"golden vectors: {which} of row 7 .*\(1 of 50 rows differ\)"
    ):
        load(artifact, golden=msgspec.structs.replace(artifact.golden, **{which: scores}))


def test_a_changed_leaf_is_found_by_the_golden_vectors(artifact: Artifact) -> None:
    lines = artifact.risk_model.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("leaf_value="))
    lines[at] = "leaf_value=" + " ".join(
        f"{float(word) + 1e-9:.17g}" for word in lines[at][11:].split()
    )
    with pytest.raises(ArtifactError, match="golden vectors: raw_risk of row 0"):
        load(artifact, risk_model="\n".join(lines))


def test_a_changed_calibration_is_found_by_the_golden_vectors(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="golden vectors: value of row"):
        load(artifact, value_calibration=Calibration(0.7, 0.1000001))


def test_a_calibration_that_is_not_finite_is_refused(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="risk calibration is not finite"):
        load(artifact, risk_calibration=Calibration(math.nan, 0.0))


def test_golden_scores_that_are_missing_are_refused(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="49 risk scores for 50 rows"):
        load(
            artifact, golden=msgspec.structs.replace(artifact.golden, risk=artifact.golden.risk[1:])
        )


@pytest.mark.parametrize("features", [b"", b"\0" * 7, b"\0" * (4 * N_FEATURES - 4)])
def test_golden_rows_that_are_no_rows_are_refused(artifact: Artifact, features: bytes) -> None:
    with pytest.raises(ArtifactError, match="float32 features"):
        load(artifact, golden=msgspec.structs.replace(artifact.golden, features=features))


def test_an_unusable_tree_says_which_model_it_is_in(artifact: Artifact) -> None:
    with pytest.raises(ArtifactError, match="value model: header: num_class"):
        load(artifact, value_model=artifact.value_model.replace("num_class=1", "num_class=2"))


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xc1" * 30, b"\x81\xa6format\xa2\xff\xfe", b"\x9f" * 5000]
)
def test_bytes_that_are_no_artifact_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="malformed"):
        Model.load(data)


def test_an_artifact_cut_short_anywhere_is_refused(artifact: Artifact) -> None:
    data = artifacts.encode(artifact)
    for end in range(0, len(data), len(data) // 40):
        with pytest.raises(ArtifactError):
            Model.load(data[:end])


def test_an_endless_artifact_is_refused_unread() -> None:
    with pytest.raises(ArtifactError, match="larger than"):
        Model.load(bytes(MAX_BYTES + 1))


def test_warming_up_compiles_all_that_a_first_score_needs(artifact: Artifact) -> None:
    warm_up()
    before = len(trees.score_rows.signatures)
    load(artifact).score(make_rows(3))
    assert len(trees.score_rows.signatures) == before


def test_several_threads_may_score_with_one_model_at_once(artifact: Artifact) -> None:
    model, threads = load(artifact), 4
    parts = [make_rows(4 if part % 2 else 700, seed=part) for part in range(threads)]
    wanted = [model.score(rows).raw_risk.tobytes() for rows in parts]
    start = threading.Barrier(threads)

    def wrong(part: int) -> int:
        start.wait()
        scores = (model.score(parts[part]).raw_risk.tobytes() for _ in range(1500))
        return sum(found != wanted[part] for found in scores)

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(wrong, range(threads))) == [0] * threads
