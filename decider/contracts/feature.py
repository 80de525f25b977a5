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
    """One feature: its name, its texts, the source of its data, and how old that data may be."""

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
    """Code of its cause (`refusal.causes.CAUSES`). A reader is told the findings of one cause only
    once.
    """
    owner: str
    """Team that answers for it."""
    freshness_s: float
    """Oldest acceptable age, seconds, of the data it is computed from."""
    default: float
    """Value while nothing is known of the app."""
    owner_controls: bool = False
    """Whether the app's owner can change it (pace, errors, batching, waiting)."""
    risk: Literal[-1, 0, 1] = 0
    """How risk may change when the value rises: 1 only upwards, -1 only downwards, 0 either way. So
    nobody lowers their risk by doing more harm, and no explanation says that they did.
    """
    revision: int = 1
    """Raised when its computation changes, so that older models are refused."""
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
