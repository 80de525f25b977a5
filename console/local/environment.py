"""Typed readers for settings from the environment. Each error says in one sentence what to set."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from environs import Env, EnvError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

# Chosen: integers of PostgreSQL and of most C code that we use hold no more (signed, 32 bits).
HIGHEST_WHOLE_NUMBER = 2**31 - 1
# The highest TCP port (RFC 9293: 16 bits).
HIGHEST_PORT = 65_535
_EXAMPLE_URL = "postgresql://user:password@host:5432/sluice"


def addresses_file(var: Path) -> Path:
    """Return the file in which `manage.py up` leaves the addresses of the servers it runs, for
    other commands to find.
    """
    return var / "run" / "env"


def load_environment(var: Path) -> Env:
    """Return the process environment, with the addresses that a running `manage.py up` left.

    A variable of the process wins over one of that file.
    """
    env = Env()
    path = addresses_file(var)
    if path.is_file():
        # not recursively: a file of that name in a parent folder belongs to another project
        env.read_env(str(path), recurse=False)
    return env


def require_text(env: Env, name: str, hint: str) -> str:
    """Return the variable's text, without spaces around it.

    Raises:
        ImproperlyConfigured: when it is missing or empty; the text ends with `hint`.
    """
    value = str(env.str(name, "")).strip()
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. {hint}")
    return value


def read_whole_number(
    env: Env, name: str, default: int, *, low: int = 0, high: int = HIGHEST_WHOLE_NUMBER
) -> int:
    """Return the variable as a whole number from `low` to `high`, or `default` if it is not set.

    Raises:
        ImproperlyConfigured: when it is not a number, or outside the range.
    """
    try:
        value = env.int(name, default)
    except EnvError as error:
        raise ImproperlyConfigured(
            f"{name} must be a whole number, for example {name}={default}."
        ) from error
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name} must be between {low} and {high}, but is {value}.")
    return int(value)


# Bytes, as makers of disks count.
GB = 1_000_000_000


def read_port(env: Env, name: str, default: int) -> int:
    """Return the variable as a TCP port, or `default` if it is not set.

    Raises:
        ImproperlyConfigured: when it is not a number from 1 to 65535.
    """
    # 0 would let the kernel choose, and then nobody could say where the server is
    return read_whole_number(env, name, default, low=1, high=HIGHEST_PORT)


def read_flag(env: Env, name: str, default: bool = False) -> bool:
    """Return whether the variable says yes, or `default` if it is not set.

    Raises:
        ImproperlyConfigured: when it is neither true nor false.
    """
    try:
        return bool(env.bool(name, default))
    except EnvError as error:
        raise ImproperlyConfigured(f"{name} must be true or false.") from error


def read_networks(env: Env, name: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return the variable as addresses and networks, separated by commas; none if it is not set.

    Raises:
        ImproperlyConfigured: when one is neither, or is a network of everybody.
    """
    found = []
    texts: list[str] = env.list(name, [])
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip())
        except ValueError as error:
            raise ImproperlyConfigured(
                f"{name} must be addresses or networks with commas between them, for example"
                f" {name}=10.0.0.5,192.168.7.0/24; {text!r} is none."
            ) from error
        # whoever connects would be believed, and could claim any address
        if network.prefixlen == 0:
            raise ImproperlyConfigured(f"{name} must not name everybody ({text}).")
        found.append(network)
    return tuple(found)


def refuse_renamed(env: Env, old: str, hint: str) -> None:
    """Raise ImproperlyConfigured, with `hint`, when a variable is set that nothing reads any more:
    whoever set it relies on it.
    """
    if env.str(old, ""):
        raise ImproperlyConfigured(f"{old} is no longer read. {hint}")


def parse_database_url(url: str) -> dict[str, Any]:
    """Return Django's description of the PostgreSQL database at `url`.

    The URL's parameters (sslmode, ...) become options.

    Raises:
        ImproperlyConfigured: when `url` is not a PostgreSQL URL.
    """
    # libpq takes "key=value" texts too, so its parser alone would let a wrong address through
    if not url.startswith(("postgresql://", "postgres://")):
        raise ImproperlyConfigured(
            f"DATABASE_URL must be a PostgreSQL address such as {_EXAMPLE_URL}."
        )
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError as error:
        raise ImproperlyConfigured(
            f"DATABASE_URL could not be read; it should look like {_EXAMPLE_URL}."
        ) from error
    return _describe_database(parts)


def _describe_database(parts: dict[str, Any]) -> dict[str, Any]:
    return {
        "ENGINE": "console.local.postgres",
        "NAME": parts.pop("dbname", "sluice"),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": str(parts.pop("port", "")),
        # last: what no field above took, such as sslmode
        "OPTIONS": parts,
    }


def read_session_key(env: Env, path: Path) -> str:
    """Return the key that signs sessions: SLUICE_SECRET_KEY, or the content of `path`, the file in
    which `manage.py up` keeps a key.

    Raises:
        ImproperlyConfigured: when there is neither.
    """
    value = str(env.str("SLUICE_SECRET_KEY", "")).strip()
    # for a file that this user may not read: the sentence below and not a PermissionError
    if not value and path.is_file() and os.access(path, os.R_OK):
        value = path.read_text().strip()
    if not value:
        raise ImproperlyConfigured(
            "SLUICE_SECRET_KEY is not set. Set it to 50 or more random characters, or run `make"
            " run` once."
        )
    return value
