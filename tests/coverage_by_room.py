"""Show the branch coverage of the last run by room: `python -m tests.coverage_by_room`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import django

from tests import template_coverage

COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def rooms(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> dict[str, Counter[str]]:
    """Return what coverage.py's JSON report counted, added up by the first part of each path."""
    found: dict[str, Counter[str]] = {}
    for path, file in report["files"].items():
        counts = found.setdefault(Path(path).parts[0], Counter())
        counts.update({name: file["summary"].get(name, 0) for name in COUNTED})
    return found


def share(counts: Counter[str]) -> float:
    """Return covered lines and branches as a share of all, 0 to 1; 1 where there are none."""
    every = counts["num_statements"] + counts["num_branches"]
    return (counts["covered_lines"] + counts["covered_branches"]) / every if every else 1.0


def templates() -> Counter[str]:
    """Return the same counts of the templates: their parts stand for lines."""
    parts, branches = template_coverage.every()
    rendered = template_coverage.read()
    counts = (len(parts), len(parts & rendered), len(branches), len(branches & rendered))
    return Counter(dict(zip(COUNTED, counts, strict=True)))


def main() -> int:
    """Print the table. Return 0, or 2 when there is nothing to report on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"There is no coverage to show: {done.stdout}{done.stderr}".strip())
            return 2
        found = rooms(json.loads(path.read_text()))
    os.environ.update(DJANGO_SETTINGS_MODULE="tests.settings", SLUICE_TESTS="fast")
    django.setup()
    found["templates"] = templates()
    print(f"{'room':<12}{'lines':>8}{'branches':>10}{'covered':>9}")
    for room, counts in sorted(found.items()):
        print(
            f"{room:<12}{counts['num_statements']:>8,}{counts['num_branches']:>10,}"
            f"{share(counts):>9.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
