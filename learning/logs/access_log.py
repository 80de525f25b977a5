"""Reader of access logs, plain or gzip, in any of the formats of `formats`.

Logs come broken in every way: bad encodings, cut lines, lines in an extra pair of quotes, time
running backwards. A line that cannot be read is skipped and counted by its reason; nothing in a
line can stop the reading.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from learning.logs import formats
from learning.logs.entry import OUT_OF_ORDER, LineError, LogEntry, pseudonym
from learning.logs.formats import AUTO, MAX_LINE, Choice
from learning.logs.order import Numbered, believable, in_order

__all__ = ["LineError", "LogEntry", "LogError", "ReadReport", "parse_line", "pseudonym"]

# An address with at least this many user agents may be shared (a CDN, a proxy, a company). Chosen:
# one person's browsers and tools are fewer.
SHARED_FROM = 8
# User agents remembered for one address. More are not needed to see that it is shared, and a client
# that invents a new one for each request must not fill the memory.
_AGENTS_KEPT = 64
# A larger share of skipped lines makes figures of a log doubtful. Chosen: real logs hold a percent
# or two of scans and damaged lines, a wrong format many more.
SKIPPED_USUAL = 0.05
CUT_SHORT = "the compressed file is damaged or cut short from here on"


class LogError(Exception):
    """A log cannot be read at all: it is missing, unreadable, or not text."""


@dataclass(slots=True)
class ReadReport:
    """Counts of what the reader met in one or several logs."""

    lines: int = 0
    read: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Reason -> lines skipped."""
    first_skipped: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Reason -> the first of its lines: name of the log, and number of the line."""
    noticed: Counter[str] = field(default_factory=Counter)
    """Oddity -> lines that were read in spite of it."""
    choices: list[tuple[str, Choice]] = field(default_factory=list)
    """Name of each log, and the format in which it was read."""
    agents: dict[str, set[int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    """Pseudonym -> requests."""
    via_cdn: int = 0
    """Requests from addresses of a content delivery network."""

    def shared(self) -> list[str]:
        """Return the pseudonyms of addresses that many clients may share, by their user agents."""
        return [app for app, agents in self.agents.items() if len(agents) >= SHARED_FROM]

    def skip(self, reason: str, log: str, line: int) -> None:
        """Count a skipped line of the log of this name."""
        self.skipped[reason] += 1
        self.first_skipped.setdefault(reason, (log, line))

    def count(self, entry: LogEntry) -> None:
        """Count a request that was read."""
        self.read += 1
        self.requests[entry.app] += 1
        self.via_cdn += entry.via_cdn
        if entry.agent and len(agents := self.agents.setdefault(entry.app, set())) < _AGENTS_KEPT:
            agents.add(entry.agent)

    @property
    def skipped_share(self) -> float:
        """Skipped lines among all, 0 to 1."""
        return min(1.0, self.skipped.total() / max(self.lines, 1))

    @property
    def doubtful(self) -> bool:
        """Whether so many lines were skipped that what the others show may not hold."""
        return self.skipped_share > SKIPPED_USUAL


def parse_line(raw: bytes, key: bytes, form: str = AUTO) -> LogEntry:
    """Return the request of one line by itself. Raises LineError for a line that cannot be read,
    ValueError for a format that does not exist.
    """
    return formats.choose([raw], form).read(raw, key)


def read_entries(
    path: Path, key: bytes, report: ReadReport, form: str = AUTO
) -> Iterator[LogEntry]:
    """Yield the requests of a log in time order and add its counts to `report`.

    A line that is more than `order.SORT_WITHIN` lines out of order comes late. Raises LogError when
    the log cannot be read at all, ValueError for a format that does not exist.
    """

    def skip_time(line: int) -> None:
        report.skip(OUT_OF_ORDER, path.name, line)

    found = believable(_parsed(path, key, report, form), skip_time)
    return in_order(_counted(found, report), report.noticed)


def _parsed(path: Path, key: bytes, report: ReadReport, form: str) -> Iterator[Numbered]:
    """Yield the requests that can be read, with the numbers of their lines."""
    lines = read_lines(path, report)
    head = list(islice(lines, formats.SAMPLE))
    choice = formats.choose(head, form)
    report.choices.append((path.name, choice))
    for number, raw in enumerate(chain(head, lines), 1):
        report.lines += 1
        try:
            yield number, choice.read(raw, key)
        except LineError as error:
            report.skip(str(error), path.name, number)


def _counted(found: Iterator[LogEntry], report: ReadReport) -> Iterator[LogEntry]:
    for entry in found:
        report.count(entry)
        yield entry


def read_lines(path: Path, report: ReadReport) -> Iterator[bytes]:
    """Yield the raw lines of a plain or gzip file; of an overlong line its first MAX_LINE bytes.

    Raises LogError when the file cannot be read at all.
    """
    with _opened(path) as stream:
        number = 0
        while raw := _next_bytes(stream, report, path, number):
            number += 1
            yield raw
            # Skip the rest of an overlong line, or its pieces would count as lines.
            while len(raw) == MAX_LINE and not raw.endswith(b"\n"):
                raw = _next_bytes(stream, report, path, number)


def _next_bytes(stream: BinaryIO, report: ReadReport, path: Path, number: int) -> bytes:
    """Return the next bytes after line `number`. A damaged or cut gzip file ends there, and the
    report says so.
    """
    try:
        return stream.readline(MAX_LINE)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        report.skip(CUT_SHORT, path.name, number + 1)
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
