"""LightGBM ensembles scored with bin masks, bit-equal to `Booster.predict(raw_score=True)`.

No tree is walked. A value falls into a bin between the distinct thresholds of its feature. For each
bin there is one 32-bit word per tree; its bits are the leaves that such a value can still reach.
The words of all features are ANDed; the one bit that is left is the leaf, and the leaf values are
added in tree order in float64, as LightGBM adds them. After Lucchese et al. (2015), QuickScorer,
and Ye et al. (2018), RapidScorer, with the comparisons made per bin once and for all when the
tables are built.

A tree of 33 to 64 leaves takes two words, one per half of its leaves; the half without the leaf
adds an exact 0.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from decider.contracts.artifact import ArtifactError
from decider.contracts.features import N_FEATURES, NAMES
from decider.scoring import lightgbm_text
from decider.scoring.lightgbm_text import Tree

# Words of one step of the AND loop: four AVX2 registers, two cache lines. `masks` is padded to it.
WIDTH = 32
# Rows added up side by side, so that their chains of float64 additions overlap: an addition takes
# some cycles, and the next one of the same row must wait for it. `_add_lanes` names four sums.
LANES = 4
# Rows whose bins are found before their masks are ANDed: as many as the HTTP server puts in one
# batch (`http.batcher.MAX_BATCH`), and few enough that their bins stay in the cache.
CHUNK = 256
# Leaf values per word: one for each bit, and 0.0 for "none of them".
STRIDE = 33
# 128 MiB. Chosen: a larger model would be slow as well, because its masks fit no cache.
MAX_MASK_WORDS = 32 * 1024 * 1024
# LightGBM's kZeroThreshold: a value no farther from zero than this is zero.
ZERO = np.float32(1e-35)
# The next float32 below the range that counts as zero.
UNDER_ZERO = np.nextafter(-ZERO, np.float32(-np.inf))


class Tables(NamedTuple):
    """A compiled ensemble. Everything compiled code needs, as few flat arrays.

    From Python pass them unpacked, `score_row(row, *tables, scratch)`: numba unpacks four arrays
    three times faster than a named tuple of them. Compiled code names them one by one. All arrays
    must be writable and C-contiguous, or numba compiles the callers again for the other kind.
    """

    plan: NDArray[np.int64]
    """(used features, 6): column of the feature; start of its fine and of its coarse edges in
    `edges`; blocks of 16 coarse edges; row of its first bin in `masks`; row of its NaN bin.
    """
    edges: NDArray[np.float32]
    """Thresholds rounded down to float32, in blocks of 16 padded with +inf: fine edges, and every
    16th as coarse ones.
    """
    masks: NDArray[np.uint32]
    """(bins of all features, words): leaves that stay reachable; words padded to a multiple of
    WIDTH.
    """
    leaves: NDArray[np.float64]
    """(words, STRIDE) leaf values, 0.0 behind the last."""


def new_scratch(features: int = N_FEATURES, rows: int = CHUNK) -> NDArray[np.uint32]:
    """Return working memory for one thread at a time to score up to `rows` rows a chunk:
    LANES * WIDTH words, then the bins of those rows. Nothing is read that was not written before.
    """
    return np.empty(LANES * WIDTH + min(CHUNK, max(rows, 1)) * max(features, 1), np.uint32)


# -- instructions that numba does not write by itself
# ---------------------------------------------------------------------


# numba's tools for writing LLVM instructions carry no types
instruction: Callable[[Callable[..., Any]], Any] = intrinsic
cg: Any = cgutils


def _data(context: Any, builder: ir.IRBuilder, kind: types.Array, value: ir.Value) -> ir.Value:
    return context.make_array(kind)(context, builder, value).data


@instruction
def _below(_: Any, edges: Any, start: Any, value: Any) -> Any:
    """Count how many of edges[start:start + 16] are below value, none for NaN.

    Compiled code calls `_below(edges, start, value)`.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        lanes = ir.VectorType(ir.FloatType(), 16)
        place = cg.gep(builder, _data(context, builder, signature.args[0], args[0]), args[1])
        block = builder.load(builder.bitcast(place, lanes.as_pointer()), align=4)
        empty = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(empty, args[2], ir.Constant(ir.IntType(32), 0))
        spread = builder.shuffle_vector(
            first, empty, ir.Constant(ir.VectorType(ir.IntType(32), 16), [0] * 16)
        )
        bits = builder.bitcast(builder.fcmp_ordered("<", block, spread), ir.IntType(16))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(edges, types.int64, types.float32), generate


