"""Which parts of our templates the tests rendered, for `tests.coverage_by_room`.

coverage.py's plug-in for Django follows every call of every test to find the templates among them;
here the template's own nodes say that they were rendered. A part is a tag, a variable or a text. An
`if` or a `for` has two branches: it renders something, or nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from django.template import Engine, Node
from django.template.base import TextNode
from django.template.defaulttags import ForNode, IfNode, LoadNode
from django.template.loader_tags import BlockNode

FOLDER = Path(".template-coverage")
TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

_rendered: set[Part] = set()


class Part(NamedTuple):
    """One part of a template, or a branch of it."""

    template: str
    line: int
    text: str
    branch: str = ""


def start() -> None:
    """Note from now on what this process renders."""
    for kind in (Node, TextNode):
        kind.render_annotated = _noting(kind.render_annotated)


def _noting(render: Callable[[Node, object], str]) -> Callable[[Node, object], str]:
    def noting(node: Node, context: object) -> str:
        text = render(node, context)
        if (part := part_of(node)) is not None:
            _rendered.add(part)
            if isinstance(node, IfNode | ForNode):
                _rendered.add(part._replace(branch="something" if text.strip() else "nothing"))
        return text

    return noting


def part_of(node: Node) -> Part | None:
    """Return what a node stands for, or None for blank text and for what is not rendered itself."""
    # what fills a block is rendered in the place of the parent's block
    if isinstance(node, BlockNode | LoadNode):
        return None
    token = getattr(node, "token", None)
    name = getattr(getattr(node, "origin", None), "template_name", None)
    if token is None or name is None or not token.contents.strip():
        return None
    return Part(name, token.lineno, token.contents)


def save() -> None:
    """Write what this process rendered, for `read`."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{os.getpid()}.json"
    path.write_text(json.dumps(sorted(_rendered)))


def read() -> set[Part]:
    """Return what all processes of the last run rendered."""
    return {Part(*row) for path in FOLDER.glob("*.json") for row in json.loads(path.read_text())}


def every() -> tuple[set[Part], set[Part]]:
    """Return all parts of our templates, and all branches."""
    engine = Engine.get_default()
    parts: set[Part] = set()
    branches: set[Part] = set()
    for path in sorted(TEMPLATES.rglob("*.*")):
        template = engine.get_template(path.relative_to(TEMPLATES).as_posix())
        for node in template.nodelist.get_nodes_by_type(Node):
            if (part := part_of(node)) is not None:
                parts.add(part)
                branches.update(_branches(node, part))
    return parts, branches


def _branches(node: Node, part: Part) -> Iterator[Part]:
    if not isinstance(node, IfNode | ForNode):
        return
    yield part._replace(branch="something")
    if isinstance(node, IfNode):
        always = any(condition is None for condition, _ in node.conditions_nodelists)
    else:
        always = bool(node.nodelist_empty)
    if not always:
        yield part._replace(branch="nothing")
