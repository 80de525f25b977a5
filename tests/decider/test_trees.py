"""The compiled evaluator gives LightGBM's own scores, to the bit, and refuses what it cannot
score.
"""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts.artifact import ArtifactError
from decider.scoring import lightgbm_text, trees
from decider.scoring.trees import TreeEnsemble

FEATURES = 9
NAMES = tuple(f"f{i}" for i in range(FEATURES))
TINY = np.float32(1e-35)
SPECIAL = np.array(
    [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -0.0,
        TINY,
        -TINY,
        1e-36,
        -1e-36,
        1e-45,
        -1e-45,
        2e-35,
        -2e-35,
        3.4e38,
        -3.4e38,
    ],
    np.float32,
)
MODELS = {
    "NaN is missing": {},
    "zero is missing": {"zero_as_missing": True},
    "nothing is missing": {"use_missing": False},
    "up to 64 leaves": {"num_leaves": 64, "min_data_in_leaf": 2},
    "33 leaves": {"num_leaves": 33},
    "two leaves": {"num_leaves": 2},
    "many bins": {"max_bin": 2000, "min_data_in_bin": 1},
    "dart": {"boosting": "dart", "drop_rate": 0.5},
    "high shrinkage": {"learning_rate": 0.9},
    "boosted from a far average": {"objective": "regression"},
    "started from zero": {"boost_from_average": False},
}


def make_rows(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.exp(random.normal(0, 2, (count, FEATURES))).astype(np.float32)
    rows[:, 1] *= random.choice([-1, 1], count)
    rows[:, 2] = np.round(rows[:, 2])
    rows[:, 3] = random.integers(0, 4, count)
    rows[random.random(rows.shape) < 0.08] = 0.0
    rows[:, :-1][random.random((count, FEATURES - 1)) < 0.06] = np.nan
    return rows


def train(seed: int = 3, rounds: int = 60, **more: object) -> lgb.Booster:
    rows = make_rows(6000, seed)
    filled = np.nan_to_num(rows.astype(np.float64), nan=-1.0)
    target = (
        np.log1p(np.abs(filled)) @ np.arange(1, FEATURES + 1)
        + 4 * np.isnan(rows[:, 0])
        + np.sin(filled[:, 4])
    )
    if more.get("objective") != "regression":
        target = target > np.median(target)
    options = {
        "objective": "binary",
        "num_leaves": 31,
        "verbose": -1,
        "num_threads": 1,
        "seed": seed,
        **more,
    }
    data = lgb.Dataset(rows, target.astype(np.float64), feature_name=list(NAMES), params=options)
    return lgb.train(options, data, rounds)


def hard_rows(text: str, count: int) -> np.ndarray:
    """Rows of which many values are special or lie exactly on, just under or just over a
    threshold.
    """
    rows, random = make_rows(count, 11), np.random.default_rng(5)
    for tree in lightgbm_text.parse(text, NAMES):
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True):
            near = np.float32(np.clip(threshold, -3.4e38, 3.4e38))
            picked = random.integers(0, count, 6)
            rows[picked, feature] = np.repeat(
                [near, np.nextafter(near, np.float32(-9e9)), np.nextafter(near, np.float32(9e9))], 2
            )
    special = random.random(rows.shape) < 0.1
    rows[special] = random.choice(SPECIAL, special.sum())
    return rows


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(np.asarray(left).view(np.int64), np.asarray(right).view(np.int64))


@pytest.fixture(scope="module")
def text() -> str:
    return train(rounds=20).model_to_string()


@pytest.mark.parametrize("kind", MODELS)
def test_raw_scores_equal_lightgbm_to_the_bit(kind: str) -> None:
    booster = train(**MODELS[kind])
    text = booster.model_to_string()
    rows = hard_rows(text, 12_000)
    assert same_bits(
        TreeEnsemble.from_text(text, NAMES).raw(rows),
        booster.predict(rows, raw_score=True, num_threads=1),
    )


def test_a_hundred_thousand_rows_with_missing_values_equal_lightgbm_to_the_bit() -> None:
    booster = train(rounds=200)
    rows = hard_rows(booster.model_to_string(), 100_000)
    assert np.isnan(rows).any(axis=1).mean() > 0.3
    ensemble = TreeEnsemble.from_text(booster.model_to_string(), NAMES)
    assert ensemble.trees == 200
    assert same_bits(ensemble.raw(rows), booster.predict(rows, raw_score=True))


