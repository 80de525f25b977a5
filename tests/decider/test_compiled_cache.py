"""A change to any source of the decider gives compiled code a folder of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import decider
from console.local import programs
from decider import compiled_cache

TREE = Path(decider.__file__).parent
SOURCES = sorted(source.relative_to(TREE).as_posix() for source in TREE.rglob("*.py"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the decider's sources."""
    shutil.copytree(TREE, tmp_path / "decider", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "decider"


@pytest.mark.parametrize("source", SOURCES)
def test_changing_any_module_changes_the_key(tree: Path, source: str) -> None:
    before = compiled_cache.key(tree)
    with (tree / source).open("a") as file:
        file.write("CHANGED = 1\n")
    assert compiled_cache.key(tree) != before


def test_a_new_a_moved_and_a_removed_module_change_the_key(tree: Path) -> None:
    seen = {compiled_cache.key(tree)}
    (tree / "deeper" / "still").mkdir(parents=True)
    (tree / "deeper" / "still" / "new.py").write_text("LIMIT = 1\n")
    seen.add(compiled_cache.key(tree))
    (tree / "deeper" / "still" / "new.py").rename(tree / "deeper" / "new.py")
    seen.add(compiled_cache.key(tree))
    (tree / "policy.py").unlink()
    seen.add(compiled_cache.key(tree))
    assert len(seen) == 4


def test_the_same_sources_elsewhere_have_the_same_key(tree: Path) -> None:
    assert compiled_cache.key(tree) == compiled_cache.key()


def test_code_compiled_from_other_sources_does_not_count_as_compiled(tmp_path: Path) -> None:
    other = tmp_path / "numba" / "compiled-0123456789abcdef" / "engine"
    other.mkdir(parents=True)
    (other / "observe.nbi").write_bytes(b"")
    assert not programs.is_compiled(tmp_path)
    own = compiled_cache.folder(tmp_path / "numba") / "engine"
    own.mkdir(parents=True)
    (own / "observe.nbi").write_bytes(b"")
    # one of many: whoever compiled may have been stopped there
    assert not programs.is_compiled(tmp_path)
    programs.mark_compiled(tmp_path)
    assert programs.is_compiled(tmp_path)


def test_folders_of_old_sources_go_but_for_the_last_few(tmp_path: Path, monkeypatch) -> None:
    for age in range(12):
        old = tmp_path / f"{compiled_cache._PREFIX}{age:016x}"
        (old / "engine").mkdir(parents=True)
        os.utime(old, (1e9 - age, 1e9 - age))
    (tmp_path / "not-ours").mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    own = compiled_cache.folder(tmp_path)
    own.mkdir()
    os.utime(own, (1.0, 1.0))
    compiled_cache.use_own_folder()
    left = {folder.name for folder in tmp_path.iterdir()}
    newest = {f"{compiled_cache._PREFIX}{age:016x}" for age in range(compiled_cache.KEPT)}
    assert left == newest | {own.name, "not-ours"}
    # used now: it is the last to go when others are used
    assert own.stat().st_mtime > 1e9
