"""Rows of the table: shares of repeats that were admitted, with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bench import row
from bench.waiting_clients.ledger import Trial, by_reason, wilson

# Targets, each at least: share of repeats admitted, lower end of its 95% interval, and trials.
TARGET, LOWER, TRIALS = 0.95, 0.93, 500


def trial_row(name: str, trials: list[Trial], said: str, judged: bool) -> dict[str, object]:
    """Return the row of a share of repeats admitted. `judged`: whether it must reach TARGET."""
    good = sum(t.admitted for t in trials)
    low, high = wilson(good, len(trials))
    share = good / len(trials) if trials else 0.0
    met = share >= TARGET and low >= LOWER and len(trials) >= TRIALS
    apps = len({t.app for t in trials})
    said = (
        f"{good:,} of {len(trials):,} repeats of {apps:,} apps, 95% {low:.3f} to {high:.3f}; {said}"
    )
    target = TARGET if judged else None
    return row(name, round(share, 4), "share", target, met if judged else None, said)


def reason_rows(where: str, trials: list[Trial]) -> list[dict[str, object]]:
    """Return a row for each status and machine reason of a first refusal."""
    return [
        trial_row(
            f"waiting clients: {name}, {where}",
            [t for t in trials if t.refusal.name == name],
            "refused again: " + (listed(_again(trials, name)) or "none"),
            False,
        )
        for name in by_reason(trials)
    ]


def _again(trials: Iterable[Trial], name: str) -> Counter[str]:
    return Counter(
        t.answer.name for t in trials if t.refusal.name == name and t.answer and t.answer.refused
    )


def not_tried_row(where: str, left: list[Trial]) -> dict[str, object]:
    """Return the row of refusals whose wait had not passed when the run ended."""
    reasons = Counter(t.refusal.name for t in left)
    return row(
        f"waiting clients: not tried in time, {where}",
        len(left),
        "refusals",
        None,
        None,
        listed(reasons) or "none",
    )


def listed(counts: Counter[str]) -> str:
    """Return counts as text, the largest first: "200 1,310, 429 12"."""
    return ", ".join(f"{name} {number:,}" for name, number in counts.most_common())
