"""Exact TreeSHAP of a LightGBM ensemble: the values of `Booster.predict(pred_contrib=True)`,
several times faster.

A leaf's SHAP value for a feature f on its path is its value times (o_f - z_f) times the integral
over t from 0 to 1 of the product, over the path's other features g, of z_g + t (o_g - z_g). Here z
is the share of the training rows that follow the path at the splits on the feature (path-dependent
TreeSHAP, Lundberg et al. 2020, From local explanations to global understanding), and o says whether
the row itself follows them. The integrand is a polynomial of a degree below the number of distinct
features on the path, so Gauss-Legendre quadrature at 8 points is exact, but for rounding, for 16
features. A tree with longer paths is walked once for each further 8 points of a larger rule.

A product of factors at fixed points can be divided by any one of its factors. So one pass down the
edges multiplies the factors on and one pass up sums the leaves and takes each feature's factor off
again: Linear TreeSHAP (Yu et al. 2022, Linear TreeShap), which keeps the polynomial by its values
at points as here. An edge has three cases: the row follows it; it does not; it had left the path at
an earlier split on the feature, where nothing is added. What the passes multiply by in each of them
does not depend on the row and is kept in a table, so the passes hold no division and no branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from decider.contracts.artifact import ArtifactError
from decider.contracts.features import N_FEATURES, NAMES
from decider.scoring import lightgbm_text
from decider.scoring.lightgbm_text import MAX_LEAVES, Tree
from decider.scoring.trees import ZERO, edges_of, usable_rows

# Quadrature points of one walk: one AVX-512 register of float64, or two of AVX2.
POINTS = 8
# Distinct features on a path up to which POINTS points are exact.
EXACT = 2 * POINTS
# Rows that are explained side by side, so that a tree's tables are read from the nearest cache.
BLOCK = 32
# Nodes and leaves of one tree.
SLOTS = 2 * MAX_LEAVES

# columns of Tables.plan
FEATURE, LEFT, RIGHT, ENTRY, CASES, BEFORE, NAN_LEFT, ZERO_LEFT = range(8)
# Value of ZERO_LEFT for a node where zero is a value like any other.
FOLLOW = -1


class Tables(NamedTuple):
    """A compiled ensemble. Pass it unpacked from Python; all arrays are writable and C-contiguous
    (see `trees.Tables`).
    """

    plan: NDArray[np.int32]
    """(nodes, 8), walk by walk: feature; places of the children in `work`; first row in `table`;
    cases of an edge, 2 or 3; place in `on` of the edge that split on the feature before, 0 for
    none; whether NaN goes left; whether zero does.
    """
    cuts: NDArray[np.float32]
    """(nodes,) a value goes left if it is <= this."""
    walks: NDArray[np.int64]
    """(walks, 2): first node and number of nodes."""
    table: NDArray[np.float64]
    """(edges x cases, 2 x POINTS): by what the path's product is multiplied, and by what the sum of
    leaves counts for the feature. Cases: 0 not followed, 1 followed, 2 had left the path before.
    """


# -- instructions that numba does not write by itself
# ---------------------------------------------------------------------

# numba's tools for writing LLVM instructions carry no types
instruction: Callable[[Callable[..., Any]], Any] = intrinsic
cg: Any = cgutils
_LANES = ir.VectorType(ir.DoubleType(), POINTS)


def _place(
    context: Any, builder: ir.IRBuilder, kind: types.Array, array: ir.Value, at: ir.Value
) -> ir.Value:
    """Return a pointer to the POINTS float64 at array[at:]."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(cg.gep(builder, data, at), _LANES.as_pointer())