def test_a_model_that_never_splits_scores_its_average() -> None:
    booster = train(min_data_in_leaf=5000)
    assert "num_leaves=1\n" in booster.model_to_string()
    rows = make_rows(10, 1)
    assert same_bits(
        TreeEnsemble.from_text(booster.model_to_string(), NAMES).raw(rows),
        booster.predict(rows, raw_score=True),
    )


def test_an_infinite_threshold_splits_nan_from_all_else() -> None:
    rows = make_rows(4000, 2)
    booster = lgb.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1},
        lgb.Dataset(rows, np.isnan(rows[:, 0]).astype(float), feature_name=list(NAMES)),
        3,
    )
    assert "inf" in next(
        line for line in booster.model_to_string().splitlines() if line.startswith("threshold=")
    )
    hard = hard_rows(booster.model_to_string(), 3000)
    assert same_bits(
        TreeEnsemble.from_text(booster.model_to_string(), NAMES).raw(hard),
        booster.predict(hard, raw_score=True),
    )


def test_one_row_scores_as_it_does_among_many(text: str) -> None:
    ensemble, rows = TreeEnsemble.from_text(text, NAMES), hard_rows(text, 300)
    scratch = trees.new_scratch(rows=1)
    alone = [trees.score_row(row, *ensemble.tables, scratch) for row in rows]
    assert same_bits(np.array(alone), ensemble.raw(rows))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 257, 600])
def test_only_the_listed_rows_are_scored(text: str, count: int) -> None:
    ensemble, rows = TreeEnsemble.from_text(text, NAMES), hard_rows(text, 700)
    index = np.random.default_rng(count).permutation(700)
    out = np.full(700, 99.0)
    trees.score_rows(rows, index, count, out, *ensemble.tables, trees.new_scratch())
    listed = index[:count]
    assert same_bits(out[listed], ensemble.raw(rows)[listed])
    assert (np.delete(out, listed) == 99.0).all()


def test_rows_of_another_shape_or_type_are_refused(text: str) -> None:
    ensemble = TreeEnsemble.from_text(text, NAMES)
    for rows in (
        np.zeros((2, FEATURES)),
        np.zeros(FEATURES, np.float32),
        np.zeros((2, FEATURES + 1), np.float32),
    ):
        with pytest.raises(ValueError, match="rows must be float32"):
            ensemble.raw(rows)


def test_rows_that_are_strided_or_read_only_score_the_same(text: str) -> None:
    ensemble, rows = TreeEnsemble.from_text(text, NAMES), make_rows(40, 4)
    frozen = rows.copy()
    frozen.flags.writeable = False
    assert same_bits(ensemble.raw(frozen), ensemble.raw(rows))
    assert same_bits(ensemble.raw(rows[::2]), ensemble.raw(rows)[::2])


# -- trees made by hand, with anything in them
# ---------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(-1e3, 1e3, width=64),
    st.sampled_from(
        [
            0.0,
            -0.0,
            1e-35,
            -1e-35,
            float(TINY),
            -float(TINY),
            5e-36,
            -5e-36,
            1e-300,
            0.1,
            1e300,
            -1e300,
            16777217.0,
        ]
    ),
)


@st.composite
def written_trees(draw: st.DrawFn) -> str:
    """A text model of one to three trees with any shape, thresholds and rules for missing
    values.
    """
    return write([draw(one_tree()) for _ in range(draw(st.integers(1, 3)))])


@st.composite
def one_tree(draw: st.DrawFn) -> str:
    leaves = draw(st.integers(2, 40))
    left, right = [-1], [-2]
    for node in range(1, leaves - 1):
        leaf = ~draw(st.integers(0, node))
        side = left if leaf in left else right
        side[side.index(leaf)] = node
        left.append(leaf)
        right.append(~(node + 1))
    nodes = leaves - 1
    lists = {
        "split_feature": draw(st.lists(st.integers(0, 2), min_size=nodes, max_size=nodes)),
        "threshold": draw(st.lists(NUMBERS, min_size=nodes, max_size=nodes)),
        "decision_type": draw(
            st.lists(st.sampled_from([0, 2, 4, 6, 8, 10]), min_size=nodes, max_size=nodes)
        ),
        "left_child": left,
        "right_child": right,
        "leaf_value": draw(st.lists(st.floats(-2, 2), min_size=leaves, max_size=leaves)),
    }
    body = "".join(f"{key}={' '.join(map(repr, values))}\n" for key, values in lists.items())
    return f"num_leaves={leaves}\nnum_cat=0\n{body}is_linear=0\nshrinkage=1\n\n\n"


