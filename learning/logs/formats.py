"""The formats of access logs that can be read, and the choice of the one that a log has."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from learning.logs import json_lines, text_lines
from learning.logs.entry import FormatMismatch, LineError, LogEntry, Written, entry_of

# Bytes. A longer line is skipped: web servers refuse such requests, so it is damage, and reading it
# whole would cost memory.
MAX_LINE = 65_536
# Lines from which a log's format is told. Chosen: enough that a few damaged ones do not decide, few
# enough to be read at once.
SAMPLE = 100
AUTO = "auto"
UNKNOWN = "not a line of a known format"


@dataclass(frozen=True, slots=True)
class Format:
    """One way of writing an access log."""

    name: str
    """As `--format` takes it."""
    label: str
    """What writes it, in words."""
    read: Callable[[str], Written]
    """Reads one line; raises LineError."""


# The more a format asks of a line, the further up it stands: of several that fit equally well, the
# first is taken.
FORMATS = (
    Format("alb", "AWS Application Load Balancer", text_lines.alb),
    Format("traefik", "Traefik's common log format", text_lines.traefik),
    Format("envoy", "Envoy's default text", text_lines.envoy),
    Format("vhost", "Apache's combined with virtual host", text_lines.vhost),
    Format("combined", "combined, of nginx and Apache", text_lines.combined),
    Format("common", "Apache's common", text_lines.common),
    Format("caddy", "Caddy's JSON", json_lines.caddy),
    Format("traefik-json", "Traefik's JSON", json_lines.traefik_json),
    Format("envoy-json", "Envoy's JSON, as of the gateway", json_lines.envoy_json),
)
# The default of nginx is the combined format.
_ALSO = {"nginx": "combined"}
_BY_NAME = {one.name: one for one in FORMATS}
NAMES = (AUTO, *_ALSO, *_BY_NAME)


@dataclass(frozen=True, slots=True)
class Choice:
    """The format of a log, and how well it fits."""

    form: Format | None
    """None when no line of the sample has a known format."""
    fitted: int
    """Lines of the sample that have the format."""
    of: int
    """Lines of the sample, without empty ones."""

    def read(self, raw: bytes, key: bytes) -> LogEntry:
        """Return the request of one line. Raises LineError for a line that cannot be read, and
        never any other error.
        """
        text = line_text(raw)
        if self.form is None:
            raise FormatMismatch(UNKNOWN)
        return entry_of(self.form.read(text), key)


def by_name(name: str) -> Format:
    """Return the format of this name. Raises ValueError, which names those there are."""
    try:
        return _BY_NAME[_ALSO.get(name, name)]
    except KeyError:
        raise ValueError(f"There is no format {name!r}; known are {', '.join(NAMES)}.") from None


def choose(sample: Iterable[bytes], name: str = AUTO) -> Choice:
    """Return the format of a log by its first lines: the one called `name`, or the one that most
    lines have.

    Raises ValueError for an unknown name.
    """
    texts = list(_texts(sample))
    offered = FORMATS if name == AUTO else (by_name(name),)
    scores = [(_score(one, texts), one) for one in offered]
    # max takes the first of several equals, which is the most specific
    (_, fitted), best = max(scores, key=lambda scored: scored[0])
    return Choice(best if fitted or name != AUTO else None, fitted, len(texts))


def _texts(sample: Iterable[bytes]) -> Iterable[str]:
    for raw in sample:
        try:
            yield line_text(raw)
        except LineError as error:
            if str(error) != _EMPTY:
                yield ""


def _score(form: Format, texts: Iterable[str]) -> tuple[int, int]:
    """Return how many of these lines can be played, and how many have the format at all.

    The first is larger for the right one of two formats that both match, as it finds an address
    where the other finds a name.
    """
    playable = shaped = 0
    for text in texts:
        try:
            entry_of(form.read(text), b"")
        except FormatMismatch:
            continue
        except LineError:
            shaped += 1
        else:
            shaped, playable = shaped + 1, playable + 1
    return playable, shaped


# RFC 3164 ("Oct  1 12:00:00 host nginx: ") and its form with a whole date, as rsyslog writes it.
_SYSLOG = re.compile(
    r"(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2}"
    r"|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}[\d.:+Z-]{1,20})"
    r" \S{1,255} [^\s:\[]{1,64}(?:\[\d{1,10}\])?: ?",
    re.ASCII,
)
# RFC 5424: "<190>1 2024-10-01T12:00:00Z host nginx 17 - - ", with structured data before the text.
_SYSLOG_5424 = re.compile(
    r"<\d{1,3}>\d{1,2} \S{1,64} \S{1,255} \S{1,48} \S{1,128} \S{1,32}"
    r" (?:-|(?:\[[^\]\\]*(?:\\.[^\]\\]*)*\])+) ?",
    re.ASCII,
)
_EMPTY = "empty"


def line_text(raw: bytes) -> str:
    """Return the text of a line, without what a system log or a byte order mark puts before it.

    Raises LineError.
    """
    # The length comes first: patterns never run on an overlong line.
    if len(raw) >= MAX_LINE:
        raise LineError("longer than 64 kB")
    text = _decode(raw.removeprefix(codecs.BOM_UTF8)).strip()
    if found := _SYSLOG_5424.match(text) or _SYSLOG.match(text):
        # RFC 5424 begins a text in UTF-8 with the mark.
        text = text[found.end() :].lstrip("\ufeff ")
    if not text:
        raise LineError(_EMPTY)
    return text


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        # Latin-1 decodes any bytes, so old logs are read too.
        return raw.decode("latin-1")
