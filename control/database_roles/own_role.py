"""Which role a process is in PostgreSQL, and whether that one may do more than programs should.

While the database is away at a start nothing is known of that. The process starts all the same, so
that its pages say what is wrong, and asks as soon as the database is back.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from control.database_roles.roles import DatabaseRole, role_name
from decider.store_users.own_user import is_debugging

# Variable that lets a process go on as a role that may do too much, when it says "allow".
ALLOW: Final = "SLUICE_DATABASE_ALL_POWERFUL"
# Seconds. Chosen: a server nearby answers at once, and one that is away must not hold up a start.
WITHIN_S: Final = 3
# Seconds between two tries while the database is away. Chosen: a process that is too powerful goes
# on for no longer than this.
AGAIN_S: Final = 2.0
# What makes a role one that programs should not run as, in words, by a condition in SQL. Owners of
# a table may switch its triggers off.
TOO_MUCH: Final = {
    "is a superuser": "rolsuper",
    "may make roles, databases or replicas": (
        "rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
    ),
    "may read or run what lies on the server": (
        "pg_has_role(oid, 'pg_execute_server_program', 'MEMBER')"
        " OR pg_has_role(oid, 'pg_read_server_files', 'MEMBER')"
        " OR pg_has_role(oid, 'pg_write_server_files', 'MEMBER')"
    ),
    "owns tables, or is a member of who does": (
        "EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = to_regnamespace('public')"
        " AND c.relkind IN ('r', 'p') AND pg_has_role(r.oid, c.relowner, 'MEMBER'))"
    ),
}

log = logging.getLogger("sluice.database_roles")


class DatabaseRoleError(Exception):
    """The database knows this process as a role that may do too much. The text says what to set."""


def check_role(
    url: str,
    role: DatabaseRole,
    environment: Mapping[str, str] = os.environ,
    end: Callable[[], None] | None = None,
) -> None:
    """Raise DatabaseRoleError when `url` leads to a superuser, to the owner of tables or to another
    role that may do too much, unless the environment allows it.

    While the database is away: return, ask again until it answers, in a thread, and call `end` if
    the role is such a one. Without `end` this process gets a SIGTERM, as from an operator.
    """
    if is_allowed(environment) or _is_known(url, role):
        return
    log.warning("PostgreSQL is away: whether its role is the right one is looked at later")
    watch = (url, role, end or _end_process)
    threading.Thread(target=_watch, args=watch, name="database-role", daemon=True).start()


def is_allowed(environment: Mapping[str, str]) -> bool:
    """Return whether this process may be any role: when debugging, and when told so by name."""
    return is_debugging(environment) or environment.get(ALLOW, "").strip() == "allow"


def _is_known(url: str, role: DatabaseRole) -> bool:
    """Return False while the database is away, and True for a role that is no more than it should
    be. Raise DatabaseRoleError for one that is.
    """
    try:
        name, why = too_much(url)
    except psycopg.Error:
        return False
    if why:
        raise DatabaseRoleError(
            f"PostgreSQL knows this process as “{name}”, which {why}, so whoever takes over this"
            " process could rewrite the audit log. Run `manage.py database_roles`, give PostgreSQL"
            f" what it prints, and set DATABASE_URL to the role {role_name(role)}. To go on as it"
            f" is, set {ALLOW}=allow."
        )
    return True


def too_much(url: str) -> tuple[str, str]:
    """Return the name of the role that `url` leads to, and why it may do too much, "" if it may
    not. Raise psycopg.Error.
    """
    asked = ", ".join(f"({condition})" for condition in TOO_MUCH.values())
    query = f"SELECT rolname, {asked} FROM pg_roles r WHERE rolname = current_user"  # noqa: S608
    with psycopg.connect(url, connect_timeout=WITHIN_S, autocommit=True) as line:
        name, *found = line.execute(query.encode()).fetchone() or ("nobody",)
    return name, next((why for why, true in zip(TOO_MUCH, found, strict=True) if true), "")


def _watch(url: str, role: DatabaseRole, end: Callable[[], None]) -> None:
    """Ask until the database answers; call `end` for a role that may do too much."""
    try:
        while not _is_known(url, role):
            time.sleep(AGAIN_S)
    except DatabaseRoleError as error:
        log.critical("%s This process ends now.", error)
        end()


def _end_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
