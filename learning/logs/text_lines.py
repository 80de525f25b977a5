"""Text formats of access logs, each one pattern with named groups.

No pattern has nested quantifiers that could match the same text in two ways, and callers check the
length first, so a hostile line costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from learning.logs.entry import FormatMismatch, Written, duration, number, request_line
from learning.logs.times import common_time, written_time


def _quoted(name: str) -> str:
    """Return the pattern of a text in quotes, in which a backslash escapes the next character."""
    return rf'"(?P<{name}>[^"\\]*+(?:\\.[^"\\]*+)*+)"'


_ANY = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# The part that all formats of the Apache family share, from the client's address to the size.
_COMMON = (
    rf"(?P<client>\S+) \S+ [^\[]*\[(?P<when>[^\]]{{1,64}})\] {_quoted('request')}"
    r" (?P<status>\d{3}|-) (?P<sent>\d+|-)"
)
_COMBINED = rf"{_COMMON} {_ANY} {_quoted('agent')}"
# "%h %l %u %t "%r" %>s %b"; more fields may follow.
_common = re.compile(rf"{_COMMON}(?= |$)", re.ASCII).match
# nginx's default, and Apache's format of this name; more fields may follow.
_combined = re.compile(rf"{_COMBINED}(?= |$)", re.ASCII).match
# Apache's "vhost_combined" begins with "%v:%p"; many write "%v" alone. Four words must stand before
# the time, or the three of the combined format would be read as these.
_vhost = re.compile(rf"\S+ (?=\S+ \S+ [^\[ ]){_COMBINED}(?= |$)", re.ASCII).match
# A number of requests, router, server and duration follow the combined format.
_traefik = re.compile(
    rf'{_COMBINED} \d+ {_ANY} "(?P<server>[^"]*)" (?P<took>\d+)ms$', re.ASCII
).match
_envoy = re.compile(
    rf"\[(?P<when>[^\]]{{1,64}})\] {_quoted('request')} (?P<status>\d+|-) \S+ (?P<received>\d+|-)"
    rf" (?P<sent>\d+|-) (?P<took>\d+|-) \S+ {_quoted('forwarded')} {_quoted('agent')}"
    rf" {_quoted('id')} {_ANY} {_quoted('server')}",
    re.ASCII,
).match
# Time and address, three spans of work in seconds, two statuses, two sizes.
_alb = re.compile(
    r"(?:http|https|h2|grpcs|ws|wss) (?P<when>\S{1,64}) \S+ (?P<client>\S+) \S+"
    r" (?P<waited>[\d.-]{1,20}) (?P<worked>[\d.-]{1,20}) (?P<answered>[\d.-]{1,20})"
    r" (?P<status>\S{1,3}) (?P<targets>\S{1,3}) (?P<received>\d+|-) (?P<sent>\d+|-)"
    rf" {_quoted('request')} {_quoted('agent')} \S+ \S+ \S+ {_quoted('id')}",
    re.ASCII,
).match

_Match = Callable[[str], re.Match[str] | None]


def _fields(match: _Match, text: str, name: str) -> dict[str, str]:
    """Return the groups of a pattern. Raises FormatMismatch when it does not match."""
    # Some exports put each line into another pair of quotes.
    if len(text) > 2 and text[0] == text[-1] == '"' and text[1] != '"':
        text = text[1:-1]
    if (found := match(text)) is None:
        raise FormatMismatch(f"not a line of the {name} format")
    return found.groupdict()


def common(text: str) -> Written:
    """Read Apache's common format. Raises LineError."""
    return _apache(_fields(_common, text, "common"))


def combined(text: str) -> Written:
    """Read the combined format of nginx and Apache. Raises LineError."""
    return _apache(_fields(_combined, text, "combined"))


def vhost(text: str) -> Written:
    """Read Apache's combined format behind the virtual host. Raises LineError."""
    return _apache(_fields(_vhost, text, "vhost"))


def traefik(text: str) -> Written:
    """Read Traefik's common log format. Raises LineError."""
    found = _fields(_traefik, text, "traefik")
    line = _apache(found)
    line.duration_ms, line.served = found["took"], found["server"] not in ("", "-")
    return line


def _apache(found: dict[str, str]) -> Written:
    method, target = request_line(found["request"])
    return Written(
        client=found["client"],
        at=common_time(found["when"]),
        method=method,
        target=target,
        status=found["status"],
        bytes_out=found["sent"],
        agent=found.get("agent"),
    )


def envoy(text: str) -> Written:
    """Read Envoy's default format, which names no address but that in X-Forwarded-For.

    Raises LineError.
    """
    found = _fields(_envoy, text, "envoy")
    method, target = request_line(found["request"])
    return Written(
        client=last_forwarded(found["forwarded"]),
        at=written_time(found["when"]),
        method=method,
        target=target,
        status=found["status"],
        bytes_in=found["received"],
        bytes_out=found["sent"],
        duration_ms=found["took"],
        agent=found["agent"],
        request_id=found["id"],
        served=found["server"] not in ("", "-"),
    )


def last_forwarded(header: str) -> str:
    """Return the last address of an X-Forwarded-For header: the proxy itself wrote only that one,
    and a client may invent those before it.
    """
    return header.rpartition(",")[2].strip()


def alb(text: str) -> Written:
    """Read the access log of an AWS Application Load Balancer. Raises LineError."""
    found = _fields(_alb, text, "alb")
    method, target = request_line(found["request"])
    # -1 stands for a span that did not happen.
    spans = [number(found[name]) for name in ("waited", "worked", "answered")]
    took = sum(spans) * 1000 if all(span >= 0 for span in spans) else None
    # The time is that of the answer.
    begun = written_time(found["when"]) - (duration(took) or 0.0) / 1000
    return Written(
        client=found["client"],
        at=begun,
        method=method,
        target=target,
        status=found["status"],
        bytes_in=found["received"],
        bytes_out=found["sent"],
        duration_ms=took,
        agent=found["agent"],
        request_id=found["id"],
        # The target's status; its address is missing when it is a function.
        served=found["targets"] != "-",
    )