@instruction
def _fan(_: Any, work: Any, at: Any, table: Any, a: Any, b: Any, left: Any, right: Any) -> Any:
    """Multiply work[at:] onto both edges of a node: down the tree.

    `_fan(work, at, table, a, b, left, right)` sets work[left:] = work[at:] * table[a:] and
    work[right:] = work[at:] * table[b:]; POINTS entries each, of flat arrays.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        def of(which: int, place: int) -> ir.Value:
            return _place(context, builder, signature.args[which], args[which], args[place])

        product = builder.load(of(0, 1), align=8)
        first, second = (builder.fmul(product, builder.load(of(2, k), align=8)) for k in (3, 4))
        builder.store(first, of(0, 5), align=8)
        builder.store(second, of(0, 6), align=8)
        return context.get_dummy_value()

    return (
        types.void(work, types.int64, table, types.int64, types.int64, types.int64, types.int64),
        generate,
    )


@instruction
def _gather(
    _: Any,
    work: Any,
    at: Any,
    table: Any,
    a: Any,
    b: Any,
    left: Any,
    right: Any,
    sums: Any,
    to: Any,
) -> Any:
    """Add up the leaves below both edges of a node: up the tree.

    `_gather(work, at, table, a, b, left, right, sums, to)`, with l = work[left:] and r =
    work[right:], sets sums[to:] += table[a:] * l + table[b:] * r and work[at:] = l + r; POINTS
    entries each, of flat arrays.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        def of(which: int, place: int) -> ir.Value:
            return _place(context, builder, signature.args[which], args[which], args[place])

        below = [builder.load(of(0, k), align=8) for k in (5, 6)]
        parts = [
            builder.fmul(leaves, builder.load(of(2, k), align=8))
            for leaves, k in zip(below, (3, 4), strict=True)
        ]
        total = builder.fadd(builder.load(of(7, 8), align=8), builder.fadd(*parts))
        builder.store(total, of(7, 8), align=8)
        builder.store(builder.fadd(*below), of(0, 1), align=8)
        return context.get_dummy_value()

    place = types.int64
    return types.void(work, place, table, place, place, place, place, sums, place), generate


# -- explaining
# ---------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _goes_left(value: float, cut: float, nan_left: int, zero_left: int) -> np.int64:
    """Return 1 if a value goes left, else 0, as in LightGBM's `Tree::NumericalDecision`."""
    left = np.int64(value <= cut)
    if value != value:
        left = np.int64(nan_left)
    if zero_left >= 0 and abs(value) <= ZERO:
        left = np.int64(zero_left)
    return left


@njit(cache=True, nogil=True)
def _walk(
    row: Any,
    plan: Any,
    cuts: Any,
    first: int,
    count: int,
    table: Any,
    work: Any,
    on: Any,
    taken: Any,
    sums: Any,
    to: int,
) -> None:
    """Add one walk over one tree to sums[to:], flat (F x POINTS).

    `work`, `on` and `taken` are scratch; on[0] must be 1: the edge "before" where there is none.
    """
    wide = 2 * POINTS
    work[:POINTS] = 1.0
    for k in range(count):
        n = first + k
        left = _goes_left(row[plan[n, FEATURE]], cuts[n], plan[n, NAN_LEFT], plan[n, ZERO_LEFT])
        alive = on[plan[n, BEFORE]]
        entry, cases = np.int64(plan[n, ENTRY]), np.int64(plan[n, CASES])
        a = wide * (entry + (left if alive else 2))
        b = wide * (entry + cases + (1 - left if alive else 2))
        on[2 * k + 1], on[2 * k + 2] = left & alive, (1 - left) & alive
        taken[2 * k], taken[2 * k + 1] = a, b
        _fan(work, k * POINTS, table, a, b, np.int64(plan[n, LEFT]), np.int64(plan[n, RIGHT]))
    # backwards: a child has the higher number, so its sum is ready
    for k in range(count - 1, -1, -1):
        n = first + k
        a, b = taken[2 * k] + POINTS, taken[2 * k + 1] + POINTS
        place = to + np.int64(plan[n, FEATURE]) * POINTS
        to_left, to_right = np.int64(plan[n, LEFT]), np.int64(plan[n, RIGHT])
        _gather(work, k * POINTS, table, a, b, to_left, to_right, sums, place)