def write(bodies: list[str]) -> str:
    sections = [f"Tree={number}\n{body}" for number, body in enumerate(bodies)]
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={FEATURES - 1}\nobjective=regression\n"
        f"feature_names={' '.join(NAMES)}\nfeature_infos={' '.join(['none'] * FEATURES)}\n"
        f"tree_sizes={' '.join(str(len(section)) for section in sections)}\n\n"
    )
    return (
        head
        + "".join(sections)
        + "end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n"
    )


@settings(max_examples=40, deadline=None)
@given(text=written_trees(), seed=st.integers(0, 2**32 - 1))
def test_any_well_formed_tree_scores_as_in_lightgbm(text: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    near = (
        np.concatenate([tree.threshold for tree in lightgbm_text.parse(text, NAMES)])
        .clip(-3e38, 3e38)
        .astype(np.float32)
    )
    pool = np.concatenate(
        [SPECIAL, near, np.nextafter(near, np.float32(-9e9)), np.nextafter(near, np.float32(9e9))]
    )
    rows = random.choice(pool, (200, FEATURES))
    wanted = lgb.Booster(model_str=text).predict(rows, raw_score=True, num_threads=1)
    assert same_bits(TreeEnsemble.from_text(text, NAMES).raw(rows), wanted)


# -- hostile text
# ---------------------------------------------------------------------


def edit(text: str, key: str, change: object) -> str:
    """The text with the value of the first `key=` line changed by a function of its words."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}="))
    words = lines[at].partition("=")[2].split()
    lines[at] = f"{key}={' '.join(change(words))}"
    return "\n".join(lines) + "\n"


def without(text: str, key: str) -> str:
    lines = text.splitlines()
    del lines[next(i for i, line in enumerate(lines) if line.startswith(f"{key}="))]
    return "\n".join(lines) + "\n"


REFUSALS = {
    "not a model": (lambda t: "hello", "end of trees"),
    "empty": (lambda t: "", "end of trees"),
    "cut short": (lambda t: t[: len(t) // 3], "cut short"),
    "another first line": (lambda t: "x" + t, "first line"),
    "another version": (lambda t: t.replace("version=v4", "version=v9"), "version"),
    "several classes": (lambda t: t.replace("num_class=1", "num_class=3"), "num_class"),
    "averaged output": (
        lambda t: t.replace("label_index=0", "label_index=0\naverage_output"),
        "averaged output",
    ),
    "too few trees": (lambda t: edit(t, "tree_sizes", lambda w: w[1:]), "holds 20 trees"),
    "too many trees": (lambda t: edit(t, "tree_sizes", lambda w: ["1"] * 2001), "2001 trees"),
    "another number of features": (
        lambda t: edit(t, "max_feature_idx", lambda w: ["7"]),
        "max_feature_idx",
    ),
    "a feature fewer": (lambda t: edit(t, "feature_names", lambda w: w[1:]), "8 feature names"),
    "other names": (
        lambda t: edit(t, "feature_names", lambda w: [*w[:-1], "zz"]),
        "'zz', expected 'f8'",
    ),
    "features in another order": (
        lambda t: edit(t, "feature_names", lambda w: w[::-1]),
        "feature 0 is named",
    ),
    "a missing header key": (lambda t: without(t, "feature_names"), "feature_names is missing"),
    "a missing tree key": (lambda t: without(t, "threshold"), "tree 0: threshold is missing"),
    "a key twice": (lambda t: t.replace("num_cat=0", "num_cat=0\nnum_cat=1", 1), "appears twice"),
    "trees out of order": (lambda t: t.replace("Tree=3\n", "Tree=4\n"), "tree 3: found number '4'"),
    "too many leaves": (lambda t: edit(t, "num_leaves", lambda w: ["65"]), "65 leaves"),
    "no leaves": (lambda t: edit(t, "num_leaves", lambda w: ["0"]), "0 leaves"),
    "fewer leaves than told": (
        lambda t: edit(t, "leaf_value", lambda w: w[1:]),
        "leaf_value has 30",
    ),
    "a categorical tree": (lambda t: edit(t, "num_cat", lambda w: ["1"]), "categorical"),
    "a categorical node": (
        lambda t: edit(t, "decision_type", lambda w: ["1", *w[1:]]),
        "categorical",
    ),
    "an unknown decision": (
        lambda t: edit(t, "decision_type", lambda w: ["12", *w[1:]]),
        "decision type",
    ),
    "a linear tree": (lambda t: edit(t, "is_linear", lambda w: ["1"]), "linear"),
    "an unknown feature": (
        lambda t: edit(t, "split_feature", lambda w: ["9", *w[1:]]),
        "outside 0 to 8",
    ),
    "a negative feature": (
        lambda t: edit(t, "split_feature", lambda w: ["-1", *w[1:]]),
        "outside 0 to 8",
    ),
    "a NaN threshold": (lambda t: edit(t, "threshold", lambda w: ["nan", *w[1:]]), "not a number"),
    "a threshold below all": (
        lambda t: edit(t, "threshold", lambda w: ["-inf", *w[1:]]),
        "not finite",
    ),
    "a threshold that overflows": (
        lambda t: edit(t, "threshold", lambda w: ["1e999", *w[1:]]),
        "not finite",
    ),
    "an infinite leaf": (lambda t: edit(t, "leaf_value", lambda w: ["inf", *w[1:]]), "not finite"),
    "a number with dots": (
        lambda t: edit(t, "threshold", lambda w: ["1.2.3", *w[1:]]),
        "'1.2.3', not a number",
    ),
    "a number with underscores": (
        lambda t: edit(t, "leaf_value", lambda w: ["1_0", *w[1:]]),
        "not a number",
    ),
    "other digits": (lambda t: edit(t, "leaf_value", lambda w: ["٣", *w[1:]]), "not a number"),
    "a child far away": (lambda t: edit(t, "left_child", lambda w: ["30", *w[1:]]), "out of range"),
    "a leaf far away": (
        lambda t: edit(t, "right_child", lambda w: ["-32", *w[1:]]),
        "out of range",
    ),
    "a child without end": (
        lambda t: edit(t, "left_child", lambda w: ["9" * 400, *w[1:]]),
        "out of range",
    ),
    "a cycle": (lambda t: edit(t, "left_child", lambda w: [*w[:-1], "2"]), "its own ancestor"),
    "a node reached twice": (
        lambda t: edit(t, "left_child", lambda w: ["29", *w[1:]]),
        "reached twice",
    ),
    "a line that is no field": (
        lambda t: t.replace("num_cat=0", "num_cat=0\n<script>", 1),
        "not key=value",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_hostile_text_is_refused_with_what_is_wrong(text: str, kind: str) -> None:
    change, complaint = REFUSALS[kind]
    with pytest.raises(ArtifactError, match=complaint):
        TreeEnsemble.from_text(change(text), NAMES)


def test_an_endless_text_is_refused_unread() -> None:
    with pytest.raises(ArtifactError, match="longer than"):
        TreeEnsemble.from_text("x" * (lightgbm_text.MAX_TEXT + 1), NAMES)


def test_tables_that_would_not_fit_in_memory_are_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(trees, "MAX_MASK_WORDS", 1000)
    with pytest.raises(ArtifactError, match="MiB of masks"):
        TreeEnsemble.from_text(text, NAMES)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), junk=st.text(max_size=6), dropped=st.integers(0, 40))
def test_damage_anywhere_is_refused_or_harmless(
    text: str, place: float, junk: str, dropped: int
) -> None:
    at = int(place * text.index("end of trees"))
    damaged = text[:at] + junk + text[at + dropped :]
    try:
        ensemble = TreeEnsemble.from_text(damaged, NAMES)
    except ArtifactError:
        return
    assert np.isfinite(ensemble.raw(make_rows(20, 1))).all()
