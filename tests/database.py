"""Who a test is in the database. It is the app, as programs are; what only others may do, it does
as them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from django.db import connection
from psycopg.pq import TransactionStatus

from control.database_roles.roles import DatabaseRole, role_name

APP, OWNER = role_name(DatabaseRole.APP), role_name(DatabaseRole.OWNER)
# Options of a session of the superuser, who becomes one of these at its start.
BE_APP, BE_OWNER = f" -c role={APP}", f" -c role={OWNER}"


def become(options: str) -> None:
    """Let the next sessions be another role: one of the two above."""
    asked = connection.settings_dict["OPTIONS"]
    asked["options"] = asked["options"].replace(BE_APP, "").replace(BE_OWNER, "") + options
    connection.close()


@contextmanager
def as_role(name: str) -> Iterator[None]:
    """Be another role for the body, also within a transaction, where it may not fail."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {name}")
    try:
        yield
    finally:
        # a transaction that failed brings the role back by itself, once it is rolled back
        line = connection.connection
        # nor has a connection that ended meanwhile anything to bring back
        usable = line is not None and not line.closed
        if usable and line.info.transaction_status != TransactionStatus.INERROR:
            with connection.cursor() as cursor:
                cursor.execute(f"SET ROLE {APP}")


def as_superuser() -> AbstractContextManager[None]:
    """Be who may do everything, such as not to fire triggers."""
    return as_role("none")


def as_owner() -> AbstractContextManager[None]:
    """Be the owner of the tables, as migrations are."""
    return as_role(OWNER)


@contextmanager
def without_triggers() -> Iterator[None]:
    """Change rows behind the triggers' back, as only a superuser can; within a transaction."""
    with as_superuser(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        yield
        cursor.execute("SET LOCAL session_replication_role = origin")
