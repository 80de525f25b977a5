"""`manage.py database_roles` prints what a managed PostgreSQL needs, `manage.py up` hands out the
roles, and takes over a database that an earlier version made as a superuser.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from console import celery
from console.local import database, embedded, servers
from console.management.commands import up
from console.settings import SLUICE_PORTS
from control.database_roles.roles import DatabaseRole
from decider.store_users import own_user
from decider.store_users.roles import Role
from tests import servers as session

ROOT = Path(__file__).parents[2]


def printed(*arguments: str) -> tuple[str, str]:
    """The SQL, and what is said beside it."""
    out, said = io.StringIO(), io.StringIO()
    call_command("database_roles", *arguments, stdout=out, stderr=said)
    return out.getvalue(), said.getvalue()


def test_the_document_shows_what_holds() -> None:
    assert printed("--tables")[0].strip() in (ROOT / "docs" / "postgresql.md").read_text()


@pytest.mark.parametrize("name", ["", "a b", "a-b", "A", "x" * 41, 'a"', "a;", "ü"])
def test_names_that_would_need_quoting_are_refused(installation: Path, name: str) -> None:
    for option in ("--prefix", "--database"):
        with pytest.raises(CommandError, match=option):
            printed(option, name)


def test_passwords_are_kept_in_files_and_not_printed(installation: Path, settings) -> None:
    sql, said = printed()
    for role in DatabaseRole:
        path = servers.database_password_path(settings.SLUICE_KEYS, role)
        assert path.stat().st_mode & 0o077 == 0
        assert path.read_text() not in sql + said
        assert f"sluice_{role}: password in {path}" in said


@pytest.fixture
def earlier() -> Iterator[str]:
    """The name of a database as an earlier version made it: everything belongs to a superuser."""
    one, name = session.postgres(), "earlier"
    assert one is not None
    with psycopg.connect(one.url(), autocommit=True) as superuser:
        superuser.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        superuser.execute(f"CREATE DATABASE {name}".encode())
        with database.connected_as(one.url(name)):
            call_command("migrate", verbosity=0)
            call_command("migrate", "control", "0006", verbosity=0)
            with connection.cursor() as cursor:
                cursor.execute("SELECT control_make_look_month('2026-05-05')")
        yield name
        superuser.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


OWNERS = (
    "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')"
    " UNION SELECT pg_get_userbyid(proowner) FROM pg_proc"
    " WHERE pronamespace = 'public'::regnamespace"
    " UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
)


@pytest.mark.django_db(transaction=True)
def test_a_database_that_a_superuser_made_is_handed_over_and_upgraded(earlier: str) -> None:
    one = session.postgres()
    assert one is not None
    with psycopg.connect(one.url(earlier)) as superuser:
        assert superuser.execute(OWNERS).fetchall() == [("sluice",)]
    one.hand_over(earlier)
    # as often as `up` starts
    one.hand_over(earlier)
    with psycopg.connect(one.url(earlier)) as superuser:
        assert superuser.execute(OWNERS).fetchall() == [("sluice_owner",)]
    with database.connected_as(one.url(earlier, role=DatabaseRole.OWNER)):
        call_command("migrate", verbosity=0)
    app = one.url(earlier, role=DatabaseRole.APP)
    with psycopg.connect(app, autocommit=True) as line:
        assert line.execute(
            "SELECT control_make_day('decisions_decision', '2026-05-05')"
        ).fetchone()
        assert line.execute("SELECT count(*) FROM control_look").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            line.execute("ALTER TABLE control_look_202605 DISABLE TRIGGER ALL")


@pytest.mark.django_db(transaction=True)
def test_an_administrator_who_is_no_superuser_can_run_what_is_printed(
    installation: Path, settings
) -> None:
    """As on a managed server: one who may make roles and databases, and nothing else."""
    one = session.postgres()
    assert one is not None
    sql, _ = printed("--prefix", "tried", "--database", "managed")
    names = [f"tried_{role}" for role in DatabaseRole]
    with psycopg.connect(one.url(), autocommit=True) as superuser:
        superuser.execute("CREATE ROLE admin_of_ours LOGIN CREATEROLE CREATEDB PASSWORD 'x'")
        try:
            admin = one.url("postgres").replace("sluice:test@", "admin_of_ours:x@")
            with psycopg.connect(admin, autocommit=True) as line:
                line.execute("CREATE DATABASE managed")
            with psycopg.connect(admin.replace("/postgres", "/managed"), autocommit=True) as line:
                for _ in range(2):
                    line.execute(sql.encode())
            password = servers.database_password(settings.SLUICE_KEYS, DatabaseRole.OWNER)
            owner = one.url("managed").replace("sluice:test@", f"tried_owner:{password}@")
            with database.connected_as(owner):
                call_command("migrate", verbosity=0)
            password = servers.database_password(settings.SLUICE_KEYS, DatabaseRole.READER)
            reader = one.url("managed").replace("sluice:test@", f"tried_reader:{password}@")
            with psycopg.connect(reader) as line:
                assert line.execute("SELECT count(*) FROM control_app").fetchone() == (0,)
        finally:
            superuser.execute("DROP DATABASE IF EXISTS managed WITH (FORCE)")
            for name in (*names, "admin_of_ours"):
                superuser.execute(f"DROP ROLE IF EXISTS {name}".encode())


# ---- who gets which address


@pytest.fixture
def own_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installation that runs both servers itself."""
    names = ("DATABASE_URL", "VALKEY_URL", "SLUICE_SECRET_KEY", "SLUICE_OWNER_DATABASE_URL")
    for name in (*names, "SLUICE_EMBEDDED_POSTGRES", "SLUICE_EMBEDDED_VALKEY", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("SLUICE_VAR", str(tmp_path))
    embedded.prepare_environment()
    return tmp_path


def test_up_gives_each_program_the_address_of_its_own_role(own_servers: Path) -> None:
    users = {
        **dict.fromkeys(("console", "console-switches", "worker", "explainer", "beat"), "app"),
        "ingest": "ingest",
    }
    found = up.list_programs(own_servers, dict(SLUICE_PORTS), with_traffic=True)
    assert {program.name for program in found} > users.keys()
    for program in found:
        url = program.environment["DATABASE_URL"]
        wanted = f"sluice_{users[program.name]}" if program.name in users else None
        assert urlsplit(url).username == wanted
        assert program.environment["SLUICE_OWNER_DATABASE_URL"] == ""
        assert not any("postgresql://" in word for word in program.command)
    assert urlsplit(os.environ["DATABASE_URL"]).username == "sluice_app"


def test_migrations_run_as_the_owner(own_servers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # of an installation that never started
    assert embedded.owner_url(own_servers) == ""
    servers.database_password(own_servers / "keys", DatabaseRole.OWNER)
    assert urlsplit(embedded.owner_url(own_servers)).username == "sluice_owner"
    monkeypatch.setenv("DATABASE_URL", "postgresql://me@elsewhere/sluice")
    assert embedded.owner_url(own_servers) == ""
    embedded.become_owner()
    assert os.environ["DATABASE_URL"] == "postgresql://me@elsewhere/sluice"
    monkeypatch.setenv("SLUICE_OWNER_DATABASE_URL", "postgresql://own@elsewhere/sluice")
    embedded.become_owner()
    assert os.environ["DATABASE_URL"] == "postgresql://own@elsewhere/sluice"


# ---- programs that may do too much do not start


@pytest.mark.parametrize("role", [None, DatabaseRole.OWNER])
@pytest.mark.parametrize(
    ("command", "store"),
    [(["-c", "import console.wsgi"], Role.CONSOLE), (["manage.py", "ingest"], Role.INGEST)],
)
def test_a_program_that_may_do_too_much_does_not_start(
    role: DatabaseRole | None, command: list[str], store: Role
) -> None:
    one = session.postgres()
    assert one is not None
    environment = {
        **os.environ,
        "SLUICE_DEBUG": "false",
        "DATABASE_URL": one.url("postgres", role=role),
        "VALKEY_URL": session.store_url(store),
        "DJANGO_SETTINGS_MODULE": "console.settings",
    }
    done = subprocess.run(
        [sys.executable, "-B", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "Run `manage.py database_roles`" in done.stderr


def test_a_worker_that_may_do_too_much_takes_no_task(
    monkeypatch: pytest.MonkeyPatch, settings
) -> None:
    one = session.postgres()
    assert one is not None
    settings.DATABASE_URL = one.url("postgres")
    celery.refuse_all_powerful_user()
    monkeypatch.delenv("SLUICE_DEBUG")
    with pytest.raises(SystemExit, match="worker: PostgreSQL knows this process as “sluice”"):
        celery.refuse_all_powerful_user()
    settings.DATABASE_URL = one.url("postgres", role=DatabaseRole.APP)
    monkeypatch.setattr(own_user, "is_allowed", lambda environment: True)
    celery.refuse_all_powerful_user()


def test_up_refuses_a_managed_server_on_which_it_may_do_everything(
    monkeypatch: pytest.MonkeyPatch, settings
) -> None:
    one = session.postgres()
    assert one is not None
    settings.DATABASE_URL = one.url("postgres")
    monkeypatch.delenv("SLUICE_DEBUG")
    with pytest.raises(servers.PartError, match="database_roles"):
        up.check_database()
    settings.DATABASE_URL = one.url("postgres", role=DatabaseRole.APP)
    up.check_database()


@pytest.mark.django_db(transaction=True)
def test_up_says_what_to_set_when_it_may_not_migrate(
    monkeypatch: pytest.MonkeyPatch, earlier: str
) -> None:
    one = session.postgres()
    assert one is not None
    one.hand_over(earlier)
    app = one.url(earlier, role=DatabaseRole.APP)
    monkeypatch.setenv("SLUICE_OWNER_DATABASE_URL", app)
    with pytest.raises(CommandError, match="set SLUICE_OWNER_DATABASE_URL"):
        up.prepare_database(with_traffic=False)
