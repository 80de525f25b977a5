"""Refuses labels that one column decides alone: such a model learns a definition, not behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

# Balanced accuracy (the AUC of a single yes/no question) from which a column is taken to be the
# label.
DECIDES_ALONE = 0.995


class TrainingError(Exception):
    """Training cannot give a model that may be used; the message says why."""


def check_label(columns: Mapping[str, npt.ArrayLike], label: npt.NDArray[np.bool_]) -> None:
    """Raises TrainingError when the label has one class only, or when one threshold (for text: one
    set of words) on one column tells it. `columns` are arrays as long as `label`.
    """
    positives = int(label.sum())
    if positives == 0 or positives == len(label):
        raise TrainingError(
            f"the label has one class only: {positives:,} of {len(label):,} rows are positive"
        )
    best = {name: best_split_auc(np.asarray(values), label) for name, values in columns.items()}
    worst = max(best, key=lambda name: best[name], default=None)
    if worst is not None and best[worst] >= DECIDES_ALONE:
        raise TrainingError(
            f"the label is degenerate: the column {worst!r} alone decides it (AUC {best[worst]:.4f}"
            " by one split). Remove the column, or get a label that was not made from it."
        )


def best_split_auc(values: np.ndarray, label: npt.NDArray[np.bool_]) -> float:
    """AUC of the best single split of one column, 0.5 to 1. Unknown values (NaN) form a side of
    their own choosing.
    """
    order = _ordered(values, label)
    unknown = np.isnan(order)
    best = 0.5
    for fill in (-np.inf, np.inf) if unknown.any() else (0.0,):
        best = max(best, _stump(np.where(unknown, fill, order), label))
    return best


def _ordered(values: np.ndarray, label: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Numbers as they are; words by their share of positives, which is the order of the best split
    over sets of words (Breiman et al. 1984, Classification and Regression Trees, section 4.2.2).
    """
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    words, place = np.unique(values.astype(str), return_inverse=True)
    share = np.bincount(place, weights=label) / np.bincount(place)
    # Words seen once or twice have a share by accident: a column of unique ids would always
    # "decide".
    return (
        np.where(np.bincount(place) >= 5, share, float(label.mean()))[place]
        if len(words)
        else place.astype(np.float64)
    )


def _stump(order: npt.NDArray[np.float64], label: npt.NDArray[np.bool_]) -> float:
    index = np.argsort(order, kind="stable")
    ordered, positive = order[index], label[index]
    below = np.cumsum(positive) / positive.sum()
    above = np.cumsum(~positive) / (~positive).sum()
    boundary = np.flatnonzero(ordered[1:] > ordered[:-1])
    if not len(boundary):
        return 0.5
    return float(0.5 + 0.5 * np.abs(below[boundary] - above[boundary]).max())


def read_columns(
    rows: Sequence[Mapping[str, str]], drop: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Columns of a table read as text (`csv.DictReader`): numbers where all values are numbers or
    empty, else words.
    """
    names = [n for n in (rows[0] if rows else {}) if n and n not in drop]
    return {name: _column([row[name] for row in rows]) for name in names}


def _column(texts: list[str]) -> np.ndarray:
    try:
        return np.array([float(t) if t else np.nan for t in texts])
    except ValueError:
        return np.array(texts)