@njit(cache=True, nogil=True)
def explain_rows(rows: Any, out: Any, plan: Any, cuts: Any, walks: Any, table: Any) -> None:
    """Set out[i], float64 (n, F), to the SHAP values of rows[i], float32 (n, F).

    `table`: `Tables.table`, flat. Arguments are not checked.
    """
    features = rows.shape[1]
    work, sums = np.empty(SLOTS * POINTS), np.empty(BLOCK * features * POINTS)
    on, taken = np.ones(SLOTS, np.int64), np.empty(SLOTS, np.int64)
    for start in range(0, len(rows), BLOCK):
        count = min(BLOCK, len(rows) - start)
        sums[: count * features * POINTS] = 0.0
        for w in range(len(walks)):
            first, nodes = walks[w, 0], walks[w, 1]
            for i in range(count):
                row, place = rows[start + i], i * features * POINTS
                _walk(row, plan, cuts, first, nodes, table, work, on, taken, sums, place)
        for i in range(count):
            for feature in range(features):
                place = (i * features + feature) * POINTS
                out[start + i, feature] = sums[place : place + POINTS].sum()


# -- building
# ---------------------------------------------------------------------


class _Paths(NamedTuple):
    """What the path to each edge of a tree says about it; the edges of node n are 2 n and 2 n +
    1.
    """

    share: NDArray[np.float64]
    """Share of the rows at the node that take the edge."""
    before: NDArray[np.int64]
    """The edge above it that split on the same feature last, -1 for none."""
    distinct: NDArray[np.int64]
    """Distinct features on the path, this edge included."""


