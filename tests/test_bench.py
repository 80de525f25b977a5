"""The benches run where nothing of the console is set up."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.__main__ import PARTS
from tests.test_architecture import ROOT


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_imported_alone(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    done = subprocess.run(
        [sys.executable, "-B", "-c", f"from bench.{part} import measure"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-800:]
