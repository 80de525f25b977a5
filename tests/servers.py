"""The real servers the tests run on: one PostgreSQL and one Valkey for the whole session, on free
ports, in a temporary folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from console.local import servers
from control.database_roles.roles import DatabaseRole
from decider.store_users.roles import Role

# A busy test machine halts a decider for longer than the 15 ms after which no check is decided.
PATIENT = ("--gateway-waits", "60")
# Folder of the passwords of the servers' users, in the session's folder.
USERS = "users"


def start() -> None:
    """Start what the environment does not already name, and name it there for settings and child
    processes.
    """
    folder = _prepare()
    if "DATABASE_URL" not in os.environ:
        port, users = servers.free_port(), folder / USERS
        postgres = servers.Postgres(folder / "postgres", port, "test", durable=False, keys=users)
        _run(postgres, signal.SIGINT)
        postgres.make_database()
        with psycopg.connect(postgres.url()) as superuser:
            # only here: the test database is the owner's from its beginning
            superuser.execute("ALTER ROLE sluice_owner CREATEDB")
        # what tests start runs as programs do
        os.environ["DATABASE_URL"] = postgres.url(role=DatabaseRole.APP)
    if "VALKEY_URL" not in os.environ:
        port, users = servers.free_port(), folder / USERS
        valkey = servers.Valkey(folder / "valkey", port, "test", durable=False, keys=users)
        _run(valkey, signal.SIGTERM)
        # what tests themselves do there, they do as the user that may do everything
        os.environ["VALKEY_URL"] = valkey.url()


def store_url(role: Role) -> str:
    """The address by which a role's process uses this session's Valkey; the session's own where
    that has no users.
    """
    url, users = urlsplit(os.environ["VALKEY_URL"]), Path(os.environ["SLUICE_VAR"]) / USERS
    if not users.is_dir() or url.port is None:
        return os.environ["VALKEY_URL"]
    return servers.Valkey(users, url.port, "", keys=users).url(role=role)


def postgres() -> servers.Postgres | None:
    """This session's PostgreSQL; None where the environment names another."""
    url, users = urlsplit(os.environ["DATABASE_URL"]), Path(os.environ["SLUICE_VAR"]) / USERS
    if not servers.database_password_path(users, DatabaseRole.OWNER).exists() or url.port is None:
        return None
    return servers.Postgres(users, url.port, "test", durable=False, keys=users)


def database_url(role: DatabaseRole, database: str) -> str:
    """The address by which a role's process uses a database of this session's PostgreSQL; the
    session's own user where that has no roles.
    """
    if server := postgres():
        return server.url(database, role=role)
    base, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    return f"{base}/{database}"


def name_none() -> None:
    """Name servers that do not exist: whoever asks one fails at once."""
    _prepare()
    os.environ["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    os.environ["VALKEY_URL"] = "redis://127.0.0.1:1/0"


def _prepare() -> Path:
    """Make a temporary folder for this session, or take over the parent's. Return it."""
    if "SLUICE_VAR" not in os.environ or "SLUICE_TEST_SERVERS" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="sluice-tests-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        servers.let_pass(folder)
        os.environ["SLUICE_VAR"] = str(folder)
        os.environ["SLUICE_TEST_SERVERS"] = "1"
    folder = Path(os.environ["SLUICE_VAR"])
    # as `collectstatic` leaves it; its absence is a warning, and warnings are errors here
    (folder / "static").mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("SLUICE_SECRET_KEY", "only-for-tests-" + "0123456789" * 5)
    os.environ.setdefault("SLUICE_DEBUG", "true")
    return folder


def _run(part: servers.Postgres | servers.Valkey, stop: signal.Signals) -> None:
    part.make()
    with (part.data.parent / f"{type(part).__name__.lower()}.log").open("wb") as log:
        process = subprocess.Popen(
            part.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    atexit.register(_stop, process, stop)
    servers.wait_until_ready(part)


def _stop(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    process.send_signal(with_signal)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
