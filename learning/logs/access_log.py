"""Reads access logs: common and combined format (Apache, nginx), and the gateway's JSON lines;
plain or gzip.

Logs come broken in every way: bad encodings, cut lines, lines in an extra pair of quotes, time
running backwards. What cannot be read is skipped and counted by reason; nothing in a line can stop
the reading. A client's address becomes a keyed pseudonym here and is not kept: nothing downstream
has ever seen it.
"""

from __future__ import annotations

import calendar
import gzip
import hashlib
import heapq
import ipaddress
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import quote

import msgspec

LogFormat = Literal["auto", "combined", "envoy"]
# A longer line is skipped, bytes.
MAX_LINE = 65_536
# A longer path is cut, characters.
MAX_PATH = 1_024
# A larger size is not believed and read as unknown, bytes.
MAX_SIZE = 10**12
MAX_DURATION_MS = 3_600_000.0
# Lines held back to put them in order: only worse disorder is left.
SORT_WITHIN = 100_000
# Different user agents from which an address counts as possibly shared (a CDN, a proxy, a company).
SHARED_FROM = 8
_AGENTS_KEPT = 64
_QUOTED = r'"([^"\\]*(?:\\.[^"\\]*)*)"'
_COMBINED = re.compile(
    rf"(\S+) \S+ [^\[]*\[([^\]]{{1,64}})\] {_QUOTED} (\d{{3}}) (\d+|-)(?: {_QUOTED} {_QUOTED})?",
    re.ASCII,
)
_TIME = re.compile(
    r"(\d{1,2})/([A-Z][a-z]{2})/(\d{4}):(\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})", re.ASCII
)
_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: n for n, name in enumerate(_NAMES, 1)}
_METHOD = re.compile(r"[A-Z][A-Z_-]{0,15}", re.ASCII)
_VISIBLE = re.compile(r"[!-~]{1,128}", re.ASCII)
_ABSOLUTE = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_PLAIN = re.compile(r"[!-~]*", re.ASCII)
_SAFE = "".join(map(chr, range(0x21, 0x7F)))


# Published ranges of Cloudflare and Fastly, whose addresses stand for many clients each.
_CDN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "173.245.48.0/20",
        "103.21.244.0/22",
        "103.22.200.0/22",
        "103.31.4.0/22",
        "141.101.64.0/18",
        "108.162.192.0/18",
        "190.93.240.0/20",
        "188.114.96.0/20",
        "197.234.240.0/22",
        "198.41.128.0/17",
        "162.158.0.0/15",
        "104.16.0.0/13",
        "104.24.0.0/14",
        "172.64.0.0/13",
        "131.0.72.0/22",
        "151.101.0.0/16",
        "199.232.0.0/16",
        "2400:cb00::/32",
        "2606:4700::/32",
        "2803:f800::/32",
        "2405:b500::/32",
        "2405:8100::/32",
        "2a06:98c0::/29",
        "2c0f:f248::/32",
    )
)


class LogError(Exception):
    """A log that cannot be read at all: missing, unreadable, or no text."""


class LineError(Exception):
    """One line that cannot be read; the message is the reason it is counted under."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request of a log. `app` and `source` are pseudonyms, unless the gateway itself named the
    app.
    """

    at: float
    """Unix seconds by the log's own clock."""
    app: str
    source: str
    method: str
    path: str
    """Begins with "/", without its query, ASCII."""
    status: int
    duration_ms: float | None
    """None when the log does not say."""
    bytes_in: int
    bytes_out: int
    request_id: str
    served: bool
    """Whether a service answered; False when the gateway did so itself."""
    agent: int
    """Hash of the user agent, 0 when unknown."""
    via_cdn: bool
    """The address belongs to a content delivery network: many clients stand behind it."""


@dataclass(slots=True)
class ReadReport:
    """What reading met with."""

    lines: int = 0
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> lines skipped."""
    noticed: Counter[str] = field(default_factory=Counter)
    """Oddity -> lines read all the same."""
    agents: dict[str, set[int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    """Pseudonym -> requests."""
    via_cdn: int = 0
    """Requests from addresses of a content delivery network."""

    def shared(self) -> list[str]:
        """Pseudonyms of addresses with so many user agents that many clients may stand behind
        each.
        """
        return [app for app, agents in self.agents.items() if len(agents) >= SHARED_FROM]


class _EnvoyLine(msgspec.Struct):
    """The gateway's JSON line; see `examples/gateway/envoy.yaml`."""

    ts: str | float
    method: str
    path: str
    status: int | str
    duration_ms: float | str | None = None
    app: str | None = None
    request_id: str | None = None
    decision: str | None = None
    service: str | None = None
    source: str | None = None
    bytes_in: int | str | None = None
    bytes_out: int | str | None = None


