"""Benches: each part measures Sluice against a peer in the same run."""

from __future__ import annotations


def row(
    name: str,
    figure: float | None,
    unit: str,
    target: object,
    met: bool | None,
    conditions: str,
) -> dict[str, object]:
    """Return the row of a figure without a peer; `target` and `met` are None without a target."""
    return {
        "name": name,
        "figure": figure,
        "unit": unit,
        "peer": None,
        "peer_figure": None,
        "ratio": None,
        "target": target,
        "met": met,
        "conditions": conditions,
    }


def missing(name: str, why: str, target: object = None, unit: str = "") -> dict[str, object]:
    """Return the row of a figure that could not be measured, with the reason."""
    return row(name, None, unit, target, None, f"not measured: {why}")
