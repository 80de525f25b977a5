"""The rules of the house that hold for every file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

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


def test_imports_run_downwards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    failed = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert not failed, capsys.readouterr().out


def test_an_upward_import_would_be_found(tmp_path: Path) -> None:
    for room in ("low", "high"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("")
    (tmp_path / "low" / "bad.py").write_text("import high\n")
    contract = ["[importlinter]", "root_packages =", "    low", "    high"]
    contract += [
        "[importlinter:contract:1]",
        "name = down",
        "type = layers",
        "layers =",
        "    high",
        "    low",
    ]
    (tmp_path / ".importlinter").write_text("\n".join(contract) + "\n")
    lint = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports;"
        " sys.exit(lint_imports(cache_dir=None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=tmp_path, capture_output=True, text=True, check=False
    )
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
