"""Entries of the audit log for what a test stores by itself: the database refuses rows that no
entry came with.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from control.audit import chain
from control.audit.actors import SYSTEM


def append_entry() -> None:
    """Append an entry in the open transaction, which is rolled back: its hash is of nothing."""
    entry = {"at": "2026-01-01T00:00Z", "action": "test.row", "subject": "test", "reason": "test"}
    blank = dict.fromkeys(("actor", "actor_login", "actor_role", "summary"), "")
    with connection.cursor() as cursor:
        said = json.dumps([{"entry": entry | blank, "rest": secrets.token_hex(4)}])
        cursor.execute("SELECT control_append_entries(%s)", [said])


@contextmanager
def audited() -> Iterator[None]:
    """Commit what the body stores together with an entry. A test that is rolled back gets its entry
    at its end, from `rows_of_a_test_are_audited`.
    """
    if connection.in_atomic_block:
        yield
        return
    with chain.changing():
        yield
        chain.append(by=SYSTEM, reason="A test", action="test.row", subject="x", summary="made it")
