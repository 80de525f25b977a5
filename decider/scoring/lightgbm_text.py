"""The reader of LightGBM's text models. It turns them into checked trees, without LightGBM.

The text may come from anyone who can register a model, so nothing in it is believed: sizes are
bounded before they are used, numbers must be plain decimals, and the nodes of a tree must form one
tree. The format is that of LightGBM 4 (`version=v4`), written by `Tree::ToString` and
`GBDT::SaveModelToString`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decider.contracts.artifact import ArtifactError

# Chosen: well above what training makes, and still little memory.
MAX_TREES = 2000
# `trees` holds a tree's leaves in at most two words of 32 bits.
MAX_LEAVES = 64
# Chosen: well above the number of features; it bounds the tables before they are built.
MAX_FEATURES = 256
# Training rows; LightGBM counts in 32 bits.
MAX_ROWS = 2**31 - 1
# Characters; 2,000 trees of 64 leaves take about half of it.
MAX_TEXT = 32 * 1024 * 1024

# Texts are checked with this before float() and int(), which also take "nan", "1_000" and digits of
# other scripts.
_NUMBERS = re.compile(r"(?:[-+0-9.eE ]|inf\b)*", re.ASCII)
_HEADER_KEYS = (
    "version",
    "num_class",
    "num_tree_per_iteration",
    "max_feature_idx",
    "feature_names",
    "tree_sizes",
)
# One score a row: a model of several classes has one tree for each of them in turn.
_SUPPORTED = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1"}
_NODE_KEYS = ("split_feature", "threshold", "decision_type", "left_child", "right_child")


class Tree(NamedTuple):
    """One tree of n leaves. Children: node number if >= 0, else the bitwise complement of a leaf
    number.
    """

    feature: NDArray[np.int32]
    """(n - 1,) column that each node looks at."""
    threshold: NDArray[np.float64]
    """(n - 1,) a value goes left if it is <= the threshold; +inf where LightGBM splits NaN from all
    else.
    """
    decision: NDArray[np.int32]
    """(n - 1,) bit 1: missing goes left; bits 2 and 3: what counts as missing, 0 nothing, 1 zero, 2
    NaN.
    """
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    leaf: NDArray[np.float64]
    """(n,) what the tree adds to the raw score."""
    node_rows: NDArray[np.float64] = np.empty(0)
    """(n - 1,) training rows that came through each node; empty in a text that does not say."""
    leaf_rows: NDArray[np.float64] = np.empty(0)
    """(n,) training rows that ended in each leaf; empty in a text that does not say."""


def parse(text: str, names: Sequence[str]) -> list[Tree]:
    """Return the checked trees of a text model made for the columns `names`, in order.

    Raises ArtifactError that says what is wrong.
    """
    if len(names) > MAX_FEATURES:
        raise ArtifactError(f"{len(names)} features are more than the allowed {MAX_FEATURES}")
    if len(text) > MAX_TEXT:
        raise ArtifactError(f"model text of {len(text)} characters is longer than {MAX_TEXT}")
    # LightGBM writes this line after the trees; importances and parameters behind it are ignored
    if "\nend of trees" not in text:
        raise ArtifactError(
            "model text has no 'end of trees': it is cut short or not a LightGBM model"
        )
    head, *bodies = text[: text.index("\nend of trees")].split("\nTree=")
    count = _check_header(head, names)
    if len(bodies) != count:
        raise ArtifactError(f"model text holds {len(bodies)} trees, but its header lists {count}")
    return [_parse_tree(number, body, len(names)) for number, body in enumerate(bodies)]


def _check_header(head: str, names: Sequence[str]) -> int:
    """Return the number of trees that the header lists. Raises ArtifactError when it is wrong."""
    lines = head.splitlines()
    if not lines or lines[0] != "tree":
        raise ArtifactError("not a LightGBM text model: its first line is not 'tree'")
    if "average_output" in lines:
        raise ArtifactError("models with averaged output (random forests) are not supported")
    fields = _fields(lines[1:], "header")
    for key in _HEADER_KEYS:
        if key not in fields:
            raise ArtifactError(f"header: {key} is missing")
    for key, wanted in _SUPPORTED.items():
        if fields[key] != wanted:
            raise ArtifactError(
                f"header: {key} is {fields[key][:40]!r}, only {wanted!r} is supported"
            )
    found, last = fields["max_feature_idx"], str(len(names) - 1)
    if found != last:
        raise ArtifactError(f"header: max_feature_idx is {found[:40]!r}, expected {last}")
    _check_names(fields["feature_names"].split(" "), names)
    count = len(fields["tree_sizes"].split())
    if not 1 <= count <= MAX_TREES:
        raise ArtifactError(f"{count} trees: a model must have between 1 and {MAX_TREES}")
    return count


def _check_names(found: list[str], names: Sequence[str]) -> None:
    if len(found) != len(names):
        raise ArtifactError(f"header: {len(found)} feature names, expected {len(names)}")
    for column, (have, want) in enumerate(zip(found, names, strict=True)):
        if have != want:
            raise ArtifactError(
                f"header: feature {column} is named {have[:60]!r}, expected {want!r}"
            )


def _fields(lines: Sequence[str], where: str) -> dict[str, str]:
    """Return key=value lines as a dict. Raises ArtifactError.

    A line without a value, and a second line for a key, are refused: LightGBM might read them in
    another way.
    """
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise ArtifactError(f"{where}: line {line[:60]!r} is not key=value")
        if key in fields:
            raise ArtifactError(f"{where}: {key[:60]!r} appears twice")
        fields[key] = value
    return fields


def _parse_tree(number: int, body: str, features: int) -> Tree:
    where = f"tree {number}"
    lines = body.splitlines()
    if lines[:1] != [str(number)]:
        raise ArtifactError(f"{where}: found number {''.join(lines[:1])[:20]!r} instead")
    fields = _fields(lines[1:], where)
    leaves = _count_leaves(fields, where)
    leaf = np.array(list(_floats(fields, "leaf_value", leaves, where)))
    feature, decision, left, right = (
        np.array(list(_integers(fields, key, leaves - 1, where)) if leaves > 1 else [], np.int32)
        for key in _NODE_KEYS
        if key != "threshold"
    )
    threshold = np.array(
        list(_floats(fields, "threshold", leaves - 1, where)) if leaves > 1 else [], np.float64
    )
    rows = (
        _rows(fields, "internal_count", leaves - 1, where),
        _rows(fields, "leaf_count", leaves, where),
    )
    tree = Tree(feature, threshold, decision, left, right, leaf, *rows)
    _check_nodes(tree, features, where)
    return tree


def _count_leaves(fields: dict[str, str], where: str) -> int:
    """Return a tree's number of leaves. Raises ArtifactError for a tree of a kind not supported."""
    # before any array is made: the lengths of all of them follow from it
    leaves = _single(fields, "num_leaves", where)
    if not 1 <= leaves <= MAX_LEAVES:
        raise ArtifactError(f"{where}: {leaves} leaves, between 1 and {MAX_LEAVES} are supported")
    if _single(fields, "num_cat", where):
        raise ArtifactError(f"{where}: categorical splits are not supported")
    if "is_linear" in fields and _single(fields, "is_linear", where):
        raise ArtifactError(f"{where}: linear trees are not supported")
    return leaves


