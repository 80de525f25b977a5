"""The compiled TreeSHAP gives LightGBM's own `pred_contrib` values, adds up to the score, and
refuses what it cannot explain.
"""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.artifact import ArtifactError
from decider.scoring import lightgbm_text, shap
from decider.scoring.shap import EXACT, Explainer
from decider.scoring.trees import TreeEnsemble
from tests.decider.test_trees import (
    FEATURES,
    MODELS,
    NAMES,
    NUMBERS,
    SPECIAL,
    hard_rows,
    make_rows,
    train,
)

CLOSE = 1e-9
"""Largest difference accepted, log-odds."""


def difference(text: str, rows: np.ndarray, names: tuple[str, ...] = NAMES) -> float:
    """Largest difference of values and base from LightGBM's."""
    explainer = Explainer.from_text(text, names)
    wanted = lgb.Booster(model_str=text).predict(rows, pred_contrib=True, num_threads=1)
    assert np.isfinite(wanted).all()
    return max(
        float(np.abs(explainer.values(rows) - wanted[:, :-1]).max()),
        float(np.abs(explainer.base - wanted[:, -1]).max()),
    )


@pytest.fixture(scope="module")
def text() -> str:
    return train(rounds=20).model_to_string()


@pytest.mark.parametrize("kind", MODELS)
def test_values_and_base_are_those_of_lightgbm(kind: str) -> None:
    text = train(rounds=40, **MODELS[kind]).model_to_string()
    rows = hard_rows(text, 400)
    assert np.isnan(rows).any(axis=1).mean() > 0.1
    assert difference(text, rows) <= CLOSE


@pytest.mark.parametrize("kind", MODELS)
def test_base_and_values_add_up_to_the_raw_score(kind: str) -> None:
    text = train(rounds=40, **MODELS[kind]).model_to_string()
    rows, explainer = hard_rows(text, 2000), Explainer.from_text(text, NAMES)
    sums = explainer.base + explainer.values(rows).sum(axis=1)
    assert np.abs(sums - TreeEnsemble.from_text(text, NAMES).raw(rows)).max() <= CLOSE


def test_a_wrong_row_count_would_be_noticed(text: str) -> None:
    line = next(line for line in text.splitlines() if line.startswith("leaf_count="))
    counts = line.partition("=")[2].split()
    changed = text.replace(
        line, f"leaf_count={' '.join([str(3 * int(counts[0])), *counts[1:]])}", 1
    )
    rows = make_rows(50, 1)
    honest, wrong = (Explainer.from_text(t, NAMES).values(rows) for t in (text, changed))
    assert np.abs(honest - wrong).max() > CLOSE


def test_a_model_that_never_splits_has_only_a_base() -> None:
    text = train(min_data_in_leaf=5000).model_to_string()
    explainer, rows = Explainer.from_text(text, NAMES), make_rows(5, 1)
    assert not explainer.values(rows).any()
    assert explainer.base == pytest.approx(
        TreeEnsemble.from_text(text, NAMES).raw(rows)[0], abs=CLOSE
    )


def test_one_row_is_explained_as_it_is_among_many(text: str) -> None:
    explainer, rows = Explainer.from_text(text, NAMES), hard_rows(text, 3 * shap.BLOCK + 1)
    alone = np.concatenate([explainer.values(row[None]) for row in rows])
    assert np.array_equal(alone, explainer.values(rows))


def test_rows_of_another_shape_or_type_are_refused(text: str) -> None:
    explainer = Explainer.from_text(text, NAMES)
    for rows in (
        np.zeros((2, FEATURES)),
        np.zeros(FEATURES, np.float32),
        np.zeros((2, FEATURES + 1), np.float32),
    ):
        with pytest.raises(ValueError, match="rows must be float32"):
            explainer.values(rows)
    assert explainer.values(np.zeros((0, FEATURES), np.float32)).shape == (0, FEATURES)


def test_read_only_rows_are_explained(text: str) -> None:
    explainer, rows = Explainer.from_text(text, NAMES), make_rows(4, 1)
    frozen = np.frombuffer(rows.tobytes(), np.float32).reshape(rows.shape)
    assert np.array_equal(explainer.values(frozen), explainer.values(rows))


