"""One feature, as the registry describes it. `feature_table` lists them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["request", "counters", "feedback", "profile", "service", "clock"]
Unit = Literal[
    "per_s",
    "count",
    "ratio",
    "share",
    "cost_per_s",
    "seconds",
    "days",
    "bits",
    "kilobytes",
    "hour",
    "level",
    "flag",
    "cost",
]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: its name and words, where it comes from, and how old that may be."""

    name: str
    unit: Unit
    label: str
    """Plain-language name, sentence case."""
    code: str
    """Reason code stem; `_HIGH` or `_LOW` follows."""
    high: str
    """Sentence for staff when a high value is adverse."""
    low: str
    """Sentence for staff when a low value is adverse."""
    source: Source
    cause: str
    """Code of what it has in common with others (`refusal.causes.CAUSES`): findings of one cause
    are told once.
    """
    owner: str
    """Team that answers for it."""
    freshness_s: float
    """Oldest acceptable age of what it is computed from, seconds."""
    default: float
    """Value at a cold start."""
    owner_controls: bool = False
    """Whether the app's owner can change it (pace, errors, batching, waiting)."""
    risk: Literal[-1, 0, 1] = 0
    """The only way in which risk may move as it rises: 1 up, -1 down; 0 either way. So no one gains
    from doing more harm, and no explanation says what nobody would defend.
    """
    revision: int = 1
    """Raised when what it is computed from changes, so that models made before are refused."""
    dtype: str = "float32"


# Oldest acceptable age by source, seconds. Counters and the clock are read as of the request.
# Chosen for the others: outcomes and service figures come in batches, so a minute is usual; a
# profile changes rarely, so a day old one still holds.
_FRESHNESS_S: dict[Source, float] = {
    "request": 0.0,
    "counters": 1.0,
    "clock": 1.0,
    "feedback": 60.0,
    "service": 60.0,
    "profile": 86_400.0,
}
# Team by source; the others belong to "traffic".
_OWNERS: dict[Source, str] = {"profile": "accounts", "service": "sre"}


def make_feature(
    name: str,
    unit: Unit,
    label: str,
    code: str,
    high: str,
    low: str,
    source: Source,
    cause: str,
    *,
    default: float = 0.0,
    owner_controls: bool = False,
    risk: Literal[-1, 0, 1] = 0,
    revision: int = 1,
) -> Feature:
    """Return a feature whose owner and freshness follow from its source."""
    owner, freshness = _OWNERS.get(source, "traffic"), _FRESHNESS_S[source]
    words = (label, code, high, low)
    return Feature(
        name,
        unit,
        *words,
        source,
        cause,
        owner,
        freshness,
        default,
        owner_controls=owner_controls,
        risk=risk,
        revision=revision,
    )
