"""Exact SHAP values: ours against LightGBM's `pred_contrib` and `shap.TreeExplainer`, on one model
in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.model_scoring import CONDITIONS, interleaved, make_rows, one_core, train
from decider.scoring import shap as ours
from decider.scoring.shap import Explainer

# Targets: how many times longer each peer takes, for one row and for many; and the largest
# difference in log-odds, as sums of 200 trees in another order differ by less.
ONE_TARGET, MANY_TARGET, CLOSE = 4.0, 6.0, 1e-9
# As many as the global views explain at once.
ROWS = 1000


def measure(rounds: int = 3) -> list[dict[str, object]]:
    """Return the rows: medians of `rounds` interleaved rounds, after one that is not counted."""
    import shap  # takes seconds, and no other part needs it

    ours.warm_up()
    rows = make_rows(100_000)
    booster = train(rows[:40_000])
    explainer, theirs = Explainer.from_text(booster.model_to_string()), shap.TreeExplainer(booster)
    # So that shap walks the trees itself. Otherwise it calls pred_contrib, which takes a third
    # longer.
    theirs.model.model_type = "internal"

    def pred_contrib(some: np.ndarray) -> np.ndarray:
        return np.asarray(booster.predict(some, pred_contrib=True, num_threads=1))

    def tree_explainer(some: np.ndarray) -> np.ndarray:
        return np.asarray(theirs.shap_values(some.astype(np.float64), check_additivity=False))

    with one_core():
        many = rows[:ROWS]
        every = [pred_contrib, tree_explainer]
        return [
            _differences(explainer, pred_contrib(many), tree_explainer(many), many),
            *_compare(
                "one row",
                explainer,
                every,
                [row[None].copy() for row in rows[:100]],
                ONE_TARGET,
                rounds,
            ),
            *_compare(f"{ROWS:,} rows", explainer, every, [many], MANY_TARGET, rounds),
        ]


def _differences(
    explainer: Explainer, contrib: np.ndarray, values: np.ndarray, rows: np.ndarray
) -> dict[str, object]:
    """Return the row of the largest difference from either peer, base included."""
    found = explainer.values(rows)
    worst = max(
        float(np.abs(found - contrib[:, :-1]).max()),
        float(np.abs(explainer.base - contrib[:, -1]).max()),
        float(np.abs(found - values).max()),
    )
    return {
        "name": "shap: largest difference",
        "figure": float(f"{worst:.2g}"),
        "unit": "log-odds",
        "peer": "pred_contrib, TreeExplainer",
        "peer_figure": None,
        "ratio": None,
        "target": f"at most {CLOSE:g}",
        "met": worst <= CLOSE,
        "conditions": f"{CONDITIONS}; every value of {len(rows):,} rows and the base",
    }


def _times_us(
    explainers: Sequence[Callable[[np.ndarray], np.ndarray]],
    batches: list[np.ndarray],
    rounds: int,
) -> list[float]:
    """Return CPU microseconds a row of each explainer."""

    def all_of(explain: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                explain(batch)

        return run

    taken = interleaved(rounds, *map(all_of, explainers))
    return [seconds / sum(map(len, batches)) * 1e6 for seconds in taken]


def _compare(
    what: str,
    explainer: Explainer,
    peers: Sequence[Callable[[np.ndarray], np.ndarray]],
    batches: list[np.ndarray],
    target: float,
    rounds: int,
) -> list[dict[str, object]]:
    """Return one row per peer: microseconds a row, and how many times longer the peer takes."""

    count = sum(map(len, batches))
    own, *others = _times_us((explainer.values, *peers), batches, rounds)
    return [
        {
            "name": f"shap: {what}",
            "figure": round(own, 1),
            "unit": "us/row",
            "peer": peer,
            "peer_figure": round(other, 1),
            "ratio": round(other / own, 1),
            "target": target,
            "met": other / own >= target,
            "conditions": f"{CONDITIONS}; median of {rounds} rounds over {count:,} rows",
        }
        for peer, other in zip(
            ("Booster.predict(pred_contrib)", "shap.TreeExplainer, its own walk"),
            others,
            strict=True,
        )
    ]
