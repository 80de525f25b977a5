"""How the code is written, as far as a machine can see it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_architecture import ROOMS, ROOT, modules

PLACES = (*ROOMS, "bench")
P95_LINES, MOST_LINES = 25, 60
"""Lines of a function: of 19 in 20, and of the longest."""
MOST_FILE_LINES = 600
TEMPLATE_WIDTH = 120
NOT_VERBS = frozenset(
    [
        "a",
        "an",
        "the",
        "this",
        "that",
        "these",
        "those",
        "it",
        "its",
        "what",
        "which",
        "who",
        "whose",
        "how",
        "where",
        "when",
        "why",
        "whether",
        "as",
        "of",
        "for",
        "in",
        "at",
        "to",
        "by",
        "from",
        "with",
        "none",
        "one",
        "all",
        "every",
        "each",
        "any",
        "no",
        "nothing",
        "true",
        "false",
        "if",
        "not",
        "only",
        "more",
        "most",
    ]
)
ENDS_IN_S = frozenset(
    ["pass", "process", "address", "express", "discuss", "press", "compress", "access", "cross"]
)
"""Verbs that end in s without being in the third person."""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def numbers(tree: ast.Module) -> Iterator[tuple[ast.Assign | ast.AnnAssign, str]]:
    """Module-level constants that hold a number or a tuple of numbers, with their names."""
    plain = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.operator, ast.unaryop, ast.Load)
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        parts = list(ast.walk(node.value))
        values = [p.value for p in parts if isinstance(p, ast.Constant)]
        chosen = any(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        known = all(isinstance(p, (*plain, ast.Name)) for p in parts)
        if names and chosen and known and all(name.strip("_").isupper() for name in names):
            yield node, ", ".join(names)


def has_reason(node: ast.stmt, lines: list[str]) -> bool:
    """Whether a comment stands beside a statement or right above it."""
    beside = "".join(lines[node.lineno - 1 : node.end_lineno])
    above = lines[node.lineno - 2].strip() if node.lineno > 1 else ""
    marker = re.compile(r"#(?! *(?:noqa|type:|-+$))")
    return bool(marker.search(beside) or (above.startswith("#") and marker.search(above)))


def starts_with_verb(docstring: str) -> bool:
    word = re.match(r"[A-Za-z]+", docstring)
    first = word[0].lower() if word else ""
    third_person = first.endswith("s") and first not in ENDS_IN_S
    return bool(first) and first not in NOT_VERBS and not third_person


@pytest.mark.parametrize("room", PLACES)
def test_every_number_that_was_chosen_has_its_reason(room: str) -> None:
    bare = [
        f"{path}:{node.lineno} {names}"
        for path, tree in modules(room)
        for node, names in numbers(tree)
        if not has_reason(node, (ROOT / path).read_text().splitlines())
    ]
    assert bare == []


def test_a_number_without_a_reason_would_be_found() -> None:
    text = "# why\nA_S = 1.5\nB = 2  # why\nC, D = 3, 4\n# noqa\nE = -1\nF = f(1)\nfive = 5\n"
    lines, tree = text.splitlines(), ast.parse(text)
    assert [names for node, names in numbers(tree) if not has_reason(node, lines)] == ["C, D", "E"]


@pytest.mark.parametrize("room", PLACES)
def test_a_docstring_of_a_function_starts_with_a_verb(room: str) -> None:
    odd = [
        f"{path}:{node.lineno} {node.name}: {docstring.splitlines()[0]}"
        for path, tree in modules(room)
        for node in functions(tree)
        if (docstring := ast.get_docstring(node))
        and not any("property" in ast.dump(each) for each in node.decorator_list)
        and not starts_with_verb(docstring)
    ]
    assert odd == []


def test_functions_and_files_are_short() -> None:
    trees = [(path, tree) for room in PLACES for path, tree in modules(room)]
    found = sorted(
        (lines_of(node), f"{path} {node.name}") for path, tree in trees for node in functions(tree)
    )
    assert [each for each in found if each[0] > MOST_LINES] == []
    assert found[int(0.95 * len(found))][0] <= P95_LINES
    long = [
        path for path, _ in trees if len((ROOT / path).read_text().splitlines()) > MOST_FILE_LINES
    ]
    assert long == []


def test_no_line_is_kept_from_the_formatter() -> None:
    marked = [
        str(path.relative_to(ROOT))
        for place in (*PLACES, "tests")
        for path in (*(ROOT / place).rglob("*.py"), *ROOT.glob("*.py"))
        if path != Path(__file__) and re.search(r"#\s*fmt:\s*(?:skip|off)", path.read_text())
    ]
    assert marked == []


def test_no_line_of_a_template_is_long() -> None:
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "templates").rglob("*.html"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > TEMPLATE_WIDTH
    ]
    assert wide == []
