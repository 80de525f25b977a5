"""How lengths of time and figures are written, everywhere that a person reads them.

Four writers of time for four places: `span` for figures on a page (7 m 57 s), `rounded_span` for a
value within a sentence (5.3 h), `wait_span` for a time that someone has to wait (2 m 3 s),
`spoken_span` for a text to someone who does not read units (3 hours 20 minutes).

Figures are rounded so that they say nothing false: what is left to use is rounded down
(`whole_left`), a wait is rounded up, a plan's own figure keeps four digits (`plan_figure`), and two
different figures that a text compares never read alike (`told_apart`).
"""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal

# Shown where there is no value.
UNKNOWN = "–"

# Seconds in a unit. Days are UTC days of equal length: no time zone shortens one.
MINUTE_S = 60
HOUR_S = 3_600  # 60 minutes
DAY_S = 86_400  # 24 hours
# Digits of a figure that someone set. Chosen: 12.5 and 0.075 stay what they are.
PLAN_DIGITS = 4
# Most decimals of `told_apart`. Chosen: no model is exact to a millionth of risk.
MOST_PLACES = 6


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


def wait_span(seconds: float) -> str:
    """Return a time to wait, rounded up: 4 s, 2 m 3 s, 11 h 7 m, 2 d 1 h.

    The wait is in whole seconds as in Retry-After, from an hour on in whole minutes, from a day on
    in whole hours. It is rounded up, so whoever waits this long does not come too early. Return
    UNKNOWN for a value that is not finite.
    """
    if not math.isfinite(seconds):
        return UNKNOWN
    whole = max(0, math.ceil(seconds))
    step = 1 if whole < HOUR_S else MINUTE_S if whole < DAY_S else HOUR_S
    whole = -(-whole // step) * step
    return f"{whole} s" if whole < MINUTE_S else span(whole)


def spoken_span(seconds: int) -> str:
    """Return a time to wait as a person says it: 1 second, 100 seconds, 2 minutes 15 seconds, 11
    hours 7 minutes.

    Rounded up as `wait_span` does: someone who waits this long has waited long enough.
    """
    # up to two minutes in seconds, as Retry-After says it
    if seconds < 2 * MINUTE_S:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    told = wait_span(seconds).split()
    return " ".join(
        f"{count} {_SPOKEN[unit]}{'' if count == '1' else 's'}"
        for count, unit in zip(told[::2], told[1::2], strict=True)
    )


_SPOKEN = {"s": "second", "m": "minute", "h": "hour", "d": "day"}


def two_digits(value: float) -> str:
    """Return a figure with two significant digits, from 100 on with all whole ones: 0.12, 5.3,
    1,840.

    More digits would claim more than an estimate from a sample holds. Return "unknown" for NaN.
    """
    if math.isnan(value):
        return "unknown"
    return digits(value, 2)


def plan_figure(value: float) -> str:
    """Return a figure that someone set, such as a rate, a burst or a quota: 0.75, 12.5, 12,000.

    Return UNKNOWN for a value that is not finite.
    """
    return digits(value, PLAN_DIGITS) if math.isfinite(value) else UNKNOWN


def digits(value: float, count: int) -> str:
    """Return a figure with `count` significant digits or, if there are more, all its whole ones. It
    never has an exponent.
    """
    if abs(value) >= 10**count:
        return f"{value:,.0f}"
    shown = Decimal(f"{value:.{count}g}")
    # an exponent means nothing to most who read it: 1.2e+04 requests a second
    return f"{shown:,f}" if shown else "0"


def whole_left(count: float) -> str:
    """Return how many whole requests a bucket or a quota still admits: 0.97 of a token is 0.

    A request takes a whole one, so rounding up would promise what is refused. Return UNKNOWN for a
    value that is not finite.
    """
    return f"{max(0, math.floor(count)):,}" if math.isfinite(count) else UNKNOWN


def bucket_left(tokens: float) -> str:
    """Return what a token bucket holds: whole tokens, or how far the app is into its headroom."""
    return f"−{two_digits(-tokens)}, headroom" if tokens < 0 else whole_left(tokens)


def told_apart(*values: float, places: int = 2) -> tuple[str, ...]:
    """Return the texts of figures with as few decimals, at least `places`, as let figures that
    differ read differently: 0.484 and 0.483, not 0.48 and 0.48.

    Pass 0.0 or 1.0 as well where a figure must not read as one of these. Figures that still read
    alike with MOST_PLACES decimals get `places`.
    """
    for decimals in (*range(places, MOST_PLACES + 1), places):
        texts = tuple(f"{value:,.{decimals}f}" for value in values)
        if len(set(texts)) >= len(set(values)):
            break
    return texts


def one_in(share: float) -> str:
    """Return a share above 0 as "1 in 333" or "1 in 2.5"; only a share of 1 reads "1 in 1"."""
    times = 1.0 / share
    # three digits tell 1 in 33.3 from 1 in 33; nearer to 1 it takes more
    text = digits(times, 3)
    return f"1 in {told_apart(times, 1.0)[0] if text == '1' and share < 1.0 else text}"


def price_figure(price: float) -> str:
    """Return a price or a cost with two decimals, or more where a small one would read as 0.00."""
    return told_apart(price, 0.0)[0]


def cut_figures(risk: float, *cuts: float) -> tuple[str, ...]:
    """Return a risk and thresholds with at least two decimals, and with more where two of them
    would read alike or a threshold would read as 0.
    """
    # Rounded alone, they would read "risk 0.50, below the 0.50" or "0.48, at or above the 0.483".
    places = max((len(price_figure(cut).partition(".")[2]) for cut in cuts), default=2)
    return told_apart(risk, *cuts, places=places)


def figure(value: float | None) -> str:
    """Return a figure with two decimals, UNKNOWN for none."""
    return UNKNOWN if value is None else f"{value:.2f}"
