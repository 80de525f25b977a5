"""How a length of time is written, everywhere a person reads one."""

from __future__ import annotations

import math
from datetime import timedelta

# Shown where a value is not there.
UNKNOWN = "–"


def span(seconds: float | timedelta | None) -> str:
    """A length of time in its two largest units: 7 m 57 s, 1 h 52 m, 3 d 4 h; tenths under ten
    seconds.
    """
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    parts = [
        (whole // 86_400, "d"),
        (whole % 86_400 // 3_600, "h"),
        (whole % 3_600 // 60, "m"),
        (whole % 60, "s"),
    ]
    first = next((k for k, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"