# -- trees made by hand, with anything in them
# ---------------------------------------------------------------------


def write(bodies: list[dict[str, list]], names: tuple[str, ...]) -> str:
    """A text model of trees given as the fields of LightGBM's format."""
    sections = []
    for number, body in enumerate(bodies):
        lists = "".join(f"{key}={' '.join(map(repr, values))}\n" for key, values in body.items())
        sections.append(
            f"Tree={number}\nnum_leaves={len(body['leaf_value'])}\nnum_cat=0\n{lists}is_linear=0\nshrinkage=1\n\n\n"
        )
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={len(names) - 1}\nobjective=regression\n"
        f"feature_names={' '.join(names)}\nfeature_infos={' '.join(['none'] * len(names))}\n"
        f"tree_sizes={' '.join(str(len(section)) for section in sections)}\n\n"
    )
    return (
        head
        + "".join(sections)
        + "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n"
    )


def counted(left: list[int], right: list[int], leaf_rows: list[int]) -> list[int]:
    """Rows at each node: those of the leaves below it."""
    found = [0] * len(left)
    for node in range(len(left) - 1, -1, -1):
        found[node] = sum(found[c] if c >= 0 else leaf_rows[~c] for c in (left[node], right[node]))
    return found


@st.composite
def any_tree(draw: st.DrawFn, features: int) -> dict[str, list]:
    """Any shape, thresholds, row counts and rules for missing values; features repeat on paths."""
    leaves = draw(st.integers(2, 40))
    left, right = [-1], [-2]
    for node in range(1, leaves - 1):
        leaf = ~draw(st.integers(0, node))
        side = left if leaf in left else right
        side[side.index(leaf)] = node
        left.append(leaf)
        right.append(~(node + 1))
    nodes = leaves - 1

    def each(of: st.SearchStrategy, count: int) -> list:
        return draw(st.lists(of, min_size=count, max_size=count))

    leaf_rows = each(st.one_of(st.integers(1, 50), st.just(200_000)), leaves)
    return {
        "split_feature": each(st.integers(0, features - 1), nodes),
        "threshold": each(NUMBERS, nodes),
        "decision_type": each(st.sampled_from([0, 2, 4, 6, 8, 10]), nodes),
        "left_child": left,
        "right_child": right,
        "leaf_value": each(st.floats(-2, 2), leaves),
        "leaf_count": leaf_rows,
        "internal_count": counted(left, right, leaf_rows),
    }


@settings(max_examples=60, deadline=None)
@given(data=st.data(), features=st.integers(1, FEATURES), seed=st.integers(0, 2**32 - 1))
def test_any_well_formed_tree_is_explained_as_in_lightgbm(
    data: st.DataObject, features: int, seed: int
) -> None:
    bodies = [data.draw(any_tree(features)) for _ in range(data.draw(st.integers(1, 3)))]
    near = (
        np.concatenate([body["threshold"] for body in bodies]).clip(-3e38, 3e38).astype(np.float32)
    )
    pool = np.concatenate(
        [SPECIAL, near, np.nextafter(near, np.float32(-9e9)), np.nextafter(near, np.float32(9e9))]
    )
    rows = np.random.default_rng(seed).choice(pool, (60, FEATURES))
    text = write(bodies, NAMES)
    assert difference(text, rows) <= CLOSE
    explainer = Explainer.from_text(text, NAMES)
    raw = TreeEnsemble.from_text(text, NAMES).raw(rows)
    assert np.abs(explainer.base + explainer.values(rows).sum(axis=1) - raw).max() <= CLOSE


def chain(features: int, seed: int, leaf_rows: list[int] | None = None) -> dict[str, list]:
    """One tree that is one long path which asks for each feature once."""
    random, leaves = np.random.default_rng(seed), features + 1
    left = [~k for k in range(features)]
    right = [*range(1, features), ~features]
    leaf_rows = leaf_rows or random.integers(1, 30, leaves).tolist()
    return {
        "split_feature": random.permutation(features).tolist(),
        "threshold": random.normal(-1, 1, features).tolist(),
        "decision_type": [2] * features,
        "left_child": left,
        "right_child": right,
        "leaf_value": random.normal(0, 1, leaves).tolist(),
        "leaf_count": leaf_rows,
        "internal_count": counted(left, right, leaf_rows),
    }


