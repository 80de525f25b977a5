"""Each role does its own work in the store and none of the others'."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from console.local import servers
from decider.contracts import store
from decider.store_users import own_user, roles, rules
from decider.store_users.own_user import StoreUserError
from decider.store_users.roles import CHANNELS, KEYS, Role

pytestmark = pytest.mark.parts
ROOT = Path(__file__).parents[2]
# Commands by what they do to a key. Scripts are held to what they call.
READS = {
    "GET": (),
    "HGETALL": (),
    "HGET": ("f",),
    "HSCAN": ("0",),
    "XRANGE": ("-", "+"),
    "ZRANGEBYSCORE": ("0", "1"),
    "SMEMBERS": (),
    "MGET": (),
}
WRITES = {
    "SET": ("v",),
    "DEL": (),
    "EXPIRE": ("9",),
    "HSET": ("f", "v"),
    "HINCRBY": ("f", "1"),
    "LPUSH": ("v",),
    "RPUSH": ("v",),
    "SADD": ("v",),
    "ZADD": ("1", "v"),
    "XADD": ("*", "b", "v"),
    "INCRBY": ("1",),
}
BOTH = {"BLPOP": ("1",), "BRPOP": ("1",)}
# Commands that reach the server itself, or everybody's data at once.
NEVER = (
    "CONFIG SET dir /tmp",
    "CONFIG GET requirepass",
    "ACL SETUSER evil on nopass ~* +@all",
    "ACL LIST",
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "KEYS *",
    "MONITOR",
    "DEBUG SLEEP 1",
    "SHUTDOWN",
    "SAVE",
    "REPLICAOF 127.0.0.1 1",
    "MODULE LOAD /tmp/x.so",
    "FUNCTION LOAD x",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1000",
    "MIGRATE 127.0.0.1 1 k 0 1",
)


def names() -> dict[str, str]:
    """Keys and channels of `contracts.store`, by the names of their constants."""
    ends = ("_KEY", "_PREFIX", "_STREAM", "_CHANNEL")
    return {
        name: value
        for name, value in vars(store).items()
        if isinstance(value, str) and value.startswith("sluice:") and name.endswith(ends)
    }


def test_every_key_and_channel_has_a_line() -> None:
    lines = {kind.pattern.removesuffix("*") for kind in KEYS} | {
        name.removesuffix("*") for name, _ in CHANNELS
    }
    assert {name for name, value in names().items() if value not in lines} == set()
    # constants of another name would pass by unseen
    strings = {v for v in vars(store).values() if isinstance(v, str) and v.startswith("sluice:")}
    assert strings == set(names().values())


def test_no_two_kinds_of_key_overlap_but_celerys() -> None:
    found = [
        (a.pattern, b.pattern)
        for a in KEYS
        for b in KEYS
        if a is not b
        and b.pattern.startswith(a.pattern.removesuffix("*"))
        and a.pattern.endswith("*")
    ]
    assert {a for a, _ in found} == {store.CELERY_PREFIX + "*"}


def test_a_rule_holds_no_password() -> None:
    for role in Role:
        assert "secret" not in rules.rules_of(role, "secret")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Valkey]:
    """A Valkey with the users of all roles, as `manage.py up` starts it."""
    folder = tmp_path_factory.mktemp("users")
    valkey = servers.Valkey(
        folder / "valkey", servers.free_port(), "all", durable=False, keys=folder / "keys"
    )
    valkey.make()
    process = subprocess.Popen(valkey.command(), stdout=subprocess.DEVNULL)
    servers.wait_until_ready(valkey)
    yield valkey
    process.terminate()
    process.wait(10)


@pytest.fixture
def admin(server: servers.Valkey) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(server.url())
    client.flushdb()
    yield client
    client.close()


def may(admin: redis.Redis, role: Role, *command: str) -> bool:
    """Whether the server would let a role's user run a command."""
    said = admin.execute_command("ACL DRYRUN", rules.user_of(role), *command)
    return bool(said in (b"OK", "OK", True))


def an_example(pattern: str) -> str:
    return pattern.replace("*", "x:1")


