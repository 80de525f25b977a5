"""Times as access logs write them."""

from __future__ import annotations

import calendar
import math
import re
from datetime import UTC, datetime
from functools import lru_cache

from learning.logs.entry import LineError, Number, number

_COMMON = re.compile(
    r"(\d{1,2})/([A-Z][a-z]{2})/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})", re.ASCII
)
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: n for n, name in enumerate(_NAMES, 1)}
# Characters of an ISO 8601 time; the longest has nanoseconds and a zone.
_LONGEST_ISO = 40


# Many lines share a second, and parsing a date costs more than looking it up.
@lru_cache(maxsize=4096)
def common_time(when: str) -> float:
    """Return unix seconds of "22/Jan/2019:03:56:14 +0330". Raises LineError."""
    if (found := _COMMON.fullmatch(when)) is None or found[2] not in _MONTHS:
        raise LineError("no time of a known form")
    day, year, hour, minute, second = (int(found[k]) for k in (1, 3, 4, 5, 6))
    try:
        # datetime knows no leap second; second 60 is added again below.
        moment = datetime(year, _MONTHS[found[2]], day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        raise LineError("a time that does not exist") from None
    ahead = int(found[8]) * 3600 + int(found[9]) * 60
    return float(
        calendar.timegm(moment.timetuple())
        + (second - min(second, 59))
        - (ahead if found[7] == "+" else -ahead)
    )


def written_time(written: Number) -> float:
    """Return unix seconds of a number or an ISO 8601 text, which is UTC unless it says otherwise.

    Raises LineError.
    """
    if math.isfinite(seconds := number(written)):
        return seconds
    if not isinstance(written, str) or len(written) > _LONGEST_ISO:
        raise LineError("no time of a known form")
    try:
        moment = datetime.fromisoformat(written)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise LineError("no time of a known form") from None
