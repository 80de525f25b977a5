"""`manage.py store_users` prints what a managed Valkey needs, and `manage.py up` hands it out."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.core.management import call_command
from django.core.management.base import CommandError

from console.local import embedded, programs, servers
from console.management.commands import up
from console.settings import SLUICE_PORTS
from decider.contracts import store
from decider.store_users import own_user, rules
from decider.store_users.roles import Role

ROOT = Path(__file__).parents[2]


def printed(*arguments: str) -> tuple[list[str], str]:
    """Lines for the server, and what is said beside them."""
    out, said = io.StringIO(), io.StringIO()
    call_command("store_users", *arguments, stdout=out, stderr=said)
    return out.getvalue().splitlines(), said.getvalue()


@pytest.fixture
def tried(valkey: redis.Redis) -> Iterator[str]:
    """A prefix whose users are gone after the test."""
    yield "tried"
    valkey.execute_command("ACL DELUSER", *(rules.user_of(role, "tried") for role in Role))


def test_its_lines_make_users_that_do_their_work_only(
    installation: Path, valkey: redis.Redis, tried: str, settings
) -> None:
    lines, said = printed("--prefix", tried)
    for line in lines:
        valkey.execute_command(*line.split())
    password = servers.password_path(settings.SLUICE_KEYS, Role.FEEDBACK).read_text().strip()
    assert password not in "".join(lines) + said
    port = valkey.connection_pool.connection_kwargs["port"]
    client = redis.Redis.from_url(f"redis://tried-feedback:{password}@127.0.0.1:{port}/0")
    client.xadd(store.OUTCOMES_STREAM, {"b": b""})
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.set(store.CONFIG_KEY, b"mine")
    client.close()


def test_a_user_forgets_what_it_could_do_before(
    installation: Path, valkey: redis.Redis, tried: str
) -> None:
    name = rules.user_of(Role.GATEWAY, tried)
    valkey.execute_command("ACL SETUSER", name, "on", "nopass", "~*", "&*", "+@all")
    for line in printed("--prefix", tried)[0]:
        valkey.execute_command(*line.split())
    for command in (("FLUSHALL",), ("GET", "any"), ("PUBLISH", "any", "x")):
        said = valkey.execute_command("ACL DRYRUN", name, *command)
        assert said not in (b"OK", True)
    with pytest.raises(redis.AuthenticationError):
        port = valkey.connection_pool.connection_kwargs["port"]
        redis.Redis.from_url(f"redis://{name}:anything@127.0.0.1:{port}/0").ping()


def test_lines_for_a_file_are_those_of_the_embedded_server(installation: Path, settings) -> None:
    lines, _ = printed("--file")
    made = servers.Valkey(installation / "v", 1, "all", keys=settings.SLUICE_KEYS)
    made.make()
    assert set(lines) <= set((installation / "v" / "valkey.conf").read_text().splitlines())


@pytest.mark.parametrize("prefix", ["", "a b", "Ünder", "x" * 41, "a>b", "a\nb"])
def test_a_prefix_that_would_need_quoting_is_refused(installation: Path, prefix: str) -> None:
    with pytest.raises(CommandError, match="--prefix"):
        printed("--prefix", prefix)


def test_the_document_shows_what_holds() -> None:
    assert "\n".join(printed("--tables")[0]) in (ROOT / "docs" / "valkey.md").read_text()


@pytest.fixture
def own_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installation that runs both servers itself."""
    for name in ("DATABASE_URL", "VALKEY_URL", "SLUICE_SECRET_KEY", "SLUICE_VAR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("SLUICE_VAR", str(tmp_path))
    for name in ("SLUICE_EMBEDDED_POSTGRES", "SLUICE_EMBEDDED_VALKEY", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    embedded.prepare_environment()
    return tmp_path


def test_up_gives_each_program_its_own_address_only(own_servers: Path) -> None:
    users = {
        **dict.fromkeys(programs.DECIDERS, "sluice-decider"),
        **{name: f"sluice-{name}" for name in ("console", "worker", "ingest", "feedback")},
        **dict.fromkeys(("explainer", "beat"), "sluice-worker"),
        "gateway-agent": "sluice-gateway",
        "console-switches": "sluice-console",
    }
    found = up.list_programs(own_servers, dict(SLUICE_PORTS), with_traffic=True)
    assert {program.name for program in found} > users.keys()
    for program in found:
        url = program.environment["VALKEY_URL"]
        assert url.partition("://")[2].partition(":")[0] == users.get(program.name, "")
        # only these keep anything in the database
        uses_database = program.name in {
            *("console", "console-switches", "worker", "explainer", "beat", "ingest")
        }
        assert bool(program.environment["DATABASE_URL"]) is uses_database
        assert not any("redis://" in word for word in program.command)
    assert os.environ["VALKEY_URL"].startswith("redis://sluice-operator:")


def test_the_supervisor_hands_the_variables_on(own_servers: Path) -> None:
    found = up.list_programs(own_servers, dict(SLUICE_PORTS), with_traffic=False)
    ours = up.Supervisor(own_servers, found)
    decider = next(program for program in found if program.name == "d01")
    (line,) = (one for one in ours._program_config(decider) if one.startswith("environment="))
    words = dict(
        word.split("=", 1) for word in shlex.split(line.split("=", 1)[1].replace(",", " "))
    )
    assert words["VALKEY_URL"].replace("%%", "%") == decider.environment["VALKEY_URL"]
    assert words["DATABASE_URL"] == ""


def test_up_refuses_a_managed_server_on_which_it_may_do_everything(
    monkeypatch: pytest.MonkeyPatch, settings
) -> None:
    settings.VALKEY_URL = os.environ["VALKEY_URL"]
    monkeypatch.delenv("SLUICE_DEBUG")
    with pytest.raises(servers.PartError, match="store_users"):
        up.check_store_user()
    monkeypatch.setenv(own_user.ALLOW, "allow")
    up.check_store_user()
