"""What each role of the database may not do, tried by raw SQL on connections of its own, and what
it may: a program that is taken over can neither rewrite what was recorded nor switch off what holds
it.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from psycopg import errors

from console.local import database
from console.local.postgres import grants
from console.local.postgres.tables import CHECKS, FUNCTIONS, TABLES
from control.audit import chain
from control.audit.actors import SYSTEM
from control.config import changes
from control.database_roles import own_role, server
from control.database_roles.own_role import DatabaseRoleError
from control.database_roles.roles import DatabaseRole, prefix_of, role_name
from tests import servers
from tests.audited import audited
from tests.database import as_owner

pytestmark = pytest.mark.django_db(transaction=True)
APP, INGEST, READER = DatabaseRole.APP, DatabaseRole.INGEST, DatabaseRole.READER
OWNER = DatabaseRole.OWNER
PROGRAMS = (APP, INGEST, READER)
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)
Connect = Callable[[DatabaseRole], psycopg.Connection]


@pytest.fixture
def connect(keys, settings) -> Iterator[Connect]:
    """Logs in as a role, with its own password, to the test database with an entry in each log."""
    settings.SLUICE_KEYS = keys
    changes.first(by=SYSTEM, reason="A new installation")
    with ExitStack() as stack:

        def make(role: DatabaseRole) -> psycopg.Connection:
            url = servers.database_url(role, connection.settings_dict["NAME"])
            return stack.enter_context(psycopg.connect(url, autocommit=True))

        yield make


REFUSED_TO_EVERYONE = (
    "ALTER TABLE control_auditentry DISABLE TRIGGER ALL",
    "ALTER TABLE control_auditentry DISABLE TRIGGER audit_append_only",
    "DROP TRIGGER audit_append_only ON control_auditentry",
    "SET session_replication_role = replica",
    "SELECT set_config('session_replication_role', 'replica', false)",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "COPY control_app FROM PROGRAM 'true'",
    "COPY (SELECT 1) TO '/tmp/sluice-of-a-role'",
    "SELECT pg_read_file('postgresql.conf')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/hostname')",
    "UPDATE control_auditentry SET reason = 'x'",
    "UPDATE control_auditentry SET xact = '1'",
    "DELETE FROM control_auditentry",
    "TRUNCATE control_auditentry CASCADE",
    "INSERT INTO control_auditentry SELECT * FROM control_auditentry",
    "UPDATE control_configversion SET payload = 'x'",
    "DELETE FROM control_configversion",
    "TRUNCATE control_configversion CASCADE",
    "UPDATE control_look SET what = 'x'",
    "DELETE FROM control_look",
    "INSERT INTO control_look SELECT * FROM control_look",
    "INSERT INTO control_change VALUES ('x')",
    "DELETE FROM control_change",
    "INSERT INTO control_parted VALUES ('control_look', 'at')",
    "UPDATE control_appnote SET text = 'x'",
    "DELETE FROM control_appnote",
    "DELETE FROM decisions_outcome",
    "UPDATE decisions_outcome SET kind = 'churn'",
    "DELETE FROM decisions_decision",
    "DELETE FROM decisions_decision_default",
    "UPDATE decisions_decision SET app = 'x'",
    "DELETE FROM decisions_droppedday",
    "CREATE TABLE mine (a int)",
    "CREATE TEMPORARY TABLE mine (a int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION control_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "ALTER FUNCTION control_refuse() RENAME TO refuse",
    "DROP TABLE control_look",
    "DROP TABLE decisions_decision_default",
    "ALTER TABLE decisions_decision DETACH PARTITION decisions_decision_default",
    "ALTER TABLE control_app ADD COLUMN x int",
    "CREATE INDEX ON control_app (name)",
    "SET ROLE sluice_owner",
    "SET SESSION AUTHORIZATION sluice",
    "GRANT sluice_owner TO sluice_app",
    "CREATE ROLE mine SUPERUSER",
    "ALTER ROLE sluice_app SUPERUSER",
    "ALTER DATABASE postgres SET session_replication_role = replica",
    "ALTER SYSTEM SET fsync = off",
    "UPDATE auth_group_permissions SET group_id = 1",
    "INSERT INTO auth_permission (name, content_type_id, codename) VALUES ('x', 1, 'x')",
    "SELECT control_note_change('x')",
)


@pytest.mark.parametrize("role", PROGRAMS)
def test_no_program_may_rewrite_or_unlock_anything(connect: Connect, role: DatabaseRole) -> None:
    line, done = connect(role), []
    # what this role itself has set, so that the refusal is one of privilege
    line.execute("SET default_transaction_read_only = off")
    for statement in REFUSED_TO_EVERYONE:
        try:
            line.execute(statement.encode())
        except errors.InsufficientPrivilege:
            continue
        done.append(statement)
    assert done == []
    # of a privilege that is held without the right to grant it, this is but a warning
    with suppress(errors.InsufficientPrivilege):
        line.execute("GRANT ALL ON control_auditentry TO PUBLIC")
    with pytest.raises(errors.InsufficientPrivilege):
        line.execute("UPDATE control_auditentry SET reason = 'x'")
    assert chain.verify().broken is None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT control_append_entries('[]')",
        "SELECT control_append_looks('{a}', '{b}', 'x', 'x', 'x', '', '1 hour', now())",
        "SELECT control_make_look_month(now())",
        "SELECT control_drop_look_month('2020-01-01')",
        "SELECT control_drop_day('decisions_decision', '2020-01-01', 'age')",
        "SELECT control_drop_strays('decisions_decision', '2020-01-01')",
        "SELECT password FROM auth_user",
        "SELECT session_data FROM django_session",
        "SELECT digest FROM knox_authtoken",
        "SELECT reason FROM control_auditentry",
        "SELECT raw FROM decisions_buriedevent",
        "SELECT id FROM decisions_decision",
        "SELECT * FROM control_app",
        "UPDATE control_app SET tier = 3",
        "INSERT INTO control_configversion VALUES (9, '', '', now(), 'x', 'x', NULL)",
    ],
)
def test_ingest_may_only_store_events(connect: Connect, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        connect(INGEST).execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT password FROM auth_user",
        "SELECT * FROM auth_user",
        "SELECT session_key FROM django_session",
        "SELECT digest FROM knox_authtoken",
        "SELECT token_key FROM knox_authtoken",
        "SELECT token_digest FROM decisions_decision",
        "SELECT token_digest FROM decisions_decision_default",
        "SELECT raw FROM decisions_buriedevent",
        "SELECT key FROM control_signintry",
        "UPDATE control_app SET tier = 3",
        "INSERT INTO control_tenant VALUES ('x', 'x')",
        "DELETE FROM decisions_facet",
        "SELECT control_append_entries('[]')",
        "SELECT control_make_day('decisions_decision', '2030-01-01')",
        "SELECT id FROM control_app FOR UPDATE",
    ],
)
def test_a_reader_sees_no_secrets_and_writes_nothing(connect: Connect, statement: str) -> None:
    line = connect(READER)
    line.execute("SET default_transaction_read_only = off")
    with pytest.raises(errors.InsufficientPrivilege):
        line.execute(statement.encode())


def test_a_reader_reads_all_else_and_only_reads(connect: Connect) -> None:
    with audited():
        User.objects.create_user("mara@example.org", password="a-password-for-tests")
    line = connect(READER)
    assert line.execute("SELECT email, username FROM auth_user").fetchall()
    assert line.execute("SELECT action FROM control_auditentry").fetchall()
    assert line.execute("SELECT count(*) FROM decisions_decision").fetchone() == (0,)
    assert line.execute("SHOW transaction_read_only").fetchone() == ("on",)


def test_a_role_that_was_there_with_more_loses_it_and_readers_are_few() -> None:
    one = servers.postgres()
    assert one is not None
    with psycopg.connect(one.url(), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE tried_app SUPERUSER CREATEDB LOGIN PASSWORD 'old'")
        made = dict.fromkeys(DatabaseRole, "new")
        try:
            superuser.execute(";".join(server.roles(made, "tried")).encode())
            found = superuser.execute(
                "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname LIKE 'tried%'"
            ).fetchall()
            assert found == [(False, False)] * 4
            as_new = one.url("postgres").replace("sluice:test@", "tried_app:new@")
            psycopg.connect(as_new).close()
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(as_new.replace("new", "old"))
            limits = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'tried_reader'"
            assert superuser.execute(limits).fetchone() == (server.READERS,)
        finally:
            for role in DatabaseRole:
                superuser.execute(f"DROP ROLE IF EXISTS tried_{role}".encode())


HOSTILE = (
    ("control_make_day", ("control_look", YESTERDAY)),
    ("control_make_day", ("control_auditentry", YESTERDAY)),
    ("control_make_day", ("pg_class", YESTERDAY)),
    ("control_make_day", ('x"; DROP TABLE control_app; --', YESTERDAY)),
    ("control_make_day", ("public.decisions_decision", YESTERDAY)),
    ("control_make_day", ("DECISIONS_DECISION", YESTERDAY)),
    ("control_make_day", (None, YESTERDAY)),
    ("control_make_day", ("decisions_decision", None)),
    ("control_make_day", ("decisions_decision", "infinity")),
    ("control_make_day", ("decisions_decision", "0044-03-15 BC")),
    ("control_make_day", ("decisions_decision", "20000-01-01")),
    ("control_make_day", ("decisions_decision", "'; DROP TABLE control_app; --")),
    ("control_drop_day", ("control_look", YESTERDAY, "age")),
    ("control_drop_day", ("control_auditentry", YESTERDAY, "age")),
    ("control_drop_day", ("decisions_decision", YESTERDAY + timedelta(days=1), "age")),
    ("control_drop_day", ("decisions_decision", "-infinity", "age")),
    ("control_drop_strays", ("control_look", YESTERDAY)),
    ("control_drop_strays", ("decisions_decision", YESTERDAY + timedelta(days=3))),
    ("control_drop_look_month", (None,)),
    ("control_drop_look_month", ("infinity",)),
    ("control_drop_look_month", ("2020-01-02",)),
    ("control_drop_look_month", ("2020-01-01",)),
    ("control_drop_look_month", (YESTERDAY.replace(day=1),)),
    ("control_make_look_month", ("infinity",)),
    ("control_make_look_month", ("1999-12-31",)),
    ("control_make_look_month", (YESTERDAY + timedelta(days=110),)),
    (
        "control_append_looks",
        (["a"], ["b"], "x", "x", "x", "", "1 hour", YESTERDAY + timedelta(days=3)),
    ),
    ("control_make_look_month", (None,)),
)


@pytest.mark.parametrize(("function", "given"), HOSTILE)
def test_functions_of_the_owner_refuse_what_they_are_not_for(
    connect: Connect, function: str, given: tuple[object, ...]
) -> None:
    line, names = connect(APP), "SELECT oid, relname FROM pg_class ORDER BY 1"
    before = line.execute(names).fetchall()
    places = ", ".join("%s::text[]" if isinstance(one, list) else "%s" for one in given)
    with pytest.raises(psycopg.Error) as caught:
        line.execute(f"SELECT {function}({places})".encode(), given)
    assert not isinstance(caught.value, errors.UndefinedFunction)
    assert line.execute(names).fetchall() == before


def test_no_object_of_the_callers_stands_in_for_one_of_ours(connect: Connect) -> None:
    """The owner's functions look in no schema that their caller may fill."""
    line = connect(APP)
    query = (
        "SELECT p.oid::regprocedure::text, p.proconfig, pg_get_userbyid(p.proowner)"
        " FROM pg_proc p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace"
    )
    found = line.execute(query).fetchall()
    for _, config, owner in found:
        assert (config, owner) == (["search_path=public, pg_temp"], "sluice_owner")
    callable_by_app = line.execute(
        "SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace"
        " AND has_function_privilege(p.oid, 'EXECUTE')"
    ).fetchall()
    theirs = {name for (name,) in callable_by_app}
    checks = {name.replace(", ", ",") for name in CHECKS}
    assert len(theirs - checks) == sum(APP in users for users in FUNCTIONS.values())
    assert theirs - checks <= {name for name, *_ in found}
    assert checks <= theirs