_decode_envoy = msgspec.json.Decoder(_EnvoyLine).decode


def pseudonym(key: bytes, address: str) -> str:
    """`anon_` and 12 hexadecimal digits: the same address under the same key, and no way back
    without it.
    """
    return (
        "anon_"
        + hashlib.blake2b(
            address.encode("utf-8", "surrogatepass"), key=key[:64], digest_size=6
        ).hexdigest()
    )


@lru_cache(maxsize=65_536)
def _is_cdn(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in _CDN)


def parse_line(raw: bytes, key: bytes, form: LogFormat = "auto") -> LogEntry:
    """One line. Raises LineError, never anything else."""
    if len(raw) >= MAX_LINE:
        raise LineError("longer than 64 kB")
    text = _decode(raw).strip()
    if not text:
        raise LineError("empty")
    if form == "envoy" or (form == "auto" and text.startswith("{")):
        return _envoy(text, key)
    return _combined(_unwrapped(text), key)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _unwrapped(text: str) -> str:
    """Some exports put each line in quotes of its own."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' and text[1] != '"' else text


def _combined(text: str, key: bytes) -> LogEntry:
    if (found := _COMBINED.match(text)) is None:
        raise LineError("not a line of a known format")
    address, when, line, status, size, _, agent = found.groups()
    method, path = _request_line(line)
    app = pseudonym(key, address)
    agent_hash = (
        zlib.crc32(agent.encode("utf-8", "surrogatepass")) + 1 if agent and agent != "-" else 0
    )
    return LogEntry(
        _combined_time(when),
        app,
        app,
        method,
        path,
        _status(status),
        None,
        0,
        _size(size),
        "",
        True,
        agent_hash,
        _is_cdn(address),
    )


def _request_line(line: str) -> tuple[str, str]:
    method, _, rest = line.partition(" ")
    target = rest.rsplit(" ", 1)[0] if rest.rsplit(" ", 1)[-1].startswith("HTTP/") else rest
    if not _METHOD.fullmatch(method) or not target:
        raise LineError("no request in it")
    return method, _path(target)


def _path(target: str) -> str:
    """The path of a request target, without query, as ASCII. Raises LineError."""
    path = _ABSOLUTE.sub("", target, count=1).split("?", 1)[0].split("#", 1)[0]
    if path in ("", "*"):
        return "/"
    if not path.startswith("/"):
        raise LineError("no path in it")
    path = path[:MAX_PATH]
    return path if _PLAIN.fullmatch(path) else quote(path, safe=_SAFE, errors="replace")[:MAX_PATH]


@lru_cache(maxsize=4096)
def _combined_time(when: str) -> float:
    if (found := _TIME.fullmatch(when)) is None or found[2] not in _MONTHS:
        raise LineError("no time in it")
    day, year, hour, minute, second = (int(found[k]) for k in (1, 3, 4, 5, 6))
    try:
        moment = datetime(year, _MONTHS[found[2]], day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        raise LineError("no such time") from None
    ahead = int(found[8]) * 3600 + int(found[9]) * 60
    return float(
        calendar.timegm(moment.timetuple())
        + (second - min(second, 59))
        - (ahead if found[7] == "+" else -ahead)
    )


def _envoy(text: str, key: bytes) -> LogEntry:
    try:
        read = _decode_envoy(text)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeError):
        raise LineError("not a line of the gateway's") from None
    if not _METHOD.fullmatch(read.method):
        raise LineError("no request in it")
    source = pseudonym(key, read.source) if read.source and read.source != "-" else ""
    named = read.app if read.app and read.app != "-" and _VISIBLE.fullmatch(read.app) else ""
    if not named and not source:
        raise LineError("neither an app nor an address in it")
    request_id = read.request_id if read.request_id and _VISIBLE.fullmatch(read.request_id) else ""
    return LogEntry(
        _envoy_time(read.ts),
        named or source,
        source,
        read.method,
        _path(read.path),
        _status(read.status),
        _duration(read.duration_ms),
        _size(read.bytes_in),
        _size(read.bytes_out),
        request_id,
        bool(read.service),
        0,
        bool(read.source) and not named and _is_cdn(read.source or ""),
    )


def _envoy_time(ts: str | float) -> float:
    try:
        at = float(ts) if isinstance(ts, int | float) else datetime.fromisoformat(ts).timestamp()
    except (ValueError, OverflowError, OSError):
        raise LineError("no time in it") from None
    if not math.isfinite(at) or not 0 <= at < 1e11:
        raise LineError("no such time")
    return at


def _status(value: int | str) -> int:
    status = (
        value
        if isinstance(value, int)
        else int(value)
        if len(value) == 3 and value.isascii() and value.isdigit()
        else 0
    )
    if not 100 <= status <= 599:
        raise LineError("no status in it")
    return status


def _size(value: int | str | None) -> int:
    """Bytes; 0 when unknown or not to be believed."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 13 else 0
    return value if value is not None and 0 <= value <= MAX_SIZE else 0


