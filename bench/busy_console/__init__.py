"""The console with fifty operators: how long a switch flip takes, and their pages."""

from __future__ import annotations


def measure() -> list[dict[str, object]]:
    """Return the rows of both. Raises RuntimeError when an installation does not start."""
    # here: `flips` runs as a program too, and a program is not to be imported before it runs
    from bench.busy_console import flips, pages

    return [*flips.measure(), *pages.measure()]