@instruction
def _reach(
    _: Any, masks: Any, word: Any, bins: Any, start: Any, count: Any, out: Any, at: Any
) -> Any:
    """Set out[at:at + WIDTH] to the AND of masks[b, word:word + WIDTH] over the bins b.

    The bins are the `count` ones in bins[start:]. Compiled code calls `_reach(masks, word, bins,
    start, count, out, at)`. The accumulator stays in registers.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        lanes = ir.VectorType(ir.IntType(32), WIDTH)
        table = context.make_array(signature.args[0])(context, builder, args[0])
        row_words = cg.unpack_tuple(builder, table.shape)[1]
        origin = cg.gep(builder, table.data, args[1])
        rows = cg.gep(builder, _data(context, builder, signature.args[2], args[2]), args[3])
        kept = cg.alloca_once(builder, lanes)
        builder.store(ir.Constant(lanes, [0xFFFFFFFF] * WIDTH), kept)
        with cg.for_range(builder, args[4]) as loop:
            row = builder.zext(builder.load(cg.gep(builder, rows, loop.index)), ir.IntType(64))
            place = cg.gep(builder, origin, builder.mul(row, row_words))
            words = builder.load(builder.bitcast(place, lanes.as_pointer()), align=4)
            builder.store(builder.and_(builder.load(kept), words), kept)
        target = cg.gep(builder, _data(context, builder, signature.args[5], args[5]), args[6])
        builder.store(builder.load(kept), builder.bitcast(target, lanes.as_pointer()), align=4)
        return context.get_dummy_value()

    return (
        types.void(masks, types.int64, bins, types.int64, types.int64, out, types.int64),
        generate,
    )


@instruction
def _leaf(_: Any, leaves: Any, word: Any, bits: Any, at: Any) -> Any:
    """Return leaves[word, trailing zeros of bits[at]].

    Compiled code calls `_leaf(leaves, word, bits, at)`. A word without a bit has 32 trailing zeros,
    so it reads the 0.0 behind the last leaf.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        reached = builder.load(
            cg.gep(builder, _data(context, builder, signature.args[2], args[2]), args[3])
        )
        lowest = builder.zext(builder.cttz(reached, ir.Constant(ir.IntType(1), 0)), ir.IntType(64))
        place = builder.add(builder.mul(args[1], ir.Constant(ir.IntType(64), STRIDE)), lowest)
        return builder.load(
            cg.gep(builder, _data(context, builder, signature.args[0], args[0]), place)
        )

    return types.float64(leaves, types.int64, bits, types.int64), generate


# -- scoring
# ---------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _find_bins(row: Any, plan: Any, edges: Any, bins: Any, start: int) -> None:
    """Set bins[start:start + used] to the row of `masks` for each used feature of a row.

    row: float32 (F,). Edges are searched in two steps, every 16th first and then the 16 between,
    so a value costs a few vector comparisons and no branch that depends on it.
    """
    for used in range(plan.shape[0]):
        value = row[plan[used, 0]]
        passed = numba.int64(0)
        for block in range(plan[used, 3]):
            passed += _below(edges, plan[used, 2] + 16 * block, value)
        fine = 16 * passed
        found = plan[used, 4] + fine + _below(edges, plan[used, 1] + fine, value)
        # only NaN differs from itself
        bins[start + used] = plan[used, 5] if value != value else found


