"""The advisory locks of PostgreSQL by which changes of one kind take turns.

A change holds only the lock of its kind, and the chains' own locks are taken by the database while
it appends: nobody waits for another kind of work. The order is fixed, so that no two transactions
wait for each other: one lock from here first, the audit chain's last.
"""

from __future__ import annotations

from enum import IntEnum

from django.db import connection


class Lock(IntEnum):
    """Locks that a transaction holds until it ends. All advisory locks of a database share one
    space of keys; these begin with "SLU" in ASCII. "SLUC" is the audit chain's and "SLUL" that of
    the data-access log (`control/resources`).
    """

    CONFIG = 0x534C_5556
    """Config versions: numbered one after the other, each made from the one before."""
    MODELS = 0x534C_554D
    """Versions of models: numbered one after the other."""
    APPS = 0x534C_5541
    """Imports of apps: each changes many rows, in the order of their ids."""
    LOOKS_KEPT = 0x534C_554B
    """Dropping old months of the data-access log: once each."""


def hold(lock: Lock) -> None:
    """Wait for a lock and hold it until the transaction ends. Call it inside a transaction, before
    reading what will be changed.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [int(lock)])