@njit(cache=True)
def _paths_of(feature: Any, left: Any, right: Any, node_rows: Any, leaf_rows: Any) -> Any:
    nodes = len(feature)
    share, before, distinct = (
        np.empty(2 * nodes),
        np.full(2 * nodes, -1),
        np.zeros(2 * nodes, np.int64),
    )
    above = np.full(nodes, -1)
    for node in range(nodes):
        last = above[node]
        while last >= 0 and feature[last // 2] != feature[node]:
            last = above[last // 2]
        known = distinct[above[node]] if above[node] >= 0 else 0
        for edge in (2 * node, 2 * node + 1):
            child = left[node] if edge == 2 * node else right[node]
            share[edge] = (node_rows[child] if child >= 0 else leaf_rows[~child]) / node_rows[node]
            before[edge] = last
            distinct[edge] = known + (last < 0)
            if child >= 0:
                above[child] = edge
    return share, before, distinct


def _paths(tree: Tree) -> _Paths:
    nodes = len(tree.feature)
    if len(tree.node_rows) != nodes or len(tree.leaf_rows) != nodes + 1:
        raise ArtifactError(
            "the model text has no row counts (internal_count, leaf_count), which SHAP values need"
        )
    if tree.node_rows.min() < 1 or tree.leaf_rows.min() < 1:
        raise ArtifactError(
            "a node or leaf of the model has no training rows, so its SHAP values are not defined"
        )
    return _Paths(*_paths_of(tree.feature, tree.left, tree.right, tree.node_rows, tree.leaf_rows))


def _cases(
    tree: Tree, paths: _Paths, points: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Return rows of `Tables.table`, (cases, 2 x POINTS), for each edge of a tree.

    `points`: POINTS of the quadrature, in (0, 1); `weights`: theirs.
    """
    again = paths.before >= 0
    z = paths.share.copy()
    for edge in np.flatnonzero(again):
        z[edge] *= z[paths.before[edge]]  # a lower number, so it is final
    earlier = np.where(again, z[paths.before], 1.0)[:, None]
    z = z[:, None]
    followed, missed = z + points * (1.0 - z), z * (1.0 - points)
    before = earlier + points * (1.0 - earlier)
    # zero where there was no split on the feature before
    taken_off = weights * (1.0 - earlier) / before
    times = np.stack(
        [missed / before, followed / before, np.broadcast_to(paths.share[:, None], followed.shape)],
        axis=1,
    )
    counts = np.stack(
        [
            -weights / (1.0 - points) - taken_off,
            weights * (1.0 - z) / followed - taken_off,
            np.zeros_like(followed),
        ],
        axis=1,
    )
    children = np.stack([tree.left, tree.right], axis=1).ravel()
    times[children < 0] *= tree.leaf[~children[children < 0]][:, None, None]
    both = np.concatenate([times, counts], axis=2)
    return [case[: 3 if twice else 2] for case, twice in zip(both, again, strict=True)]


def _plan(tree: Tree, paths: _Paths, entry: int) -> NDArray[np.int32]:
    """Return `Tables.plan` of one tree whose rows in `table` begin at `entry`."""
    nodes = len(tree.feature)
    plan = np.zeros((nodes, 8), np.int32)
    places = [
        np.where(child >= 0, child, nodes + ~child) * POINTS for child in (tree.left, tree.right)
    ]
    cases = np.where(paths.before[::2] >= 0, 3, 2)
    missing, default_left = tree.decision >> 2, (tree.decision & 2) != 0
    plan[:, FEATURE], plan[:, LEFT], plan[:, RIGHT] = tree.feature, *places
    plan[:, ENTRY], plan[:, CASES] = entry + np.cumsum(2 * cases) - 2 * cases, cases
    plan[:, BEFORE] = paths.before[::2] + 1
    # where nothing is missing, LightGBM reads NaN as 0.0
    plan[:, NAN_LEFT] = np.where(missing == 0, tree.threshold >= 0.0, default_left)
    plan[:, ZERO_LEFT] = np.where(missing == 1, default_left, FOLLOW)
    return plan


def build(trees: Sequence[Tree]) -> Tables:
    """Return the tables of checked trees (`lightgbm_text.parse`).

    Raises ArtifactError when the text lacks what SHAP values need.
    """
    # each begins with an empty array, as a model of single leaves has nothing to join
    plans, cuts, walks, cases = (
        [np.empty((0, 8), np.int32)],
        [np.empty(0, np.float32)],
        [],
        [np.empty((0, 2 * POINTS))],
    )
    nodes = entry = 0
    for tree in trees:
        if not len(tree.feature):
            continue
        paths, edges = _paths(tree), edges_of(tree.threshold)
        blocks = -(-int(paths.distinct.max()) // EXACT)
        points, weights = np.polynomial.legendre.leggauss(blocks * POINTS)
        for block in range(blocks):
            here = slice(block * POINTS, (block + 1) * POINTS)
            rows = _cases(tree, paths, (points[here] + 1.0) / 2.0, weights[here] / 2.0)
            plans.append(_plan(tree, paths, entry))
            cuts.append(edges)
            walks.append((nodes, len(edges)))
            cases += rows
            nodes, entry = nodes + len(edges), entry + sum(map(len, rows))
    table = _aligned(np.concatenate(cases).ravel())
    return Tables(
        np.concatenate(plans), np.concatenate(cuts), np.array(walks, np.int64).reshape(-1, 2), table
    )


def _aligned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a copy that begins at a cache line, which no vector of POINTS then straddles."""
    room = np.empty(len(values) + 8)
    skip = (-room.ctypes.data % 64) // 8
    room[skip : skip + len(values)] = values
    return room[skip : skip + len(values)]


def _expected(tree: Tree) -> float:
    """Return what a tree adds to the raw score on average over its training rows."""
    return (
        float(tree.leaf[0])
        if len(tree.leaf) == 1
        else float((tree.leaf_rows / tree.node_rows[0] * tree.leaf).sum())
    )


class Explainer:
    """SHAP values of one LightGBM model. May be used by several threads at once."""

    def __init__(self, trees: Sequence[Tree], features: int) -> None:
        """Build the tables. Raises ArtifactError when the trees' text has no row counts."""
        self.features = features
        self.tables = build(trees)
        self.base = sum(map(_expected, trees))
        """Mean raw score over the training rows, log-odds. A row's raw score is this plus its SHAP
        values.
        """

    @classmethod
    def from_text(cls, text: str, names: Sequence[str] = NAMES) -> Explainer:
        """Return the explainer of a LightGBM text model for the columns `names`.

        Raises ArtifactError that says what is wrong.
        """
        return cls(lightgbm_text.parse(text, names), len(names))

    def values(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the SHAP values (n, F), log-odds, of float32 rows (n, F).

        Raises ValueError for another shape or dtype.
        """
        rows = usable_rows(rows, self.features)
        out = np.empty(rows.shape)
        explain_rows(rows, out, *self.tables)
        return out


def warm_up() -> None:
    """Compile all of this module, or load it from numba's cache."""
    node, rows = np.zeros(1, np.int32), np.ones(1)
    stump = Tree(
        node, np.zeros(1), node, ~node, ~node - 1, np.array([0.25, 0.5]), 2 * rows, np.ones(2)
    )
    Explainer([stump], N_FEATURES).values(np.zeros((1, N_FEATURES), np.float32))
