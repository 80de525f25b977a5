"""What one transaction asks of PostgreSQL's time, where what the process asks does not fit."""

from __future__ import annotations

from django.db import connection


def set_limits(
    *, statement_s: float | None = None, lock_s: float | None = None, idle_s: float | None = None
) -> None:
    """Set limits for the rest of this transaction, in seconds: for each statement, for each wait
    for a lock, and for the time between two statements. None leaves one as it is.
    """
    limits = {
        "statement_timeout": statement_s,
        "lock_timeout": lock_s,
        "idle_in_transaction_session_timeout": idle_s,
    }
    with connection.cursor() as cursor:
        for name, seconds in limits.items():
            if seconds is not None:
                # true: as SET LOCAL does, until the transaction ends
                text = f"{round(seconds * 1000)}ms"
                cursor.execute("SELECT set_config(%s, %s, true)", [name, text])


def commit_without_waiting() -> None:
    """Let this transaction commit without waiting for the disk. Only for what is done again when a
    crash of the server within the next second forgets it.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('synchronous_commit', 'off', true)")
