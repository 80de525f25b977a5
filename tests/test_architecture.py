"""The rules of the house that hold for every file."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKED = {
    ".py",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".html",
    ".css",
    ".js",
    ".conf",
    ".lock",
    ".txt",
    ".json",
    "",
}


def committed_files() -> list[Path]:
    """Files git knows, or every file when this is no checkout."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = (
        [ROOT / name for name in done.stdout.decode().split("\0") if name]
        if done.returncode == 0
        else list(ROOT.rglob("*"))
    )
    return [
        path
        for path in names
        if path.is_file() and path.suffix in CHECKED and ".venv" not in path.parts
    ]


LINT = (
    "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports;"
    " sys.exit(lint_imports(cache_dir=None))"
)


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of a folder in a process of its own: the linter sets logging up anew."""
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_contracts_hold() -> None:
    done = linted(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_an_upward_import_would_be_found(tmp_path: Path) -> None:
    for room in ("low", "high"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("")
    (tmp_path / "low" / "bad.py").write_text("import high\n")
    contract = ["[importlinter]", "root_packages =", "    low", "    high"]
    contract += ["[importlinter:contract:1]", "name = down", "type = layers", "layers ="]
    contract += ["    high", "    low"]
    (tmp_path / ".importlinter").write_text("\n".join(contract) + "\n")
    done = linted(tmp_path)
    assert done.returncode == 1
    assert "low is not allowed to import high" in done.stdout


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_pins_by_hash_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    pinned = re.findall(r"^[a-z0-9][\w.-]*==", text, re.MULTILINE)
    hashed = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(pinned) == len(hashed) > 50
    assert all("--hash=sha256:" in block for block in hashed)
    assert not re.search(r"://|^-|[a-z0-9-]+\.(?:org|com|io|net)\b", text, re.MULTILINE)


def test_no_committed_file_names_a_machine_path_or_a_package_index() -> None:
    forbidden = re.compile(
        r"(?<![\w.$}\"'*-])/(?:work|root|home)/\w|(?:pypi|pythonhosted)\.org|registry\.npmjs|cdn\.|unpkg\.com|jsdelivr"
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in committed_files()
        if path != Path(__file__) and (match := forbidden.search(path.read_text(errors="replace")))
    ]
    assert found == []


FLOORS = (
    ("console",),
    ("explain", "monitoring"),
    ("rollouts",),
    ("decisions", "learning"),
    ("control",),
    ("decider",),
)
"""The rooms from the top floor to the ground. A room imports only rooms of lower floors."""
ROOMS = tuple(room for floor in FLOORS for room in floor)
HTTP = (
    "django.http",
    "django.urls",
    "django.shortcuts",
    "django.forms",
    "django.views",
    "django.template",
    "django.contrib.messages",
    "django.middleware",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
)
"""What only the console may import."""
MOST_MODULES = 16
"""Modules in one folder; past that it wants sub-packages named after ideas."""


def modules(room: str) -> Iterator[tuple[str, ast.Module]]:
    """Paths and syntax trees of a room's modules, migrations left out."""
    for path in sorted((ROOT / room).rglob("*.py")):
        if "migrations" not in path.parts:
            yield str(path.relative_to(ROOT)), parsed(path)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports, at any depth of its code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(room: str, name: str) -> bool:
    """Whether `name` begins with a room that does not lie beneath `room`."""
    floor = next(k for k, rooms in enumerate(FLOORS) if room in rooms)
    beneath = {other for rooms in FLOORS[floor + 1 :] for other in rooms}
    if room == "learning":
        beneath = {"decider"}  # it reads logs and files, and runs without a database
    return name in ROOMS and name != room and name not in beneath


def looked_up(tree: ast.Module) -> Iterator[str]:
    """Rooms whose models a module looks up by name, or whose tables it names in a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0] if node.args else None
            if node.func.attr == "get_model" and isinstance(first, ast.Constant):
                yield str(first.value).partition(".")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for room, _ in re.findall(rf"\b({'|'.join(ROOMS)})_([a-z]+)\b", node.value):
                yield room


def faults(room: str, path: str, tree: ast.Module) -> list[str]:
    """What breaks the floors in a module."""
    found = [
        f"{path} imports {name}"
        for name in imported(tree)
        if upward(room, name.partition(".")[0])
        or (room != "console" and any(f"{name}.".startswith(f"{web}.") for web in HTTP))
    ]
    found += [
        f"{path} reaches tables of {other} by name"
        for other in looked_up(tree)
        if upward(room, other)
    ]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_downwards_speaks_no_http_and_names_no_table_above(room: str) -> None:
    assert [fault for path, tree in modules(room) for fault in faults(room, path, tree)] == []


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("decisions", "from explain.text import verdict"),
        ("control", "def late():\n    from decisions.models import Decision"),
        ("explain", "from monitoring import attention"),
        ("learning", "import control.errors"),
        ("explain", "from django.http import HttpRequest"),
        ("control", "from rest_framework import serializers"),
        ("monitoring", "from django import forms"),
        ("decisions", "rows = apps.get_model('explain', 'Explanation').objects"),
        ("control", "rows = apps.get_model('decisions.Decision').objects"),
        ("control", "SQL = 'SELECT count(*) FROM decisions_decision'"),
    ],
)
def test_a_breach_of_the_floors_would_be_found(room: str, text: str) -> None:
    assert faults(room, "module.py", ast.parse(text))


def test_no_room_looks_a_model_of_another_room_up_by_name() -> None:
    found = [
        f"{path}: {node.args[0].value}"
        for room in ROOMS
        for path, tree in modules(room)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get_model"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and not str(node.args[0].value).startswith(room)
    ]
    assert found == []


def test_no_folder_is_crowded() -> None:
    folders = [
        folder
        for room in (*ROOMS, "bench")
        for folder in [ROOT / room, *(ROOT / room).rglob("*")]
        if folder.is_dir() and "migrations" not in folder.parts
    ]
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if (count := len([p for p in folder.glob("*.py") if p.name != "__init__.py"]))
        > MOST_MODULES
    }
    assert crowded == {}
