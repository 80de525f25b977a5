"""What `manage.py up` decides before Django reads its settings: which servers are ours, and where
children find them.
"""

from __future__ import annotations

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from environs import Env

import installation
from console.local import environment, servers

ROOT = Path(__file__).resolve().parents[2]
POSTGRES_PORT = 54329
VALKEY_PORT = 63799


def prepare() -> None:
    """Names the embedded servers in the environment where it names none, and makes the secrets they
    need.

    Raises:
        ImproperlyConfigured: when a variable cannot be read, or the data folder not be written.
    """
    var = installation.var()
    try:
        var.mkdir(parents=True, exist_ok=True)
    except OSError:
        writable = False
    else:
        writable = os.access(var, os.W_OK | os.X_OK)
    if not writable:
        raise ImproperlyConfigured(
            f"The data cannot be written to {var}; set SLUICE_HOME to a folder that can:"
            " SLUICE_HOME=/path/to/folder make run"
        )
    os.environ["SLUICE_VAR"] = str(var)
    if not os.environ.get("DATABASE_URL"):
        os.environ["DATABASE_URL"] = postgres(var).url()
        os.environ["SLUICE_EMBEDDED_POSTGRES"] = "true"
    if not os.environ.get("VALKEY_URL"):
        os.environ["VALKEY_URL"] = valkey(var).url()
        os.environ["SLUICE_EMBEDDED_VALKEY"] = "true"
    if not os.environ.get("SLUICE_SECRET_KEY"):
        servers.kept_secret(var / "keys" / "session.key")
    # whatever a tool's cache is: `up` asks this folder whether the deciders' code is compiled
    os.environ["NUMBA_CACHE_DIR"] = str(var / "numba")


def postgres(var: Path) -> servers.Postgres:
    """The embedded PostgreSQL of this installation."""
    port = environment.port(Env(), "SLUICE_POSTGRES_PORT", POSTGRES_PORT)
    return servers.Postgres(
        var / "postgres", port, servers.kept_secret(var / "keys" / "postgres.password")
    )


def valkey(var: Path) -> servers.Valkey:
    """The embedded Valkey of this installation."""
    port = environment.port(Env(), "SLUICE_VALKEY_PORT", VALKEY_PORT)
    return servers.Valkey(
        var / "valkey", port, servers.kept_secret(var / "keys" / "valkey.password")
    )


def is_embedded(name: str) -> bool:
    """Whether `up` runs the server itself: name is "postgres" or "valkey"."""
    return os.environ.get(f"SLUICE_EMBEDDED_{name.upper()}") == "true"