def _duration(value: float | str | None) -> float | None:
    try:
        duration = float(value) if value is not None else math.nan
    except (ValueError, OverflowError):
        return None
    return duration if 0 <= duration <= MAX_DURATION_MS else None


def read_entries(
    path: Path, key: bytes, report: ReadReport, form: LogFormat = "auto"
) -> Iterator[LogEntry]:
    """The requests of a log in time order, as far as SORT_WITHIN lines put them so. Raises
    LogError.
    """
    return _in_order(_parsed(path, key, report, form), report)


def _parsed(path: Path, key: bytes, report: ReadReport, form: LogFormat) -> Iterator[LogEntry]:
    for raw in read_lines(path, report):
        report.lines += 1
        try:
            entry = parse_line(raw, key, form)
        except LineError as error:
            report.skipped[str(error)] += 1
            continue
        report.read += 1
        report.requests[entry.app] += 1
        report.via_cdn += entry.via_cdn
        if entry.agent and len(agents := report.agents.setdefault(entry.app, set())) < _AGENTS_KEPT:
            agents.add(entry.agent)
        yield entry


def _in_order(
    found: Iterator[LogEntry], report: ReadReport, most: int = SORT_WITHIN
) -> Iterator[LogEntry]:
    """A bounded sort: holds back up to `most` entries. What is older still comes late and is
    counted.
    """
    held: list[tuple[float, int, LogEntry]] = []
    ticket, newest, last = count(), -math.inf, -math.inf
    for entry in found:
        if entry.at < newest:
            report.noticed["time runs backwards"] += 1
        newest = max(newest, entry.at)
        heapq.heappush(held, (entry.at, next(ticket), entry))
        if len(held) > most:
            at, _, oldest = heapq.heappop(held)
            report.noticed["too far out of order to sort"] += at < last
            last = max(last, at)
            yield oldest
    while held:
        yield heapq.heappop(held)[2]


def read_lines(path: Path, report: ReadReport) -> Iterator[bytes]:
    """Raw lines of a plain or gzip file; an overlong one gives its first MAX_LINE bytes. Raises
    LogError.
    """
    with _opened(path) as stream:
        while raw := _read(lambda: stream.readline(MAX_LINE), report):
            yield raw
            while len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                raw = _read(lambda: stream.readline(MAX_LINE), report)


def _read(take: Callable[[], bytes], report: ReadReport) -> bytes:
    """The next bytes; a damaged or cut gzip file ends there, and the report says so."""
    try:
        return take()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        report.skipped["the compressed file is damaged or cut short from here on"] += 1
        return b""


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as probe:
            head = probe.read(2)
        with gzip.open(path, "rb") if head == b"\x1f\x8b" else path.open("rb") as stream:
            start = _peek(stream, path)
            if b"\0" in start:
                raise LogError(f"{path} is not a text file.")
            stream.seek(0)
            yield stream  # type: ignore[misc]
    except FileNotFoundError:
        raise LogError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise LogError(f"{path} is a folder; name the log files in it.") from None
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror or error}.") from error


def _peek(stream: BinaryIO | gzip.GzipFile, path: Path) -> bytes:
    try:
        return stream.read(4096)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise LogError(f"{path} is a damaged gzip file.") from None
