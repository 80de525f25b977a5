"""How a length of time is written, everywhere a person reads one.

Three writers for three places: `span` for figures on a page (7 m 57 s), `rounded_span` for a value
within a sentence (5.3 h), `spoken_span` for a text to someone who does not read units (3 hours).
"""

from __future__ import annotations

import math
from datetime import timedelta

# Shown where a value is not there.
UNKNOWN = "–"

# Seconds in a unit. Days are UTC days of equal length: no time zone shortens one.
MINUTE_S = 60
HOUR_S = 3_600  # 60 minutes
DAY_S = 86_400  # 24 hours


def span(seconds: float | timedelta | None) -> str:
    """Return a length of time in its two largest units: 7 m 57 s, 1 h 52 m, 3 d 4 h.

    Under ten seconds it has tenths. A negative length is written as 0 s: clocks of two machines
    differ a little. Return UNKNOWN for None and for a value that is not finite.
    """
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    # from 9.95 on, tenths would round to "10.0 s"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    # rounded before it is split, so that 59.6 s becomes 1 m and not "60 s"
    whole = max(0, round(seconds))
    parts = [
        (whole // DAY_S, "d"),
        (whole % DAY_S // HOUR_S, "h"),
        (whole % HOUR_S // MINUTE_S, "m"),
        (whole % MINUTE_S, "s"),
    ]
    first = next((k for k, (count, _) in enumerate(parts) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"


def rounded_span(seconds: float) -> str:
    """Return a length of time in its largest unit, with two digits: 8 s, 1.5 min, 5.3 h, 12 d.

    Under a second it is in milliseconds.
    """
    for size, unit in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if seconds >= size:
            return f"{two_digits(seconds / size)} {unit}"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{two_digits(seconds)} s"


def spoken_span(seconds: int) -> str:
    """Return a length of time as a person says it: 1 second, 45 seconds, 5 minutes, 3 hours.

    Rounded up to whole units: someone who waits this long has waited long enough.
    """
    # below two of a unit, rounding up could nearly double what is said
    if seconds < 2 * MINUTE_S:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    size, unit = (MINUTE_S, "minutes") if seconds < 2 * HOUR_S else (HOUR_S, "hours")
    return f"{-(-seconds // size)} {unit}"


def two_digits(value: float) -> str:
    """Return a figure with two significant digits, from 100 on all of them: 0.12, 5.3, 42, 1,840.

    More digits would claim more than an estimate from a sample holds. Return "unknown" for NaN.
    """
    if math.isnan(value):
        return "unknown"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
