"""Clients that are generated from the OpenAPI document have every operation, in Python and in
TypeScript.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LOCK = Path(__file__).parent / "generators.lock"


@pytest.fixture(scope="module")
def generators(kept_folder: Path) -> Path:
    """The programs of generators.lock, in an environment of their own that is kept between runs."""
    place = kept_folder / "generators"
    ready = place / hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not ready.exists():
        shutil.rmtree(place, ignore_errors=True)
        uv = [sys.executable, "-m", "uv"]
        ran(*uv, "venv", "--quiet", "--python", sys.executable, place)
        python = place / "bin" / "python"
        ran(*uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", LOCK)
        ready.touch()
    return place / "bin"


def ran(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def document(caller: Callable, tmp_path: Path) -> Path:
    path = tmp_path / "schema.json"
    path.write_bytes(caller().get("/api/v1/schema?format=json").content)
    return path


def operations(document: Path) -> set[str]:
    methods = json.loads(document.read_text())["paths"].values()
    return {operation["operationId"] for paths in methods for operation in paths.values()}


@pytest.mark.django_db
def test_a_python_client_has_every_operation_and_imports(generators, document, tmp_path) -> None:
    made = tmp_path / "made"
    said = ran(
        generators / "openapi-python-client",
        *("generate", "--path", document, "--output-path", made, "--meta", "none"),
    )
    # it leaves out what it does not understand, and only says so
    told = [line for line in said.splitlines() if re.search("warning|unable|invalid", line, re.I)]
    assert [line for line in told if not line.startswith("Warning(s) encountered")] == []
    modules = {path.stem for path in (made / "api").glob("*/*.py")} - {"__init__"}
    assert modules == operations(document)
    listed = "\n".join(f"import made.api.{p.parent.name}.{p.stem}" for p in made.glob("api/*/*.py"))
    ran(generators / "python", "-c", listed.replace(".__init__", ""), cwd=tmp_path)


@pytest.mark.django_db
def test_a_typescript_client_has_every_operation(generators, document, tmp_path) -> None:
    made = tmp_path / "made"
    said = ran(
        generators / "openapi-generator-cli",
        *("generate", "-i", document, "-g", "typescript-fetch", "-o", made),
    )
    assert not re.search(r"\b(WARN|ERROR)\b", said)
    text = "\n".join(path.read_text() for path in (made / "apis").glob("*.ts"))
    found = set(re.findall(r"async (\w+)\(", text))
    wanted = {re.sub("_(.)", lambda m: m[1].upper(), name) for name in operations(document)}
    assert wanted <= found