def by_definition(body: dict[str, list], row: np.ndarray) -> np.ndarray:
    """SHAP values of one row under a `chain`: every leaf's integral on its own, at 64 points,
    without any division.
    """
    points, weights = np.polynomial.legendre.leggauss(64)
    points, weights, found = (points + 1) / 2, weights / 2, np.zeros(len(row))
    features, stop = body["split_feature"], len(body["split_feature"])
    for leaf, value in enumerate(body["leaf_value"]):
        path = [(node, node == leaf) for node in range(min(leaf + 1, stop))]
        shares, follows = [], []
        for node, turns_left in path:
            below = (
                body["leaf_count"][node]
                if turns_left
                else body["internal_count"][node] - body["leaf_count"][node]
            )
            shares.append(below / body["internal_count"][node])
            follows.append(float((row[features[node]] <= body["threshold"][node]) == turns_left))
        factors = np.array([z + points * (o - z) for z, o in zip(shares, follows, strict=True)])
        for k, (node, _) in enumerate(path):
            others = np.delete(factors, k, axis=0).prod(axis=0)
            found[features[node]] += value * (follows[k] - shares[k]) * (weights * others).sum()
    return found


LONG = [EXACT - 1, EXACT, EXACT + 1, 2 * EXACT, 2 * EXACT + 1, 40, 63]


@pytest.mark.parametrize("features", LONG)
def test_paths_of_more_features_than_eight_points_are_exact_for_are_given_more_points(
    features: int,
) -> None:
    names, body = tuple(f"f{k}" for k in range(features)), chain(features, 3)
    text = write([body], names)
    rows = np.random.default_rng(1).normal(0, 1, (15, features)).astype(np.float32)
    explainer = Explainer.from_text(text, names)
    assert len(explainer.tables.walks) == -(-features // EXACT)
    assert (
        np.abs(explainer.values(rows) - [by_definition(body, row) for row in rows]).max() <= 1e-12
    )
    if features <= 40:  # further on LightGBM's own recursion loses its digits
        assert difference(text, rows, names) <= CLOSE


def test_eight_points_would_not_be_exact_for_long_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    names, halving = tuple(f"f{k}" for k in range(28)), [2**k for k in range(28, 0, -1)]
    text = write([chain(28, 1, [*halving, 2])], names)
    rows = np.random.default_rng(1).normal(3, 1, (100, 28)).astype(np.float32)
    assert difference(text, rows, names) <= CLOSE
    monkeypatch.setattr(shap, "EXACT", 64)
    assert difference(text, rows, names) > CLOSE


# -- what cannot be explained
# ---------------------------------------------------------------------


def without(text: str, key: str) -> str:
    return "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith(f"{key}=")
    )


@pytest.mark.parametrize("key", ["internal_count", "leaf_count"])
def test_a_text_without_row_counts_scores_but_is_not_explained(text: str, key: str) -> None:
    plain = without(text, key)
    assert np.isfinite(TreeEnsemble.from_text(plain, NAMES).raw(make_rows(3, 1))).all()
    with pytest.raises(ArtifactError, match="no row counts"):
        Explainer.from_text(plain, NAMES)


@pytest.mark.parametrize(
    ("count", "complaint"),
    [("0", "no training rows"), ("-4", "no training rows"), ("9" * 30, "out of range")],
)
def test_row_counts_that_make_no_sense_are_refused(text: str, count: str, complaint: str) -> None:
    line = next(line for line in text.splitlines() if line.startswith("leaf_count="))
    words = line.partition("=")[2].split()
    changed = text.replace(line, f"leaf_count={' '.join([count, *words[1:]])}", 1)
    with pytest.raises(ArtifactError, match=complaint):
        Explainer.from_text(changed, NAMES)


def test_counts_in_the_wrong_number_are_refused(text: str) -> None:
    line = next(line for line in text.splitlines() if line.startswith("internal_count="))
    with pytest.raises(ArtifactError, match="internal_count has 29 entries"):
        lightgbm_text.parse(text.replace(line, line.rpartition(" ")[0], 1), NAMES)
