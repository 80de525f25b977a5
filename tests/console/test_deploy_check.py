"""Django's own check of a production configuration finds nothing in the one that we describe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from console.local import servers

ROOT = Path(__file__).parents[2]


def described() -> dict[str, str]:
    """The variables of SECURITY.md."""
    text = (ROOT / "SECURITY.md").read_text()
    found = re.findall(r"^  (SLUICE_[A-Z_]+)=(\S+)$", text, re.MULTILINE)
    assert len(found) == 4
    return dict(found)


def checked(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    var = folder / "var"
    (var / "static").mkdir(parents=True)
    # as `manage.py up` makes it
    servers.kept_secret(var / "keys" / "session.key")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    environment = {
        **kept,
        "SLUICE_VAR": str(var),
        "DATABASE_URL": "postgresql://sluice_app:x@127.0.0.1:1/sluice",
        "VALKEY_URL": "redis://sluice-console:x@127.0.0.1:1/0",
        "DJANGO_SETTINGS_MODULE": "console.settings",
        **described(),
        **changes,
    }
    return subprocess.run(
        [sys.executable, "-B", "manage.py", "check", "--deploy", "--fail-level", "DEBUG"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_described_for_production_is_clean(tmp_path: Path) -> None:
    done = checked(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "finding"),
    [
        ("SLUICE_HTTPS", "false", "security.W004"),
        ("SLUICE_HSTS_SUBDOMAINS", "false", "security.W005"),
        ("SLUICE_DEBUG", "true", "security.W018"),
        ("SLUICE_SECRET_KEY", "too-short", "security.W009"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, name: str, value: str, finding: str) -> None:
    done = checked(tmp_path, **{name: value})
    assert done.returncode != 0
    assert finding in done.stderr
