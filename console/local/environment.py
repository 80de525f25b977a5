"""Typed readers for settings from the environment. Each failure is one sentence that says what to
set.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from environs import Env, EnvError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict


def running_demo(var: Path) -> Path:
    """The file in which `manage.py up` leaves the addresses of the servers it runs, for other
    commands to find.
    """
    return var / "run" / "env"


def read(var: Path) -> Env:
    """An `Env` over the process environment, completed by a running `manage.py up`; real variables
    win.
    """
    env = Env()
    path = running_demo(var)
    if path.is_file():
        env.read_env(str(path), recurse=False)
    return env


def required(env: Env, name: str, hint: str) -> str:
    """The variable's text.

    Raises:
        ImproperlyConfigured: when it is missing or empty, with `hint` as what to do.
    """
    value = str(env.str(name, "")).strip()
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. {hint}")
    return value


def whole(env: Env, name: str, default: int, *, low: int = 0, high: int = 2**31 - 1) -> int:
    """A whole number within [low, high].

    Raises:
        ImproperlyConfigured: when it is no number or outside.
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


def port(env: Env, name: str, default: int) -> int:
    """A TCP port."""
    return whole(env, name, default, low=1, high=65535)


def flag(env: Env, name: str, default: bool = False) -> bool:
    """A yes or no.

    Raises:
        ImproperlyConfigured: when it is neither.
    """
    try:
        return bool(env.bool(name, default))
    except EnvError as error:
        raise ImproperlyConfigured(f"{name} must be true or false.") from error


def database(url: str) -> dict[str, Any]:
    """Django's description of the PostgreSQL database at `url`; the URL's parameters (sslmode, ...)
    become options.

    Raises:
        ImproperlyConfigured: when it is not a PostgreSQL URL.
    """
    example = "postgresql://user:password@host:5432/sluice"
    if not url.startswith(("postgresql://", "postgres://")):
        raise ImproperlyConfigured(f"DATABASE_URL must be a PostgreSQL address such as {example}.")
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError as error:
        raise ImproperlyConfigured(
            f"DATABASE_URL could not be read; it should look like {example}."
        ) from error
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.pop("dbname", "sluice"),
        "USER": parts.pop("user", ""),
        "PASSWORD": parts.pop("password", ""),
        "HOST": parts.pop("host", ""),
        "PORT": str(parts.pop("port", "")),
        "OPTIONS": parts,
    }


def secret(env: Env, path: Path) -> str:
    """The key that signs sessions: SLUICE_SECRET_KEY, else the file `manage.py up` made.

    Raises:
        ImproperlyConfigured: when there is neither.
    """
    value = str(env.str("SLUICE_SECRET_KEY", "")).strip()
    if not value and path.is_file() and os.access(path, os.R_OK):
        value = path.read_text().strip()
    if not value:
        raise ImproperlyConfigured(
            "SLUICE_SECRET_KEY is not set. Set it to 50 or more random characters, or run `make"
            " run` once."
        )
    return value
