"""Reader of access logs: common and combined format (Apache, nginx) and the gateway's JSON lines,
plain or gzip.

Logs come broken in every way: bad encodings, cut lines, lines in an extra pair of quotes, time
running backwards. A line that cannot be read is skipped and counted by its reason; nothing in a
line can stop the reading. A client's address becomes a keyed pseudonym here and is not kept, so
nothing downstream ever sees it.
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

from decider.contracts.normalise.addresses import source_of

LogFormat = Literal["auto", "combined", "envoy"]
# Bytes. A longer line is skipped: web servers refuse such requests, so it is damage, and reading it
# whole would cost memory.
MAX_LINE = 65_536
# Characters. A longer path is cut; routes are decided by its beginning.
MAX_PATH = 1_024
# Bytes. A larger size is a broken field, and is read as unknown.
MAX_SIZE = 10**12
# One hour. A longer duration is a broken field, and is read as unknown.
MAX_DURATION_MS = 3_600_000.0
# Lines held back to put them in order. Servers write a line when the answer ends, so lines are out
# of order by as many as are answered meanwhile. Chosen: far more than that, for some 50 MB.
SORT_WITHIN = 100_000
# An address with at least this many user agents may be shared (a CDN, a proxy, a company). Chosen:
# one person's browsers and tools are fewer.
SHARED_FROM = 8
# User agents remembered for one address. More are not needed to see that it is shared, and a client
# that invents a new one for each request must not fill the memory.
_AGENTS_KEPT = 64
# No nested quantifiers in these patterns, so that a hostile line costs linear time.
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


# Published ranges of Cloudflare and Fastly. Each of their addresses stands for many clients, so
# limits by address would punish all of them.
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
    """A log cannot be read at all: it is missing, unreadable, or not text."""


class LineError(Exception):
    """One line cannot be read; such lines are counted by the message, which says why."""


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
    """Begins with "/", without its query, ASCII."""
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


@dataclass(slots=True)
class ReadReport:
    """Counts of what the reader met in a log."""

    lines: int = 0
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> lines skipped."""
    noticed: Counter[str] = field(default_factory=Counter)
    """Oddity -> lines that were read in spite of it."""
    agents: dict[str, set[int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    """Pseudonym -> requests."""
    via_cdn: int = 0
    """Requests from addresses of a content delivery network."""

    def shared(self) -> list[str]:
        """Return the pseudonyms of addresses that many clients may share, by their user agents."""
        return [app for app, agents in self.agents.items() if len(agents) >= SHARED_FROM]


class _EnvoyLine(msgspec.Struct):
    """The gateway's JSON line, as `examples/gateway/envoy.yaml` writes it."""

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
    """Return `anon_` and 12 hexadecimal digits: the same for the same source and key. Nobody can
    get back to the address without the key.
    """
    # BLAKE2b takes keys of at most 64 bytes. A broken encoding in a line may leave lone surrogates.
    text = (source_of(address) or address).encode("utf-8", "surrogatepass")
    return "anon_" + hashlib.blake2b(text, key=key[:64], digest_size=6).hexdigest()


# A log names the same addresses again and again, and two dozen networks are slow to try each time.
@lru_cache(maxsize=65_536)
def _is_cdn(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in _CDN)


def parse_line(raw: bytes, key: bytes, form: LogFormat = "auto") -> LogEntry:
    """Return the request of one line. Raises LineError for a line that cannot be read, and never
    any other error.
    """
    # The length comes first: regular expressions never run on an overlong line.
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
        # Latin-1 decodes any bytes, so old logs are read too.
        return raw.decode("latin-1")


def _unwrapped(text: str) -> str:
    """Return the line without the pair of quotes that some exports put around each line."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' and text[1] != '"' else text


def _combined(text: str, key: bytes) -> LogEntry:
    if (found := _COMBINED.match(text)) is None:
        raise LineError("not a line of a known format")
    address, when, line, status, size, _, agent = found.groups()
    method, path = _request_line(line)
    app = pseudonym(key, address)
    # These formats name no app, no duration and no request id: the address stands for the app.
    return LogEntry(
        at=_combined_time(when),
        app=app,
        source=app,
        method=method,
        path=path,
        status=_status(status),
        duration_ms=None,
        bytes_in=0,
        bytes_out=_size(size),
        request_id="",
        served=True,
        agent=_agent_hash(agent),
        via_cdn=_is_cdn(address),
    )


def _agent_hash(agent: str | None) -> int:
    # Plus one, because 0 means unknown.
    known = agent is not None and agent not in ("", "-")
    return zlib.crc32(agent.encode("utf-8", "surrogatepass")) + 1 if agent and known else 0


def _request_line(line: str) -> tuple[str, str]:
    """Return method and path of "GET /a?b HTTP/1.1"; the last word may be missing (HTTP/0.9).

    Raises LineError.
    """
    method, _, rest = line.partition(" ")
    # From the right: clients send targets with spaces in them.
    target = rest.rsplit(" ", 1)[0] if rest.rsplit(" ", 1)[-1].startswith("HTTP/") else rest
    if not _METHOD.fullmatch(method) or not target:
        raise LineError("no request with a method and a path")
    return method, _path(target)


def _path(target: str) -> str:
    """Return the path of a request target, without its query, as ASCII. Raises LineError."""
    path = _ABSOLUTE.sub("", target, count=1).split("?", 1)[0].split("#", 1)[0]
    # "OPTIONS *" asks about the server itself.
    if path in ("", "*"):
        return "/"
    if not path.startswith("/"):
        raise LineError("no path that begins with /")
    path = path[:MAX_PATH]
    return path if _PLAIN.fullmatch(path) else quote(path, safe=_SAFE, errors="replace")[:MAX_PATH]


# Many lines share a second, and parsing a date costs more than looking it up.
@lru_cache(maxsize=4096)
def _combined_time(when: str) -> float:
    """Return unix seconds of "22/Jan/2019:03:56:14 +0330". Raises LineError."""
    if (found := _TIME.fullmatch(when)) is None or found[2] not in _MONTHS:
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


def _envoy(text: str, key: bytes) -> LogEntry:
    line = _envoy_line(text)
    source = pseudonym(key, line.source) if line.source and line.source != "-" else ""
    named = line.app if line.app and line.app != "-" and _VISIBLE.fullmatch(line.app) else ""
    if not named and not source:
        raise LineError("neither an app nor an address")
    return LogEntry(
        at=_envoy_time(line.ts),
        app=named or source,
        source=source,
        method=line.method,
        path=_path(line.path),
        status=_status(line.status),
        duration_ms=_duration(line.duration_ms),
        bytes_in=_size(line.bytes_in),
        bytes_out=_size(line.bytes_out),
        request_id=_visible(line.request_id),
        served=bool(line.service),
        agent=0,
        # A named app is one client, wherever its requests come from.
        via_cdn=bool(line.source) and not named and _is_cdn(line.source or ""),
    )


def _envoy_line(text: str) -> _EnvoyLine:
    try:
        line = _decode_envoy(text)
    # Deeply nested JSON raises RecursionError. Only its own line must be lost.
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeError):
        raise LineError("not a JSON line in the gateway's form") from None
    if not _METHOD.fullmatch(line.method):
        raise LineError("no valid HTTP method")
    return line


def _visible(text: str | None) -> str:
    return text if text and _VISIBLE.fullmatch(text) else ""


def _envoy_time(ts: str | float) -> float:
    """Return unix seconds of a number or an ISO 8601 text. Raises LineError."""
    try:
        at = float(ts) if isinstance(ts, int | float) else datetime.fromisoformat(ts).timestamp()
    except (ValueError, OverflowError, OSError):
        raise LineError("no time of a known form") from None
    # 1e11 s is the year 5138: larger times are most likely milliseconds.
    if not math.isfinite(at) or not 0 <= at < 1e11:
        raise LineError("a time before 1970 or after 5138")
    return at


def _status(value: int | str) -> int:
    if isinstance(value, str):
        # isdigit alone accepts digits of other scripts, which int reads as well.
        value = int(value) if len(value) == 3 and value.isascii() and value.isdigit() else 0
    if not 100 <= value <= 599:
        raise LineError("no status from 100 to 599")
    return value


def _size(value: int | str | None) -> int:
    """Return a size in bytes; 0 when it is unknown or beyond MAX_SIZE."""
    if isinstance(value, str):
        # The length first: int of a very long text is slow, and Python refuses it.
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
    """Yield the requests of a log in time order and add its counts to `report`.

    A line that is more than SORT_WITHIN lines out of order comes late. Raises LogError when the log
    cannot be read at all.
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
    """Yield the entries in time order, as far as holding back `most` of them allows. An entry that
    is older than one already given comes late and is counted.
    """
    # The ticket keeps entries of equal time in the log's order, and entries are never compared.
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
    """Yield the raw lines of a plain or gzip file; of an overlong line its first MAX_LINE bytes.

    Raises LogError when the file cannot be read at all.
    """
    with _opened(path) as stream:
        while raw := _next_bytes(lambda: stream.readline(MAX_LINE), report):
            yield raw
            # Skip the rest of an overlong line, or its pieces would count as lines.
            while len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                raw = _next_bytes(lambda: stream.readline(MAX_LINE), report)


def _next_bytes(take: Callable[[], bytes], report: ReadReport) -> bytes:
    """Return the next bytes. A damaged or cut gzip file ends there, and the report says so."""
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
        # The first bytes tell a gzip file, not its name: rotated logs are often misnamed.
        with gzip.open(path, "rb") if head == b"\x1f\x8b" else path.open("rb") as stream:
            start = _peek(stream, path)
            # No text has a NUL byte; binary files would give millions of skipped lines.
            if b"\0" in start:
                raise LogError(f"{path} is not a text file.")
            stream.seek(0)
            # GzipFile reads like a BinaryIO, but typeshed does not derive it from that.
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