@pytest.mark.parametrize("role", [r for r in Role if r is not Role.OPERATOR])
def test_a_role_reads_and_writes_its_own_keys_only(role: Role, admin: redis.Redis) -> None:
    too_much, used = [], set()
    for kind in KEYS:
        key = an_example(kind.pattern)
        # the one whose prefix holds others has lines for these
        own = [k for k in KEYS if k.pattern in (kind.pattern, store.CELERY_PREFIX + "*")]
        if not key.startswith(store.CELERY_PREFIX):
            own = [kind]
        reads, writes = (any(role in getattr(k, what) for k in own) for what in ("reads", "writes"))
        for commands, allowed in ((READS, reads), (WRITES, writes), (BOTH, reads and writes)):
            for name, rest in commands.items():
                if may(admin, role, name, key, *rest):
                    used.add(kind.pattern)
                    if not allowed:
                        too_much.append((name, key))
    assert too_much == []
    others = [kind.pattern for kind in KEYS if role not in kind.reads | kind.writes]
    assert used.isdisjoint(
        other for other in others if not (role is Role.WORKER and "celery" in other)
    )


@pytest.mark.parametrize("role", list(Role))
def test_no_role_touches_the_server_or_keys_of_others(role: Role, admin: redis.Redis) -> None:
    allowed = [text for text in NEVER if may(admin, role, *text.split())]
    assert allowed == []
    assert not may(admin, role, "GET", "another:key")
    assert not may(admin, role, "SET", "another:key", "v")
    assert not may(admin, role, "PUBLISH", "another", "v")
    assert not may(admin, role, "SUBSCRIBE", "another")


@pytest.mark.parametrize(
    ("key", "writer"),
    [
        (store.CONFIG_KEY, Role.DECIDER),
        (store.THROTTLE_PREFIX + "throttle_user_1:1", Role.DECIDER),
        (store.CELERY_PREFIX + "celery", Role.DECIDER),
        (store.CONFIG_KEY, Role.INGEST),
        (store.OUTCOMES_STREAM, Role.INGEST),
        (store.EVENTS_STREAM, Role.FEEDBACK),
        (store.CONFIG_KEY, Role.GATEWAY),
        (store.PROFILE_PREFIX + "a", Role.CONSOLE),
        (store.THROTTLE_PREFIX + "throttle_user_1:1", Role.WORKER),
    ],
)
def test_what_is_not_a_roles_cannot_be_written_by_a_script_either(
    key: str, writer: Role, server: servers.Valkey
) -> None:
    client = redis.Redis.from_url(server.url(role=writer))
    for call in ("redis.call('SET', ARGV[1], 'x')", "redis.call('DEL', ARGV[1])"):
        # undeclared, so that the script itself is let in
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|ACL failure|NOPERM"):
            client.eval(f"return {call}", 0, key)
    client.close()


def test_a_decider_listens_and_publishes_nothing(server: servers.Valkey) -> None:
    client = redis.Redis.from_url(server.url(role=Role.DECIDER))
    for channel in (store.CONFIG_CHANNEL, store.PROFILES_CHANNEL, store.COMMANDS_CHANNEL):
        with pytest.raises(NoPermissionError):
            client.publish(channel, b"x")
    listening = client.pubsub()
    listening.subscribe(store.CONFIG_CHANNEL)
    listening.close()
    client.close()


def test_the_passwords_are_apart_and_only_their_owner_reads_them(server: servers.Valkey) -> None:
    assert server.keys is not None
    found = {role: servers.password_path(server.keys, role) for role in Role}
    assert len({path.read_text() for path in found.values()}) == len(Role)
    assert {path.stat().st_mode & 0o777 for path in found.values()} == {0o600}
    config = server.data / "valkey.conf"
    assert not any(path.read_text() in config.read_text() for path in found.values())


def test_the_user_that_may_do_everything_is_found_out(server: servers.Valkey) -> None:
    with pytest.raises(StoreUserError, match=r"“default”.*manage.py store_users.*sluice-decider"):
        own_user.check_user(server.url(), Role.DECIDER, {})


@pytest.mark.parametrize("role", list(Role))
def test_a_roles_own_user_may_start(role: Role, server: servers.Valkey) -> None:
    own_user.check_user(server.url(role=role), role, {})


