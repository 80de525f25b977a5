"""The rules as nginx reads them: one file for `geo` with the addresses that are refused, and one
for `map` with the apps. nginx takes them in when it is told to reload.

nginx knows the app of an unasked request only where a credential shows it unread
(docs/identity.md), and never its tenant.
"""

from __future__ import annotations

from collections.abc import Iterable

from decider.gateway.rules import Held, Kind

SOURCES_FILE, APPS_FILE = "sources.geo", "apps.map"


def render_sources(held: Held) -> bytes:
    """Return the contents of SOURCES_FILE."""
    return _lines(f"{subject} 1;" for subject in _refused(held, "source"))


def render_apps(held: Held) -> bytes:
    """Return the contents of APPS_FILE."""
    return _lines(f"{_quoted(subject)} 1;" for subject in _refused(held, "app"))


def _refused(held: Held, kind: Kind) -> list[str]:
    """Return the subjects of a kind whose first level refuses them."""
    first: dict[str, bool] = {}
    for level in held.levels:
        if level.kind == kind:
            first = level.refused | first
    return sorted(subject for subject, refused in first.items() if refused)


def _quoted(subject: str) -> str:
    # a backslash in front, so that no subject is read as a pattern, a keyword or a variable
    escaped = subject.replace("\\", "\\\\").replace('"', '\\"')
    return f'"\\{escaped}"' if subject in _KEYWORDS or subject[0] in "~*.\\" else f'"{escaped}"'


_KEYWORDS = frozenset(("default", "include", "hostnames", "volatile"))


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")
