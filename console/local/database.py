"""How long each kind of process waits for PostgreSQL. Without these limits one that hangs, or one
that was forgotten in a transaction, would hold up the others for ever.

Work that takes longer sets its own limits in its transaction (`control.patience`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.conf import settings
from django.db import connections

from console.local import environment

# Seconds in which a server must take a connection. Chosen: one that lives takes milliseconds, also
# across regions, and a page must say that the database is away before its reader gives up.
CONNECT_S = 5
# Seconds until a connection without an answer from the other machine counts as dead: a server that
# lost its power ends no connection. Chosen: longer than a network needs to find another way.
SILENT_S = 30


class Process(StrEnum):
    """The kinds of process that use PostgreSQL."""

    CONSOLE = "console"
    """Pages and the API."""
    WORKER = "worker"
    """Celery's tasks."""
    INGEST = "ingest"
    COMMAND = "command"
    """Everything else that `manage.py` runs, migrations among it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that one kind of process has."""

    statement_s: int
    """For one statement."""
    lock_s: int
    """For one wait for a lock."""
    idle_s: int
    """Between two statements of a transaction."""


LIMITS: dict[Process, Limits] = {
    # A person waits: by 20 s they have reloaded, and gunicorn gives up on a page after 60. Nobody
    # holds a lock for more than milliseconds, so 5 s without it mean that someone hangs. A page's
    # transaction computes for seconds at most.
    Process.CONSOLE: Limits(20, 5, 60),
    # Celery ends a task after 840 s: no statement may take nearly all of that. Tasks run again.
    Process.WORKER: Limits(300, 10, 120),
    # A batch is copied in under a second; one that takes 60 waits for a disk that is full or gone.
    # It is tried again.
    Process.INGEST: Limits(60, 10, 60),
    # An index over all decisions takes minutes. A migration that waits for a lock makes everybody
    # wait behind it, so it gives up and is started again.
    Process.COMMAND: Limits(3600, 10, 600),
}

# The strictest, for a process that does not say what it is.
_own = Process.CONSOLE


def process_of(arguments: list[str]) -> Process:
    """Return the kind of process that runs `manage.py` with these arguments, its name first."""
    return Process.INGEST if arguments[1:2] == ["ingest"] else Process.COMMAND


def be(process: Process) -> None:
    """Say what this process is, before it opens its first connection."""
    global _own
    _own = process
    if settings.configured:
        asked = environment.parse_database_url(settings.DATABASE_URL)["OPTIONS"]
        for alias in connections:
            # the same for all threads, which share this dictionary
            connections[alias].settings_dict["OPTIONS"] = with_limits(asked)


@contextmanager
def connected_as(url: str) -> Iterator[None]:
    """Let the body's connections lead to `url`, such as the owner's for migrations; "" leaves them
    as they are.
    """
    if not url:
        yield
        return
    described = environment.parse_database_url(url)
    described["OPTIONS"] = with_limits(described["OPTIONS"])
    line = connections["default"]
    before = dict(line.settings_dict)
    line.close()
    line.settings_dict.update(described)
    try:
        yield
    finally:
        line.close()
        line.settings_dict.update(before)


def with_limits(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of this process's connections. What the database's address asks for
    (`?options=-c%20lock_timeout%3D9s`) goes before them.
    """
    # ours first: of two the last one counts
    limits = f"{options_of(_own)} {asked.get('options', '')}".strip()
    return {
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": SILENT_S * 1000,
        "keepalives_idle": SILENT_S // 3,
        "keepalives_interval": SILENT_S // 3,
        "keepalives_count": 2,
        # shown in pg_stat_activity, so that whoever looks there knows whom they see
        "application_name": f"sluice-{_own}",
        **asked,
        "options": limits,
    }


def options_of(process: Process) -> str:
    """Return the limits of a kind of process as PostgreSQL takes them at the start of a session."""
    limits = LIMITS[process]
    return (
        f"-c statement_timeout={limits.statement_s}s -c lock_timeout={limits.lock_s}s"
        f" -c idle_in_transaction_session_timeout={limits.idle_s}s"
    )
