"""Documents agree with the code and with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from decider.contracts.vocabulary import Tier
from tests.test_architecture import ROOMS, ROOT, imported, modules

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"`([\w./<>-]+\.(?:py|md|toml|sql|lua))`|`((?:\w+/)+)`")


def drawn(diagram: str) -> set[tuple[str, str]]:
    """Arrows of a Mermaid flowchart, as pairs of names."""
    return set(re.findall(r"^\s*(\w+) --> (\w+)$", diagram, re.MULTILINE))


def test_the_diagram_of_the_floors_is_the_import_graph() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    diagram = re.search(r"```mermaid\nflowchart TD\n(.*?)```", text, re.DOTALL)
    assert diagram is not None
    there = {
        (room, name.partition(".")[0])
        for room in ROOMS
        for _, tree in modules(room)
        for name in imported(tree)
        if name.partition(".")[0] in ROOMS and name.partition(".")[0] != room
    }
    assert drawn(diagram[1]) == there


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(document: Path) -> None:
    named = [a or b for a, b in CODE.findall(document.read_text()) if "<" not in a + b]
    missing = [
        name
        for name in named
        if "/" in name
        and not name.startswith(("var/", ".venv/"))
        and not any((base / name).exists() for base in (ROOT, document.parent, ROOT / "decider"))
    ]
    assert missing == []


def test_the_index_lists_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    wanted = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]
    wanted += [path.name for path in ROOT.glob("*.md")]
    assert [name for name in wanted if name not in index] == []


def test_the_index_of_records_lists_every_record() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    assert [path.name for path in folder.glob("0*.md") if path.name not in index] == []


def test_the_readme_is_short_and_the_licence_is_named() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_glossary_defines_each_term_once_and_names_every_tier() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE
    )[1:]
    terms = [term for term, _ in rows if set(term) != {"-"}]
    assert len(terms) == len(set(terms)) > 60
    assert terms == sorted(terms, key=str.casefold)
    (tier,) = [meaning for term, meaning in rows if term == "tier"]
    assert all(t.word in tier for t in Tier)
