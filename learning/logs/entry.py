"""One request of an access log: the fields of a line as they were written, and the checked entry
that is made of them.

Everything in a log was written by strangers. Each field is checked for type, range and length here,
whatever format it came from. A client's address becomes a keyed pseudonym and is not kept, so
nothing downstream ever sees it.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from dataclasses import dataclass
from urllib.parse import quote

from decider.contracts.normalise import addresses
from decider.contracts.normalise.paths import MOST_CHARACTERS
from learning.logs.cdn import is_cdn

# Characters. A longer path is cut to one more than is read, so that it is too long here as well.
MAX_PATH = MOST_CHARACTERS + 1
# Bytes. A larger size is a broken field, and is read as unknown.
MAX_SIZE = 10**12
# One hour. A longer duration is a broken field, and is read as unknown.
MAX_DURATION_MS = 3_600_000.0
# 1 January 1990, unix seconds. The web is younger, so an earlier time is that of a clock which was
# not set yet.
EARLIEST = 631_152_000.0
# The year 5138, unix seconds. Larger times are most likely milliseconds.
LATEST = 1e11
NO_ADDRESS = "no client address"
OUT_OF_ORDER = "time out of order"

_METHOD = re.compile(r"[A-Z][A-Z_-]{0,15}", re.ASCII)
_VISIBLE = re.compile(r"[!-~]{1,128}", re.ASCII)
# At the beginning only: a path may itself hold an address, as those of scanners do.
_ABSOLUTE = re.compile(r"\A(?:http|ws)s?://[^/?#]*", re.IGNORECASE | re.ASCII)
_PLAIN = re.compile(r"[!-~]*", re.ASCII)
_SAFE = "".join(map(chr, range(0x21, 0x7F)))

Number = int | float | str | None


class LineError(Exception):
    """One line cannot be read; such lines are counted by the message, which says why."""


class FormatMismatch(LineError):
    """A line does not have the shape of a format."""


@dataclass(slots=True)
class Written:
    """The fields of a line as a format finds them, nothing checked yet."""

    client: str
    """The client's address; empty or "-" when the log does not know it."""
    at: float
    """Unix seconds at which the request came."""
    method: str
    target: str
    """Path and query, or a whole address."""
    status: Number
    bytes_out: Number = None
    bytes_in: Number = None
    duration_ms: Number = None
    agent: str | None = None
    request_id: str | None = None
    app: str | None = None
    """The app that the gateway recognised."""
    served: bool = True
    """Whether a service answered, as far as the log tells."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request of a log. `app` and `source` are pseudonyms, except an app that the gateway
    named.
    """

    at: float
    """Unix seconds by the log's own clock."""
    app: str
    source: str
    method: str
    path: str
    """As it was written: begins with "/", without its query, ASCII."""
    status: int
    duration_ms: float | None
    """None when the log does not say."""
    bytes_in: int
    bytes_out: int
    request_id: str
    served: bool
    """Whether a service answered; False when the gateway answered itself."""
    agent: int
    """Hash of the user agent, 0 when unknown."""
    via_cdn: bool
    """The address belongs to a content delivery network: many clients stand behind it."""


def pseudonym(key: bytes, address: str) -> str:
    """Return `anon_` and 12 hexadecimal digits: the same for the same address and key. Nobody can
    get back to the address without the key.
    """
    # BLAKE2b takes keys of at most 64 bytes.
    return "anon_" + hashlib.blake2b(address.encode(), key=key[:64], digest_size=6).hexdigest()


def entry_of(line: Written, key: bytes) -> LogEntry:
    """Return the checked request of one line. Raises LineError for a field without which it cannot
    be played.
    """
    named = _visible(line.app) if line.app != "-" else ""
    client = _client(line.client, needed=not named)
    source = pseudonym(key, client) if client else ""
    if not _METHOD.fullmatch(line.method):
        raise LineError("no request with a method and a path")
    if line.at < EARLIEST:
        raise LineError(OUT_OF_ORDER)
    # Written as "not <=", so that NaN is refused too.
    if not line.at <= LATEST:
        raise LineError("a time after 5138")
    return LogEntry(
        at=line.at,
        # Where no app is named, the address stands for it.
        app=named or source,
        source=source,
        method=line.method,
        path=_path(line.target),
        status=_status(line.status),
        duration_ms=duration(line.duration_ms),
        bytes_in=_size(line.bytes_in),
        bytes_out=_size(line.bytes_out),
        request_id=_visible(line.request_id) if line.request_id != "-" else "",
        served=line.served,
        agent=_agent_hash(line.agent),
        # A named app is one client, wherever its requests come from.
        via_cdn=bool(client) and not named and is_cdn(client),
    )


def _client(written: str, *, needed: bool) -> str:
    """Return the client's address in its one reading; empty if it has none and needs none.

    Raises LineError.
    """
    if written in ("", "-"):
        reason = NO_ADDRESS
    else:
        try:
            return addresses.address(written)
        except addresses.AddressError:
            reason = "the client is not an address"
    if needed:
        raise LineError(reason)
    return ""


def request_line(line: str) -> tuple[str, str]:
    """Return method and target of "GET /a?b HTTP/1.1"; the last word may be missing (HTTP/0.9)."""
    method, _, rest = line.partition(" ")
    # From the right: clients send targets with spaces in them.
    target, _, version = rest.rpartition(" ")
    if version.startswith("HTTP/") or (version == "-" and target):
        return method, target
    return method, rest


def _path(target: str) -> str:
    """Return the path of a request target, without its query, as ASCII. Raises LineError."""
    if not target:
        raise LineError("no request with a method and a path")
    path = _ABSOLUTE.sub("", target, count=1).split("?", 1)[0].split("#", 1)[0]
    # "OPTIONS *" asks about the server itself.
    if path in ("", "*"):
        return "/"
    if not path.startswith("/"):
        raise LineError("no path that begins with /")
    path = path[:MAX_PATH]
    return path if _PLAIN.fullmatch(path) else quote(path, safe=_SAFE, errors="replace")[:MAX_PATH]


def _agent_hash(agent: str | None) -> int:
    # Plus one, because 0 means unknown.
    known = agent is not None and agent not in ("", "-")
    return zlib.crc32(agent.encode("utf-8", "surrogatepass")) + 1 if agent and known else 0


def _visible(text: str | None) -> str:
    return text if text and _VISIBLE.fullmatch(text) else ""


def _status(value: Number) -> int:
    if isinstance(value, str):
        # isdigit alone accepts digits of other scripts, which int reads as well.
        value = int(value) if len(value) == 3 and value.isascii() and value.isdigit() else 0
    if not isinstance(value, int) or not 100 <= value <= 599:
        raise LineError("no status from 100 to 599")
    return value


def _size(value: Number) -> int:
    """Return a size in bytes; 0 when it is unknown or beyond MAX_SIZE."""
    if isinstance(value, str):
        # The length first: int of a very long text is slow, and Python refuses it.
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 13 else 0
    return value if isinstance(value, int) and 0 <= value <= MAX_SIZE else 0


def number(value: Number) -> float:
    """Return a written number; NaN when it is none."""
    # The length first, as in `_size`; no duration or time has more digits.
    if value is None or (isinstance(value, str) and len(value) > 40):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def duration(value: Number) -> float | None:
    """Return a duration in milliseconds; None when it is unknown or beyond MAX_DURATION_MS."""
    milliseconds = number(value)
    return milliseconds if 0 <= milliseconds <= MAX_DURATION_MS else None