def test_another_user_of_all_keys_is_found_out_too(
    server: servers.Valkey, admin: redis.Redis
) -> None:
    admin.execute_command("ACL SETUSER", "boss", "on", ">pw", "~*", "+@read", "+acl|whoami")
    url = f"redis://boss:pw@127.0.0.1:{server.port}/0"
    with pytest.raises(StoreUserError, match="“boss”"):
        own_user.check_user(url, Role.CONSOLE, {})
    # a user may not be allowed to ask who it is
    admin.execute_command("ACL SETUSER", "boss", "-acl|whoami")
    with pytest.raises(StoreUserError, match="may do everything"):
        own_user.check_user(url, Role.CONSOLE, {})


def test_a_default_user_that_was_cut_down_may_start(
    server: servers.Valkey, admin: redis.Redis
) -> None:
    try:
        admin.execute_command("ACL SETUSER", "default", "resetkeys", "~sluice:*")
        own_user.check_user(server.url(), Role.CONSOLE, {})
    finally:
        admin.execute_command("ACL SETUSER", "default", "~*")


@pytest.mark.parametrize(
    "environment", [{"SLUICE_DEBUG": "true"}, {own_user.ALLOW: "allow"}, {"SLUICE_DEBUG": "1"}]
)
def test_debugging_or_a_named_setting_lets_it_start(
    environment: dict[str, str], server: servers.Valkey
) -> None:
    own_user.check_user(server.url(), Role.DECIDER, environment)


@pytest.mark.parametrize("said", ["", "true", "Allow ", "no"])
def test_nothing_but_the_word_allows_it(said: str, server: servers.Valkey) -> None:
    with pytest.raises(StoreUserError):
        own_user.check_user(server.url(), Role.DECIDER, {own_user.ALLOW: said})


@pytest.fixture
def later(tmp_path: Path) -> servers.Valkey:
    """A server that is away when processes start."""
    users = tmp_path / "users"
    return servers.Valkey(tmp_path / "valkey", servers.free_port(), "p", durable=False, keys=users)


@pytest.fixture
def come_back() -> Iterator[Callable[[servers.Valkey], None]]:
    """Starts a server for as long as the test lasts."""
    with contextlib.ExitStack() as running:
        yield partial(_start, running)


def _start(running: contextlib.ExitStack, server: servers.Valkey) -> None:
    server.make()
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    running.callback(process.wait, 10)
    running.callback(process.terminate)
    servers.wait_until_ready(server)


def test_a_store_that_is_away_holds_nobody_up_and_is_asked_when_it_is_back(
    later: servers.Valkey, come_back: Callable[[servers.Valkey], None]
) -> None:
    """Whoever could keep the store away at a start could have a process run as anybody."""
    check = f"check_user({later.url()!r}, Role.DECIDER, {{}}); print(1, flush=True)"
    program = (
        "import time; from decider.store_users.own_user import check_user;"
        f" from decider.store_users.roles import Role; {check}; time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    come_back(later)
    _, said = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert "who may do everything there" in said


def test_its_own_user_goes_on_when_the_store_is_back(
    later: servers.Valkey, come_back: Callable[[servers.Valkey], None]
) -> None:
    ended: list[bool] = []
    before = {thread.ident for thread in threading.enumerate()}
    url = later.url(role=Role.DECIDER)
    own_user.check_user(url, Role.DECIDER, {}, lambda: ended.append(True))
    (watch,) = (
        t for t in threading.enumerate() if t.name == "store-user" and t.ident not in before
    )
    come_back(later)
    watch.join(15)
    assert not watch.is_alive()
    assert not ended


@pytest.mark.parametrize(
    "command",
    [
        "-m decider --node d01 --data {0} --models {0} --keys {0}",
        "-m decider.node.feedback --log {0}/log",
        "-m decider.gateway.agent --name gw --keys {0} --data {0} --envoy {0}/rules",
    ],
)
def test_a_program_of_that_user_ends_with_a_sentence(
    command: str, server: servers.Valkey, keys: Path
) -> None:
    environment = {**os.environ, "VALKEY_URL": server.url()}
    del environment["SLUICE_DEBUG"]
    done = subprocess.run(
        [sys.executable, *command.format(keys).split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode != 0
    assert "who may do everything there" in done.stderr
    assert own_user.ALLOW in done.stderr
    assert done.stderr.count("\n") == 1


def test_all_roles_have_commands() -> None:
    assert set(roles.COMMANDS) == set(Role)