def test_every_table_has_a_line_and_the_owner_owns_all() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
            " AND c.relkind IN ('r', 'p') AND c.relname !~ '_[0-9]{6,8}$'"
        )
        there = {name for (name,) in cursor.fetchall()}
        cursor.execute(
            "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace"
            " AND pg_get_userbyid(c.relowner) <> 'sluice_owner'"
        )
        strange = cursor.fetchall()
    listed = [table.name for table in TABLES]
    assert sorted(there) == sorted(listed)
    assert strange == []


def test_no_role_has_more_than_its_line(connect: Connect) -> None:
    """What was granted by hand goes with the next migration."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("GRANT ALL ON control_auditentry TO sluice_ingest, PUBLIC")
        cursor.execute("GRANT UPDATE (reason) ON control_auditentry TO sluice_app")
        cursor.execute("GRANT EXECUTE ON FUNCTION control_append_entries(jsonb) TO PUBLIC")
        assert grants.apply(cursor)
    privileges = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
    for role in PROGRAMS:
        line = connect(role)
        for table in TABLES:
            row = line.execute(
                "SELECT " + ", ".join(f"has_table_privilege(%(t)s, '{p}')" for p in privileges),
                {"t": table.name},
            ).fetchone()
            assert row is not None
            held = {p.lower() for p, has in zip(privileges, row, strict=True) if has}
            given = {APP: table.app, INGEST: table.ingest}.get(role)
            wanted = {"select"} if given is None and not table.hidden else set()
            wanted |= {part for part in (given or "").split(", ") if part.isalpha()}
            assert held == wanted, (role, table.name)
        call = "SELECT has_function_privilege('control_append_entries(jsonb)', 'EXECUTE')"
        assert line.execute(call).fetchone() == (role == APP,)
    by_column = "SELECT has_any_column_privilege('control_auditentry', 'UPDATE')"
    assert connect(APP).execute(by_column).fetchone() == (False,)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("sluice_owner", "sluice"), ("a_b_owner", "a_b"), ("sluice", None), ("_owner", None)],
)
def test_an_installation_is_known_by_its_owners_name(name: str, prefix: str | None) -> None:
    assert prefix_of(name) == prefix
    if prefix:
        assert role_name(OWNER, prefix) == name


def test_as_another_user_nothing_is_granted() -> None:
    with connection.cursor() as cursor:
        assert not grants.apply(cursor)


# ---- a program that may do too much does not start


def url_of(role: DatabaseRole | None) -> str:
    one = servers.postgres()
    assert one is not None
    return one.url(connection.settings_dict["NAME"], role=role)


@pytest.mark.parametrize(
    ("role", "why"), [(None, "is a superuser"), (OWNER, "may make roles"), (APP, ""), (INGEST, "")]
)
def test_who_may_do_too_much_is_told_so(role: DatabaseRole | None, why: str) -> None:
    if not why:
        own_role.check_role(url_of(role), APP, {})
        return
    with pytest.raises(DatabaseRoleError, match=rf"{why}.*manage.py database_roles.*sluice_app"):
        own_role.check_role(url_of(role), APP, {})
    for allowed in ({own_role.ALLOW: "allow"}, {"SLUICE_DEBUG": "true"}):
        own_role.check_role(url_of(role), APP, allowed)


@pytest.mark.parametrize(
    ("change", "back", "why"),
    [
        ("ALTER ROLE {} CREATEROLE", "ALTER ROLE {} NOCREATEROLE", "may make roles"),
        (
            "GRANT pg_execute_server_program TO {}",
            "REVOKE pg_execute_server_program FROM {}",
            "run",
        ),
        ("GRANT sluice_app TO {0}", "REVOKE sluice_app FROM {0}", ""),
        (
            "ALTER ROLE sluice_owner NOCREATEDB; GRANT sluice_owner TO {0}",
            "REVOKE sluice_owner FROM {0}; ALTER ROLE sluice_owner CREATEDB",
            "owns tables",
        ),
    ],
)
def test_each_way_to_more_is_seen(change: str, back: str, why: str) -> None:
    one = servers.postgres()
    assert one is not None
    with psycopg.connect(one.url(), autocommit=True) as superuser:
        superuser.execute(change.format("sluice_reader").encode())
        try:
            assert why in own_role.too_much(url_of(READER))[1]
            assert bool(own_role.too_much(url_of(READER))[1]) == bool(why)
        finally:
            superuser.execute(back.format("sluice_reader").encode())
    assert own_role.too_much(url_of(READER)) == ("sluice_reader", "")


def test_while_the_database_is_away_a_program_starts_and_asks_until_it_is_back(monkeypatch) -> None:
    answers, ended = iter([psycopg.OperationalError("away"), ("x", "is a superuser")]), []

    def too_much(url: str) -> tuple[str, str]:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(own_role, "too_much", too_much)
    monkeypatch.setattr(own_role, "AGAIN_S", 0.01)
    done = threading.Event()
    own_role.check_role("postgresql://away", APP, {}, end=lambda: (ended.append(1), done.set()))
    assert done.wait(10)
    assert ended == [1]


def test_what_the_server_keeps_of_a_password_is_as_it_makes_it_itself() -> None:
    one = servers.postgres()
    assert one is not None
    with psycopg.connect(one.url(), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE tried LOGIN PASSWORD 'a-password'")
        try:
            row = superuser.execute(
                "SELECT rolpassword FROM pg_authid WHERE rolname = 'tried'"
            ).fetchone()
        finally:
            superuser.execute("DROP ROLE tried")
    assert row is not None
    salt = base64.b64decode(row[0].split("$")[1].split(":")[1])
    assert server.verifier("a-password", salt) == row[0]


@pytest.mark.parametrize("role", list(DatabaseRole))
@pytest.mark.parametrize("process", list(database.Process))
def test_every_role_takes_the_limits_of_every_process(
    role: DatabaseRole, process: database.Process
) -> None:
    asked = "SELECT name, setting::int FROM pg_settings WHERE name IN ('statement_timeout',"
    asked += " 'lock_timeout', 'idle_in_transaction_session_timeout')"
    options = database.options_of(process)
    with psycopg.connect(url_of(role), options=options, application_name="sluice-x") as line:
        found = dict(line.execute(asked.encode()).fetchall())
        assert line.execute("SELECT current_setting('application_name')").fetchone() == (
            "sluice-x",
        )
    limits = database.LIMITS[process]
    assert found == {
        "statement_timeout": 1000 * limits.statement_s,
        "lock_timeout": 1000 * limits.lock_s,
        "idle_in_transaction_session_timeout": 1000 * limits.idle_s,
    }
