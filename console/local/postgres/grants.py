"""What the roles may do, as SQL of PostgreSQL, which the owner runs after each migration, and as
tables for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from console.local.postgres.tables import ALL, CHECKS, FUNCTIONS, TABLES, Table
from control.database_roles.roles import DatabaseRole, prefix_of, role_name

# Those that get to nothing of their own.
_GRANTED = (DatabaseRole.APP, DatabaseRole.INGEST, DatabaseRole.READER)


class Cursor(Protocol):
    """What is used of a cursor, Django's or psycopg's."""

    def execute(self, query: str, params: Any = None) -> Any: ...

    def fetchall(self) -> Any: ...


def apply(cursor: Cursor) -> bool:
    """Give each role what it may do, and take all else. Do it as the owner, in one transaction, so
    that no program finds itself without.

    Return False, having done nothing, as another user than an owner of ours, and while the roles
    are not made: then programs run as whoever they were given.
    """
    cursor.execute("SELECT current_user")
    ((owner,),) = cursor.fetchall()
    prefix = prefix_of(owner)
    if prefix is None:
        return False
    names = {role: role_name(role, prefix) for role in _GRANTED}
    cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(names.values())])
    if {name for (name,) in cursor.fetchall()} != set(names.values()):
        return False
    cursor.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') GROUP BY 1"
    )
    cursor.execute(";\n".join(statements(prefix, dict(cursor.fetchall()))))
    return True


def statements(prefix: str, columns: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the statements for an installation whose tables have these columns."""
    roles = ", ".join(f'"{role_name(role, prefix)}"' for role in _GRANTED)
    for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA public FROM PUBLIC, {roles}"
    # of functions that a migration makes later
    yield "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
    for table in TABLES:
        # a migration that goes backwards leaves fewer
        if table.name in columns:
            yield from _of_table(table, prefix, columns[table.name])
    for function, users in (FUNCTIONS | CHECKS).items():
        for role in users:
            name = role_name(role, prefix)
            # in a block: while a migration goes backwards some are not there
            yield (
                f"DO $$ BEGIN IF to_regprocedure('{function}') IS NOT NULL THEN"
                f' GRANT EXECUTE ON FUNCTION {function} TO "{name}"; END IF; END $$'
            )


def _of_table(table: Table, prefix: str, columns: Sequence[str]) -> Iterator[str]:
    given = {DatabaseRole.APP: table.app, DatabaseRole.INGEST: table.ingest}
    seen = [name for name in columns if name not in table.hidden]
    if not table.hidden:
        given[DatabaseRole.READER] = "select"
    elif table.hidden != ALL:
        listed = ", ".join(f'"{name}"' for name in seen)
        given[DatabaseRole.READER] = f"select ({listed})"
    for role, privileges in given.items():
        if privileges:
            yield f'GRANT {privileges} ON "{table.name}" TO "{role_name(role, prefix)}"'


def tables() -> str:
    """Return what each role may do as two tables for people (Markdown), which docs/postgresql.md
    shows: by table, and by function.
    """
    lines = ["| table | app | ingest | reader |", "| --- | --- | --- | --- |"]
    for table in sorted(TABLES, key=lambda one: one.name):
        words = (f"`{table.name}`", table.app or "–", table.ingest or "–", _seen(table))
        lines.append(f"| {' | '.join(words)} |")
    lines += ["", "| function, run as the owner | called by |", "| --- | --- |"]
    lines += [f"| `{name}` | {_list(users)} |" for name, users in FUNCTIONS.items()]
    return "\n".join(lines)


def _seen(table: Table) -> str:
    if table.hidden == ALL:
        return "–"
    return "select" + (f", without {_list(table.hidden)}" if table.hidden else "")


def _list(words: Iterable[str]) -> str:
    return ", ".join(words)
