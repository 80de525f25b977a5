"""Texts that make a slow pattern slow, made from the pattern itself.

A match takes more than linear time where it can give back what it took and try again. So each text
leads up to one repetition of the pattern, then repeats one of the pattern's own parts, and ends so
that the match fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as op  # type: ignore[attr-defined]  # the parser has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

AnyPattern = re.Pattern[str] | re.Pattern[bytes]
Text = str | bytes
Node = tuple[Any, Any]
REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
MOST_PAIRED = 8
"""Parts of a pattern up to which each is also paired with each other."""
MOST_VARIANTS = 12
_OF_CATEGORY = {
    op.CATEGORY_DIGIT: "7",
    op.CATEGORY_WORD: "w",
    op.CATEGORY_SPACE: " ",
    op.CATEGORY_NOT_DIGIT: "x",
    op.CATEGORY_NOT_WORD: "-",
    op.CATEGORY_NOT_SPACE: "x",
}
ENDINGS = ("", "\x00", "\n", "~")


def attacks(pattern: AnyPattern, length: int) -> Iterator[Text]:
    """Yield texts of about `length` characters or bytes for a compiled pattern."""
    tree = list(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    parts = sorted({part for part in _parts(tree) if part})
    if pattern.flags & re.MULTILINE:
        # each line is another beginning
        parts += [f"\n{part}" for part in parts]
    if len(parts) <= MOST_PAIRED:
        parts += [one + other for one in parts for other in parts if one != other]
    for start in dict.fromkeys(["", *_starts(tree, "")]):
        for part in parts:
            body = (part * (length // len(part) + 1))[:length]
            for ending in ENDINGS:
                text = start + body + ending
                yield text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text


def _starts(nodes: list[Node], before: str) -> Iterator[str]:
    """Yield a shortest text before each repetition."""
    for code, value in nodes:
        if code in REPEATS:
            yield before
            yield from _starts(list(value[2]), before)
        else:
            for inner in _inside(code, value):
                yield from _starts(inner, before)
        before += _example([(code, value)])


def _parts(nodes: list[Node]) -> Iterator[str]:
    """Yield characters of each class, and examples of what repeats and of what stands between."""
    between: list[Node] = []
    for code, value in nodes:
        if code not in REPEATS:
            between.append((code, value))
        else:
            yield from _variants(between)
            between = []
        if code is op.IN:
            yield from _of_class(value)
        elif code in (op.ANY, op.NOT_LITERAL):
            yield _example([(code, value)])
        for inner in _inside(code, value):
            yield _example(inner)
            yield from _parts(inner)
    yield from _variants(between)


def _variants(nodes: list[Node]) -> list[str]:
    """Return examples of nodes, with each branch of each choice, as far as MOST_VARIANTS go."""
    found = [""]
    for code, value in nodes:
        ways = (
            [_example(list(branch)) for branch in value[1]]
            if code is op.BRANCH
            else [_one(code, value)]
        )
        found = [text + way for text in found for way in ways][:MOST_VARIANTS]
    return found


def _inside(code: Any, value: Any) -> list[list[Node]]:
    """Return the patterns inside a node."""
    if code in REPEATS:
        return [list(value[2])]
    if code is op.SUBPATTERN:
        return [list(value[3])]
    if code is op.BRANCH:
        return [list(branch) for branch in value[1]]
    if code in (op.ASSERT, op.ASSERT_NOT):
        return [list(value[1])]
    if code is op.ATOMIC_GROUP:
        return [list(value)]
    if code is op.GROUPREF_EXISTS:
        return [list(branch) for branch in value[1:] if branch is not None]
    return []


def _example(nodes: list[Node]) -> str:
    """Return a short text that a pattern matches, as far as that is seen without looking around."""
    return "".join(_one(code, value) for code, value in nodes)


def _one(code: Any, value: Any) -> str:
    if code is op.LITERAL:
        return chr(value)
    if code is op.NOT_LITERAL:
        return "x" if value != ord("x") else "y"
    if code is op.ANY:
        return "."
    if code is op.IN:
        return next(iter(_of_class(value)), "x")
    if code in REPEATS:
        return _example(list(value[2])) * value[0]
    if code in (op.ASSERT, op.ASSERT_NOT):
        return ""
    inner = _inside(code, value)
    return _example(inner[0]) if inner else ""


def _of_class(items: list[Node]) -> list[str]:
    """Return a character for each part of a class."""
    if items[0][0] is op.NEGATE:
        taken = {chr(v) for code, v in items[1:] if code is op.LITERAL}
        return [next(c for c in "x7 -_/." if c not in taken)]
    found = []
    for code, value in items:
        if code is op.LITERAL:
            found.append(chr(value))
        elif code is op.RANGE:
            found.append(chr(value[0]))
        elif code is op.CATEGORY:
            found.append(_OF_CATEGORY[value])
    return found
