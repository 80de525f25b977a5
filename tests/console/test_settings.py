"""Settings say in one sentence what is missing, and sessions end when they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from console.local import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("missing", "hint"),
    [("DATABASE_URL", "make run"), ("VALKEY_URL", "make run"), ("SLUICE_SECRET_KEY", "50 or more")],
)
def test_a_missing_setting_is_one_sentence_that_says_what_to_set(
    missing: str, hint: str, tmp_path: Path
) -> None:
    surroundings = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "console.settings",
        "SLUICE_VAR": str(tmp_path),
    }
    del surroundings[missing]
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"sluice: {missing} is not set.")
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["sqlite:///x", "mysql://a/b", "postgresql://[bad"])
def test_a_database_that_is_not_postgresql_is_refused(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL"):
        environment.parse_database_url(url)


def test_parameters_of_the_database_address_become_options() -> None:
    read = environment.parse_database_url(
        "postgresql://ann:p%40ss@db.example:6432/sluice?sslmode=require"
    )
    assert (read["USER"], read["PASSWORD"], read["HOST"], read["PORT"], read["NAME"]) == (
        "ann",
        "p@ss",
        "db.example",
        "6432",
        "sluice",
    )
    assert read["OPTIONS"] == {"sslmode": "require"}


@pytest.mark.django_db
def test_the_servers_are_the_real_ones(valkey: redis.Redis) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        assert connection.info.server_version >= 180000
    assert valkey.info("server")["server_name"] == "valkey"
