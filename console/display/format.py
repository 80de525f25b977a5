"""How the console writes actions, figures, shares, times and lengths of time: text, no markup."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime

from django.utils import timezone

from decider.contracts.ids import format_decision_id
from decider.contracts.units import UNKNOWN as UNKNOWN  # pages import all of these from here
from decider.contracts.units import bucket_left as bucket_left
from decider.contracts.units import plan_figure as plan_figure
from decider.contracts.units import span as span
from decider.contracts.units import whole_left as whole_left
from decider.contracts.vocabulary import Action, Stage, Tier
from decisions.counts.estimate import Estimate

# A true minus sign: as wide as a digit, unlike a hyphen, so columns of figures line up.
_MINUS = "\u2212"


def action(value: int | str | Action) -> Action:
    """Return an action from its number or its word."""
    return Action[value.upper()] if isinstance(value, str) else Action(value)


def action_word(value: int | Action) -> str:
    return Action(value).word


def stage_label(value: int | Stage) -> str:
    return Stage(value).label


def tier_word(value: int | Tier) -> str:
    return Tier(value).word


def number(value: float | None, places: int = 0) -> str:
    """Return a figure with commas between thousands and a true minus sign; "–" for None."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{abs(value):,.{int(places)}f}"
    return f"{_MINUS}{text}" if value < 0 and text.strip("0.,") else text


def low_to_high(estimate: Estimate) -> str:
    """Return the 95% interval of an estimated count, "12 to 31"; empty for an exact count."""
    return "" if estimate.exact else f"{number(estimate.low)} to {number(estimate.high)}"


def percent(value: float | None, places: int = 2) -> str:
    """Return a share (0 to 1) in percent: 0.0608 is 6.08%."""
    return (
        UNKNOWN if value is None or not math.isfinite(value) else f"{number(value * 100, places)}%"
    )


def risk2(value: float | None) -> str:
    """Return a probability with two decimals; "–" for None."""
    return number(value, 2)


def signed(value: float | None, places: int = 2) -> str:
    """Return a difference with its sign; zero has none."""
    text = number(value, places)
    return f"+{text}" if text != UNKNOWN and not text.startswith(_MINUS) and value else text


def as_datetime(value: datetime | float | None) -> datetime | None:
    """Return a datetime in UTC from a datetime or unix seconds; None for no time.

    Zero and less mean "never" in stored records.
    """
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return datetime.fromtimestamp(value, UTC) if value > 0 and math.isfinite(value) else None


def utc_time(value: datetime | float | None) -> str:
    """Return a time in UTC as HH:MM:SS; "–" for no time."""
    return f"{at:%H:%M:%S}" if (at := as_datetime(value)) else UNKNOWN


def utc_moment(value: datetime | float | None) -> str:
    """Return a time in UTC as HH:MM:SS if it is of today, else with its day: "27 Nov 22:41"; "–"
    for no time.
    """
    at = as_datetime(value)
    if at is None or at.date() == timezone.now().astimezone(UTC).date():
        return utc_time(at)
    return f"{at.day} {at:%b %H:%M}"


def utc_minute(value: datetime | float | None) -> str:
    """Return a time in UTC as HH:MM; "–" for no time."""
    return f"{at:%H:%M}" if (at := as_datetime(value)) else UNKNOWN


def utc_ms(value: datetime | float | None) -> str:
    """Return a time in UTC as HH:MM:SS.mmm; "–" for no time."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}" if (at := as_datetime(value)) else UNKNOWN


def utc_datetime(value: datetime | float | None) -> str:
    """Return a time as "Tue 18 Nov 2025, 14:21:36 UTC"; "–" for no time."""
    return f"{at:%a} {at.day} {at:%b %Y, %H:%M:%S} UTC" if (at := as_datetime(value)) else UNKNOWN


def iso(value: datetime | float | None) -> str:
    """Return a time as ISO 8601 for the `datetime` attribute of `<time>`; empty for no time."""
    return (
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if (at := as_datetime(value))
        else ""
    )


def ago(value: datetime | float | None) -> str:
    """Return how long ago a time is, as "7 m 57 s ago"; "–" for no time."""
    at = as_datetime(value)
    return f"{span((timezone.now() - at).total_seconds())} ago" if at else UNKNOWN


def duration_ms(value: float | None) -> str:
    """Return milliseconds with their unit: 0.042 ms, 3.8 ms, 412 ms, 1,840 ms; "–" for None."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    places = 0 if value >= 10 else 1 if value >= 1 else 3
    return f"{number(value, places)} ms"


def decision_id(value: bytes | memoryview | uuid.UUID) -> str:
    """Return a decision id as text: `dec_` and 32 hexadecimal digits."""
    return format_decision_id(value.bytes if isinstance(value, uuid.UUID) else bytes(value))
