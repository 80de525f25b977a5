"""A check that refuses labels which one column decides alone.

A model trained on such a label learns how the label was made, not how apps behave.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

# Balanced accuracy (the AUC of a single yes/no question) from which a column is taken to be the
# label. Chosen: half a percent of noise does not hide that the label was made from the column,
# and no single honest feature comes near it.
DECIDES_ALONE = 0.995
# Words seen less often have a share of positives by accident: a column of unique ids would always
# "decide" the label.
WORD_SEEN_LEAST = 5


class TrainingError(Exception):
    """Training cannot give a usable model; the message says why."""


def check_label(columns: Mapping[str, npt.ArrayLike], label: npt.NDArray[np.bool_]) -> None:
    """Raise TrainingError when the label has only one class, or when one split of one column
    decides it. A split is a threshold for numbers and a set of words for text.

    `columns` are arrays as long as `label`.
    """
    positives = int(label.sum())
    if positives == 0 or positives == len(label):
        raise TrainingError(
            f"the label has one class only: {positives:,} of {len(label):,} rows are positive."
            " Train on data that holds both abusive and honest apps."
        )
    best = {name: best_split_auc(np.asarray(values), label) for name, values in columns.items()}
    worst = max(best, key=lambda name: best[name], default=None)
    if worst is not None and best[worst] >= DECIDES_ALONE:
        raise TrainingError(
            f"the label is degenerate: the column {worst!r} alone decides it (AUC {best[worst]:.4f}"
            " by one split). Remove the column, or get a label that was not made from it."
        )


def best_split_auc(values: np.ndarray, label: npt.NDArray[np.bool_]) -> float:
    """Return the AUC of the best single split of one column, 0.5 to 1.

    Unknown values (NaN) go together to whichever side separates better.
    """
    order = _ordered(values, label)
    unknown = np.isnan(order)
    best = 0.5
    # Missing values alone may give the label away, so NaN is tried on both sides.
    for fill in (-np.inf, np.inf) if unknown.any() else (0.0,):
        best = max(best, _threshold_auc(np.where(unknown, fill, order), label))
    return best


def _ordered(values: np.ndarray, label: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return numbers as they are, and words as their share of positives.

    For words this order contains the best split over all sets of words (Breiman et al. 1984,
    Classification and Regression Trees, section 4.2.2).
    """
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    words, place = np.unique(values.astype(str), return_inverse=True)
    if not len(words):
        return place.astype(np.float64)
    seen = np.bincount(place)
    share = np.bincount(place, weights=label) / seen
    # A rare word counts as undecided: it gets the mean of all rows.
    return np.where(seen >= WORD_SEEN_LEAST, share, float(label.mean()))[place]


def _threshold_auc(order: npt.NDArray[np.float64], label: npt.NDArray[np.bool_]) -> float:
    """Return the AUC of the best threshold on `order`, in either direction; 0.5 when all values
    are equal.
    """
    index = np.argsort(order, kind="stable")
    ordered, positive = order[index], label[index]
    below = np.cumsum(positive) / positive.sum()
    above = np.cumsum(~positive) / (~positive).sum()
    # A threshold lies between different values only; equal ones cannot be parted.
    boundary = np.flatnonzero(ordered[1:] > ordered[:-1])
    if not len(boundary):
        return 0.5
    return float(0.5 + 0.5 * np.abs(below[boundary] - above[boundary]).max())