def _rows(fields: dict[str, str], key: str, count: int, where: str) -> NDArray[np.float64]:
    """Return numbers of training rows. A text may leave them out: scores do not need them."""
    if key not in fields or count == 0:
        return np.empty(0)
    return np.array(list(_integers(fields, key, count, where, MAX_ROWS)), np.float64)


def _split(fields: dict[str, str], key: str, count: int, where: str) -> list[str]:
    if key not in fields:
        raise ArtifactError(f"{where}: {key} is missing")
    words = fields[key].split()
    if not _NUMBERS.fullmatch(fields[key]):
        wrong = next((word for word in words if not _NUMBERS.fullmatch(word)), fields[key])
        raise ArtifactError(f"{where}: {key} holds {wrong[:40]!r}, which is not a number")
    if len(words) != count:
        raise ArtifactError(f"{where}: {key} has {len(words)} entries, expected {count}")
    return words


def _floats(fields: dict[str, str], key: str, count: int, where: str) -> Iterator[float]:
    for word in _split(fields, key, count, where):
        try:
            number = float(word)
        except ValueError as error:
            raise ArtifactError(f"{where}: {key} holds {word[:40]!r}, not a number") from error
        # a threshold of +inf splits NaN from all else; LightGBM writes it in no other way
        if not isfinite(number) and not (word == "inf" and key == "threshold"):
            raise ArtifactError(f"{where}: {key} holds {word[:40]!r}, which is not finite")
        yield number


def _integers(
    fields: dict[str, str], key: str, count: int, where: str, most: int = 1_000_000
) -> Iterator[int]:
    for word in _split(fields, key, count, where):
        try:
            # 12 characters hold every allowed number; int() of a very long word is slow
            number = int(word[:12])
        except ValueError as error:
            raise ArtifactError(
                f"{where}: {key} holds {word[:40]!r}, not a whole number"
            ) from error
        if abs(number) > most:
            raise ArtifactError(f"{where}: {key} holds {word[:40]}, which is out of range")
        yield number


def _single(fields: dict[str, str], key: str, where: str) -> int:
    return next(_integers(fields, key, 1, where))


def _check_nodes(tree: Tree, features: int, where: str) -> None:
    """Check that the nodes form one tree that looks at known columns in a known way.

    Raises ArtifactError.
    """
    nodes = len(tree.feature)
    if nodes == 0:
        return
    if tree.feature.min() < 0 or tree.feature.max() >= features:
        raise ArtifactError(f"{where}: a node looks at a feature outside 0 to {features - 1}")
    if (tree.decision & 1).any():
        raise ArtifactError(f"{where}: categorical splits are not supported")
    # 2 (missing goes left) and 8 (NaN is missing) make 10; odd ones are refused above
    if tree.decision.min() < 0 or tree.decision.max() > 11:
        raise ArtifactError(f"{where}: a decision type is not an even number from 0 to 10")
    children = np.concatenate([tree.left, tree.right])
    if children.min() < -nodes - 1 or children.max() >= nodes:
        raise ArtifactError(f"{where}: a child is out of range")
    # LightGBM numbers nodes as it splits them, so a child always has the higher number. Together
    # with "every node but the root has exactly one parent" this leaves no room for a cycle.
    if ((children >= 0) & (children <= np.tile(np.arange(nodes), 2))).any():
        raise ArtifactError(f"{where}: a node is its own ancestor")
    if len(np.unique(children)) != 2 * nodes:
        raise ArtifactError(f"{where}: a node or leaf is reached twice")