@njit(cache=True, nogil=True)
def score_row(row: Any, plan: Any, edges: Any, masks: Any, leaves: Any, scratch: Any) -> float:
    """Return the raw score, float64, of one row, float32 (F,).

    `scratch` comes from `new_scratch`. Arguments are not checked.
    """
    used = plan.shape[0]
    bins = LANES * WIDTH
    _find_bins(row, plan, edges, scratch, bins)
    total = 0.0
    for word in range(0, masks.shape[1], WIDTH):
        _reach(masks, word, scratch, bins, used, scratch, 0)
        for k in range(WIDTH):
            total += _leaf(leaves, word + k, scratch, k)
    return total


@njit(cache=True, nogil=True)
def score_rows(
    rows: Any,
    index: Any,
    count: int,
    out: Any,
    plan: Any,
    edges: Any,
    masks: Any,
    leaves: Any,
    scratch: Any,
) -> None:
    """Set out[i] to the raw score of rows[i] for the i in index[:count]; the rest of `out` stays.

    rows float32 (n, F), index int64 (>= count,), out float64 (n,); `scratch` comes from
    `new_scratch`. Arguments are not checked. A block of WIDTH words is used for all rows of a chunk
    before the next one, so its masks stay in the cache.
    """
    for start in range(0, count, CHUNK):
        _score_chunk(
            rows, index[start : min(count, start + CHUNK)], out, plan, edges, masks, leaves, scratch
        )


@njit(cache=True, nogil=True)
def _score_chunk(
    rows: Any, index: Any, out: Any, plan: Any, edges: Any, masks: Any, leaves: Any, scratch: Any
) -> None:
    used, count = plan.shape[0], len(index)
    bins = LANES * WIDTH
    for i in range(count):
        _find_bins(rows[index[i]], plan, edges, scratch, bins + i * used)
        out[index[i]] = 0.0
    # rows beyond the last full group of LANES are added up one by one
    whole = count - count % LANES
    for word in range(0, masks.shape[1], WIDTH):
        for i in range(0, whole, LANES):
            for lane in range(LANES):
                _reach(masks, word, scratch, bins + (i + lane) * used, used, scratch, lane * WIDTH)
            _add_lanes(index, i, word, out, leaves, scratch)
        for i in range(whole, count):
            _reach(masks, word, scratch, bins + i * used, used, scratch, 0)
            total = out[index[i]]
            for k in range(WIDTH):
                total += _leaf(leaves, word + k, scratch, k)
            out[index[i]] = total


@njit(cache=True, nogil=True)
def _add_lanes(index: Any, i: int, word: int, out: Any, leaves: Any, scratch: Any) -> None:
    """Add the leaves of WIDTH words to the sums of LANES rows, each in tree order."""
    # four plain variables: a loop over the lanes would keep the sums in memory, not in registers
    a, b, c, d = out[index[i]], out[index[i + 1]], out[index[i + 2]], out[index[i + 3]]
    for k in range(WIDTH):
        a += _leaf(leaves, word + k, scratch, k)
        b += _leaf(leaves, word + k, scratch, WIDTH + k)
        c += _leaf(leaves, word + k, scratch, 2 * WIDTH + k)
        d += _leaf(leaves, word + k, scratch, 3 * WIDTH + k)
    out[index[i]], out[index[i + 1]], out[index[i + 2]], out[index[i + 3]] = a, b, c, d


# -- building
# ---------------------------------------------------------------------


