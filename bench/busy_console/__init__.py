"""The console with fifty operators: how long a switch flip takes, and their pages."""

from __future__ import annotations

from bench.busy_console import flips, pages


def measure() -> list[dict[str, object]]:
    """Return the rows of both. Raises RuntimeError when an installation does not start."""
    return [*flips.measure(), *pages.measure()]
