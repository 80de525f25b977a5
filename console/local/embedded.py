"""The embedded PostgreSQL and Valkey: which of them `manage.py up` runs, and their addresses, which
must be known before Django reads its settings.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from environs import Env

import installation
from console.local import environment, servers
from control.database_roles.roles import DatabaseRole
from decider.store_users.roles import Role

ROOT = Path(__file__).resolve().parents[2]
# Chosen: the usual ports with a digit added. A machine that has a PostgreSQL or a Valkey of its own
# uses the usual ones (5432 and 6379).
POSTGRES_PORT = 54_329
# Chosen in the same way.
VALKEY_PORT = 63_799


def prepare_environment() -> None:
    """Set DATABASE_URL and VALKEY_URL to the embedded servers unless they are set, and make the
    secrets that are missing.

    Raises:
        ImproperlyConfigured: when a port is not a port, or the data folder cannot be written.
    """
    var = installation.data_folder()
    _make_writable(var)
    keep_private(var)
    # as an absolute path, because children may have another current folder
    os.environ["SLUICE_VAR"] = str(var)
    # the marks tell children and settings that a server is ours; its address does not
    if not os.environ.get("DATABASE_URL"):
        # of people's commands; each program that `up` starts gets its own role's
        os.environ["DATABASE_URL"] = postgres_server(var).url(role=DatabaseRole.APP)
        os.environ["SLUICE_EMBEDDED_POSTGRES"] = "true"
    if not os.environ.get("VALKEY_URL"):
        # of people's commands; each program that `up` starts gets its own role's
        os.environ["VALKEY_URL"] = valkey_server(var).url(role=Role.OPERATOR)
        os.environ["SLUICE_EMBEDDED_VALKEY"] = "true"
    if not os.environ.get("SLUICE_SECRET_KEY"):
        servers.kept_secret(var / "keys" / "session.key")
    # always this folder: `up` looks there whether the deciders' code is compiled
    os.environ["NUMBA_CACHE_DIR"] = str(var / "numba")


def _make_writable(var: Path) -> None:
    try:
        var.mkdir(parents=True, exist_ok=True)
    except OSError:
        writable = False
    else:
        # a folder that exists may still be another user's, or on a read-only disk
        writable = os.access(var, os.W_OK | os.X_OK)
    if not writable:
        raise ImproperlyConfigured(
            f"The data cannot be written to {var}; set SLUICE_HOME, or SLUICE_VAR if you use it, to"
            " a writable folder: SLUICE_HOME=/path/to/folder make run"
        )


def keep_private(var: Path) -> None:
    """Let nobody else read the data: whatever this process and its programs make from here on, and
    the folders and logs that an earlier version made readable.
    """
    os.umask(0o077)
    logs = var / "log"
    # only its owner may change a file's mode; what another user owns is that user's to close
    with suppress(PermissionError):
        for folder in (var, logs, var / "run"):
            if folder.is_dir():
                folder.chmod(0o700)
        for path in logs.glob("*.log*"):
            path.chmod(0o600)


def postgres_server(var: Path) -> servers.Postgres:
    """Return the embedded PostgreSQL of this installation.

    Raises:
        ImproperlyConfigured: when SLUICE_POSTGRES_PORT is not a port.
    """
    port = environment.read_port(Env(), "SLUICE_POSTGRES_PORT", POSTGRES_PORT)
    keys = var / "keys"
    password = servers.kept_secret(keys / "postgres.password")
    return servers.Postgres(var / "postgres", port, password, keys=keys)


def owner_url(var: Path) -> str:
    """Return the address of the database for migrations: SLUICE_OWNER_DATABASE_URL, else that of
    the embedded server's owner where DATABASE_URL leads to that server, else "".
    """
    if url := os.environ.get("SLUICE_OWNER_DATABASE_URL", "").strip():
        return url
    # asked before the server is described, which would make the passwords
    if not servers.database_password_path(var / "keys", DatabaseRole.OWNER).exists():
        return ""
    server = postgres_server(var)
    ours = os.environ.get("DATABASE_URL") == server.url(role=DatabaseRole.APP)
    return server.url(role=DatabaseRole.OWNER) if ours else ""


def become_owner() -> None:
    """Lead DATABASE_URL of this process to the role that owns the tables, where it is known. Call
    it before Django reads its settings.
    """
    var = installation.data_folder()
    # reads the addresses that a running `up` left
    environment.load_environment(var)
    if url := owner_url(var):
        os.environ["DATABASE_URL"] = url


def valkey_server(var: Path) -> servers.Valkey:
    """Return the embedded Valkey of this installation.

    Raises:
        ImproperlyConfigured: when SLUICE_VALKEY_PORT is not a port.
    """
    port = environment.read_port(Env(), "SLUICE_VALKEY_PORT", VALKEY_PORT)
    keys = var / "keys"
    password = servers.kept_secret(keys / "valkey.password")
    return servers.Valkey(var / "valkey", port, password, keys=keys)


def is_embedded(name: str) -> bool:
    """Return whether `up` runs the server itself: name is "postgres" or "valkey"."""
    return os.environ.get(f"SLUICE_EMBEDDED_{name.upper()}") == "true"