def edges_of(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return for each threshold the float32 edge that splits as it does.

    For float32 v, `v <= edge` holds exactly where LightGBM finds `v <= threshold`: a float32 is
    <= t if and only if it is <= t rounded down to float32. LightGBM reads all within kZeroThreshold
    of zero as 0.0 (`RowFunctionFromDenseMatric`), so an edge inside that range moves to its border.
    """
    # clipped first, as a cast of a larger float64 would overflow to infinity with a warning
    limit = float(np.finfo(np.float32).max)
    edges = np.clip(threshold, -limit, limit).astype(np.float32)
    edges[threshold == np.inf] = np.inf
    edges[threshold < -limit] = -np.inf
    too_high = edges.astype(np.float64) > threshold
    edges[too_high] = np.nextafter(edges[too_high], np.float32(-np.inf))
    edges[(threshold >= -float(ZERO)) & (threshold < 0)] = UNDER_ZERO
    edges[(threshold >= 0) & (threshold < float(ZERO))] = ZERO
    return edges


class _Nodes(NamedTuple):
    """The inner nodes of all trees, one after another."""

    slot: NDArray[np.int64]
    """Which used feature, a row of `plan`."""
    cut: NDArray[np.int64]
    """A value goes left if its bin is <= this."""
    decision: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]


def _lay_out(
    trees: Sequence[Tree],
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], _Nodes]:
    """Return `plan`, `edges`, each used feature's bin of zero, and the nodes in terms of them."""
    feature, threshold, decision, left, right = (
        np.concatenate(column) for column in list(zip(*trees, strict=True))[:5]
    )
    wanted, missing = edges_of(threshold), decision >> 2
    slot, cut = np.zeros(len(feature), np.int64), np.zeros(len(feature), np.int64)
    plan: list[tuple[int, ...]] = []
    blocks, zeros = [np.empty(0, np.float32)], []
    place = row = 0
    for column in np.unique(feature):
        here = np.flatnonzero(feature == column)
        edges = wanted[here]
        if (missing[here] == 1).any():
            # where zero is missing, zero needs a bin of its own
            edges = np.append(edges, [UNDER_ZERO, ZERO])
        edges = np.unique(edges)
        slot[here], cut[here] = len(plan), np.searchsorted(edges, wanted[here])
        fine, coarse = _edge_blocks(edges)
        coarse_at, nan_bin = place + len(fine), row + len(edges) + 1
        plan.append((column, place, coarse_at, len(coarse) // 16, row, nan_bin))
        zeros.append(np.searchsorted(edges, np.float32(0.0)))
        blocks += [fine, coarse]
        place += len(fine) + len(coarse)
        # one bin more than edges, and NaN's
        row += len(edges) + 2
    table = np.array(plan, np.int64).reshape(-1, 6)
    nodes = _Nodes(slot, cut, decision, left, right)
    return table, np.concatenate(blocks), np.array(zeros, np.int64), nodes


def _edge_blocks(edges: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return sorted edges in blocks of 16 padded with +inf, and every 16th as coarse ones."""
    # one group more than full ones, so that at least one +inf stands behind the last edge
    groups = len(edges) // 16 + 1
    fine = np.full(groups * 16, np.inf, np.float32)
    fine[: len(edges)] = edges
    coarse = np.full(-(-groups // 16) * 16, np.inf, np.float32)
    coarse[:groups] = fine[15::16]
    return fine, coarse


@njit(cache=True, nogil=True)
def _clear(
    masks: Any, plan: Any, zeros: Any, nodes: Any, first: int, count: int, word: int
) -> None:
    """Clear in `masks` the leaves that each node of one tree makes unreachable for a bin.

    The tree has the nodes first to first + count, and its words begin at `word`. Missing values go
    as in LightGBM's `Tree::NumericalDecision`.
    """
    # a child has the higher number, so from the last node up all children are known
    below = np.zeros(max(count, 1), np.uint64)
    both = np.zeros(2, np.uint64)
    for node in range(count - 1, -1, -1):
        for side in range(2):
            child = nodes.left[first + node] if side == 0 else nodes.right[first + node]
            both[side] = below[child] if child >= 0 else np.uint64(1) << np.uint64(~child)
        below[node] = both[0] | both[1]
        slot, decision = nodes.slot[first + node], nodes.decision[first + node]
        missing, default_left = decision >> 2, (decision & 2) != 0
        nan_bin = plan[slot, 5] - plan[slot, 4]
        for bin_ in range(nan_bin + 1):
            is_nan = bin_ == nan_bin
            as_bin = zeros[slot] if is_nan else bin_
            goes_left = as_bin <= nodes.cut[first + node]
            if (missing == 2 and is_nan) or (missing == 1 and as_bin == zeros[slot]):
                goes_left = default_left
            lost = both[1] if goes_left else both[0]
            masks[plan[slot, 4] + bin_, word] &= ~np.uint32(lost & np.uint64(0xFFFFFFFF))
            # more than 32 leaves: the second word holds the upper half
            if count > 31:
                masks[plan[slot, 4] + bin_, word + 1] &= ~np.uint32(lost >> np.uint64(32))


def _aligned(rows: int, words: int) -> NDArray[np.uint32]:
    """Return zeros, uint32 (rows, words), that begin at a cache line.

    Raises ArtifactError when they would be too many.
    """
    if rows * words > MAX_MASK_WORDS:
        raise ArtifactError(
            f"the ensemble needs {rows * words * 4 >> 20} MiB of masks, more than"
            f" {MAX_MASK_WORDS * 4 >> 20}"
        )
    room = np.zeros(rows * words + 16, np.uint32)
    skip = (-room.ctypes.data % 64) // 4
    return room[skip : skip + rows * words].reshape(rows, words)


def build(trees: Sequence[Tree]) -> Tables:
    """Return the tables of checked trees (`lightgbm_text.parse`).

    Raises ArtifactError if they would be too large.
    """
    plan, edges, zeros, nodes = _lay_out(trees)
    sizes = [len(tree.leaf) for tree in trees]
    used = sum(1 if size <= 32 else 2 for size in sizes)
    words = -(-used // WIDTH) * WIDTH
    masks = _aligned(int(plan[-1, 5]) + 1 if len(plan) else 0, words)
    leaves = np.zeros((words, STRIDE))
    first = word = 0
    for tree, size in zip(trees, sizes, strict=True):
        for half in range(0, size, 32):
            values = tree.leaf[half : half + 32]
            leaves[word + half // 32, : len(values)] = values
            # at first every leaf is reachable from every bin
            masks[:, word + half // 32] = (1 << len(values)) - 1
        _clear(masks, plan, zeros, nodes, first, size - 1, word)
        first += size - 1
        word += 1 if size <= 32 else 2
    return Tables(plan, edges, masks, leaves)


def usable_rows(rows: NDArray[np.float32], features: int) -> NDArray[np.float32]:
    """Return rows in the form that compiled code takes: float32 (n, features), contiguous.

    Raises ValueError for another shape or dtype.
    """
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != features:
        raise ValueError(f"rows must be float32 (n, {features}), not {rows.dtype} {rows.shape}")
    rows = np.ascontiguousarray(rows)
    # numba would compile everything a second time for read-only rows
    return rows if rows.flags.writeable else rows.copy()


class TreeEnsemble:
    """One LightGBM model, ready to score. It never changes, so threads may share it; a caller of
    the compiled functions brings a scratch of its own.
    """

    def __init__(self, trees: Sequence[Tree], features: int) -> None:
        self.features = features
        self.trees = len(trees)
        self.tables = build(trees)

    @classmethod
    def from_text(cls, text: str, names: Sequence[str] = NAMES) -> TreeEnsemble:
        """Return the ensemble of a LightGBM text model for the columns `names`.

        Raises ArtifactError that says what is wrong.
        """
        return cls(lightgbm_text.parse(text, names), len(names))

    def raw(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the raw scores (n,) of float32 rows (n, F), bit-equal to LightGBM's.

        Raises ValueError for another shape or dtype.
        """
        rows = usable_rows(rows, self.features)
        out, scratch = np.empty(len(rows)), new_scratch(self.features, len(rows))
        score_rows(rows, np.arange(len(rows)), len(rows), out, *self.tables, scratch)
        return out


def warm_up() -> None:
    """Compile all of this module, or load it from numba's cache.

    The first request then does not wait for it.
    """
    node = np.zeros(1, np.int32)
    stump = Tree(node, np.zeros(1), node, ~node, ~node - 1, np.array([0.25, 0.5]))
    ensemble = TreeEnsemble([stump], N_FEATURES)
    rows = np.zeros((2, N_FEATURES), np.float32)
    ensemble.raw(rows)
    score_row(rows[0], *ensemble.tables, new_scratch(rows=1))
