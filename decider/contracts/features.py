"""The feature registry: the only definition of what a model sees.

The decider computes by it, training reads by it, and explanations speak by it. `feature_table`
holds the features themselves; their order is the layout of every feature vector (float32, shape
`(N_FEATURES,)`). `SCHEMA` is the hash of all that changes their meaning; a decider refuses a model
made for another schema.
"""

from __future__ import annotations

import hashlib

from decider.contracts.feature import Feature, Unit
from decider.contracts.feature_table import FEATURES
from decider.contracts.units import rounded_span, two_digits

__all__ = [
    "FEATURES",
    "INDEX",
    "NAMES",
    "N_FEATURES",
    "SCHEMA",
    "Feature",
    "Unit",
    "format_value",
    "schema_of",
]

N_FEATURES = len(FEATURES)
INDEX: dict[str, int] = {f.name: i for i, f in enumerate(FEATURES)}
NAMES: tuple[str, ...] = tuple(INDEX)


def schema_of(features: tuple[Feature, ...]) -> str:
    """Return the hash of all that changes the meaning of a vector, 16 hex digits.

    That is names, order, units, dtypes, sources, defaults and revisions. Words, owners and causes
    may change without a new schema: no score depends on them.
    """
    lines = (f"{f.name}|{f.dtype}|{f.unit}|{f.source}|{f.default!r}|{f.revision}" for f in features)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


SCHEMA = schema_of(FEATURES)


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIERS = ("free", "standard", "premium", "enterprise")


def format_value(feature: Feature, value: float) -> str:
    """Return a value as people read it: 18%, 3.4 ×, 2 h. NaN reads "unknown"."""
    if value != value:
        return "unknown"
    match feature.unit:
        case "share":
            # under 9.5% a whole percent is too coarse: 1.4% would read 1%
            return f"{value * 100:.0f}%" if value >= 0.095 or value == 0 else f"{value * 100:.1f}%"
        case "ratio":
            return f"{two_digits(value)} ×"
        case "seconds":
            return rounded_span(value)
        case "days" if value >= 730:
            return f"{two_digits(value / 365)} years"
        case "days":
            return _counted(value, "day")
        case "kilobytes":
            return f"{two_digits(value)} kB"
        case "bits":  # nobody thinks in bits: 1 bit is the spread of two places used alike
            return _counted(2.0**value, "place")
        case "count":
            return f"{value:,.0f}"
        case "hour" | "level" | "flag":
            return _format_code(feature.unit, value)
    return two_digits(value)


def _counted(value: float, what: str) -> str:
    number = two_digits(value)
    return f"{number} {what}" if number == "1" else f"{number} {what}s"


def _format_code(unit: Unit, value: float) -> str:
    """Write a value that stands for a word: the hour of a week, a tier, yes or no."""
    if unit == "hour":
        return f"{_DAYS[int(value) // 24 % 7]} {int(value) % 24:02d}:00"
    if unit == "level":
        # a value from a changed profile shows as the nearest tier there is
        return _TIERS[min(3, max(0, int(value)))]
    return "yes" if value >= 0.5 else "no"
