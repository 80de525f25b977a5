"""A real decider process with a real Valkey of its own, which comes, goes and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from console.local import servers
from decider.contracts import config as configs
from decider.contracts import defaults, known, store
from decider.contracts.config import Config, Sampling, Switch
from decider.contracts.event import Event, decode_batch
from decider.contracts.requests import Outcome
from decider.contracts.sealed import profiles, told
from decider.contracts.store import Ack, NodeStatus, Profile
from decider.doors.unix_client import UnixConnection
from decider.engine.known_apps import table as known_apps
from decider.engine.text_hash import TextHash
from decider.node import commands
from decider.node import process as decider_process
from decider.store_users.roles import Role
from tests.servers import PATIENT
from tests.told import entry

pytestmark = [pytest.mark.parts, pytest.mark.in_order]
KEEP_ALL = Sampling(budget_per_s=1e9, admit=1.0, refuse=1.0, block=1.0, enterprise_refuse=1.0)


def until(true: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    give_up = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up, f"{what} did not come within {within_s} s"
        time.sleep(0.02)


class World:
    """One Valkey, one decider, one signing key."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder, self.keys = folder, keys
        self.key = Ed25519PrivateKey.from_private_bytes(
            bytes.fromhex((keys / "config.key").read_text())
        )
        self.valkey = servers.Valkey(
            folder / "valkey", servers.free_port(), "test", keys=folder / "users"
        )
        self.valkey.make()
        self.sockets = {node: folder / f"{node}.sock" for node in ("d01", "d02")}
        self.version = 0
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        self.start_valkey()

    def start_valkey(self) -> None:
        self.servers["valkey"] = subprocess.Popen(
            self.valkey.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        servers.wait_until_ready(self.valkey)
        self.store = redis.Redis.from_url(self.valkey.url())

    def start_decider(
        self,
        node: str = "d01",
        name: str = "decider",
        program: tuple[str, ...] = ("-m", "decider"),
        options: tuple[str, ...] = PATIENT,
    ) -> None:
        command = [
            sys.executable,
            *program,
            "--node",
            node,
            "--listen",
            f"unix:{self.sockets[node]}",
            "--valkey",
            self.valkey.url(role=Role.DECIDER),
        ]
        command += [
            "--data",
            str(self.folder / node),
            "--models",
            str(self.folder / "models"),
            "--keys",
            str(self.keys),
            *options,
        ]
        self.servers[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(lambda: self.healthy(node), "the decider", 240)  # a cold cache is compiled first

    def end(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> int:
        process = self.servers.pop(name)
        process.send_signal(with_signal)
        return process.wait(15)

    def publish(self, document: Config | None = None, **changes: object) -> int:
        self.version += 1
        plain = msgspec.structs.replace(
            document or defaults.config(), version=self.version, sampling=KEEP_ALL, **changes
        )
        data = configs.sign(plain, self.key)
        self.store.set(store.CONFIG_KEY, data)
        self.store.publish(store.CONFIG_CHANNEL, data)
        return self.version

    def put(self, profile: Profile) -> None:
        """Put a profile into the store as the console does."""
        token_key = bytes.fromhex((self.keys / "token.key").read_text())
        data = profiles.seal(profile, profiles.derive_key(token_key))
        self.store.set(store.PROFILE_PREFIX + profile.app, data)

    def get(
        self, path: str, app: str | None = None, node: str = "d01"
    ) -> tuple[int, dict[str, str], bytes]:
        connection = UnixConnection(self.sockets[node], 5)
        connection.request("GET", path, headers={"x-sluice-app": app} if app else {})
        answer = connection.getresponse()
        got = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        connection.close()
        return got

    def healthy(self, node: str = "d01") -> bool:
        try:
            return self.get("/healthz", node=node)[0] == 200
        except OSError:
            return False

    def running(self) -> int:
        return int(json.loads(self.get("/healthz")[2])["config_version"])

    def status(self, node: str = "d01") -> NodeStatus | None:
        data = self.store.get(store.NODE_PREFIX + node)
        return None if data is None else msgspec.msgpack.decode(data, type=NodeStatus)

    def ack(self, version: int) -> Ack | None:
        data = self.store.hget(f"{store.ACKS_PREFIX}{version}", "d01")
        return None if data is None else msgspec.msgpack.decode(data, type=Ack)

    def leases(self) -> str:
        """The key of what is leased today, to all deciders."""
        ledger = self.store.hget(store.LEDGER_KEY, "id").decode()
        return f"{store.LEASES_PREFIX}{ledger}:{time.strftime('%Y%m%d', time.gmtime())}"

    def events(self) -> list[Event]:
        entries = self.store.xrange(store.EVENTS_STREAM)
        return [event for _, fields in entries for event in decode_batch(fields[b"b"]).events]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    from tests.conftest import write_keys

    folder = tmp_path_factory.mktemp("decider")
    write_keys(folder / "keys")
    made = World(folder, folder / "keys")
    try:
        made.publish()
        made.start_decider()
        yield made
    finally:
        for name in list(made.servers):
            made.end(name, signal.SIGTERM)


def test_a_pushed_document_is_in_force_at_once_and_acked(world: World) -> None:
    version = world.publish(switches=[Switch("all_ml")])
    until(lambda: world.ack(version) is not None, "the ack", 5)
    ack = world.ack(version)
    assert ack is not None
    assert (ack.ok, ack.source, ack.version) == (True, "push", version)
    assert world.running() == version


def test_a_document_only_stored_is_found_by_poll(world: World) -> None:
    world.version += 1
    plain = msgspec.structs.replace(defaults.config(world.version), sampling=KEEP_ALL)
    world.store.set(store.CONFIG_KEY, configs.sign(plain, world.key))
    until(lambda: world.running() == world.version, "the poll", 10)


def test_a_forged_document_is_refused_and_acked_with_its_reason(world: World) -> None:
    running = world.running()
    forged = configs.sign(defaults.config(world.version + 1), Ed25519PrivateKey.generate())
    world.store.publish(store.CONFIG_CHANNEL, forged)
    until(
        lambda: (s := world.status()) is not None and "refused" in s.last_error, "the refusal", 10
    )
    assert world.running() == running
    world.publish()
    until(lambda: world.running() == world.version, "the next good one", 10)


def test_rubbish_on_every_channel_stops_nothing(world: World) -> None:
    world.store.publish(store.CONFIG_CHANNEL, b"\xff\xfe rubbish")
    world.store.publish(store.PROFILES_CHANNEL, b"\xff\xfe rubbish")
    world.store.xadd(store.OUTCOMES_STREAM, {"b": b"\xff rubbish"})
    world.store.xadd(store.OUTCOMES_STREAM, {"other": b"field"})
    time.sleep(1.0)
    assert world.get("/v1/check/v2/orders/1", "app_r")[0] == 200
    version = world.publish()
    until(lambda: world.running() == version, "a push after rubbish", 10)


def test_a_profile_is_fetched_when_an_app_is_first_seen(world: World) -> None:
    profile = Profile("app_known", "Known", "t1", 2)
    world.put(profile)
    world.get("/v1/check/v2/orders/1", "app_known")
    until(
        lambda: "q=1000" in world.get("/v1/check/v2/orders/1", "app_known")[1]["ratelimit-policy"],
        "the profile",
        10,
    )


def test_a_profile_that_the_console_did_not_make_changes_nothing_and_is_told(
    world: World,
) -> None:
    """A tier of 99 ended a decider at the app's next request, and again after each start."""
    before = world.status()
    assert before is not None
    for tier in (3, 99, -1, 2**62):
        data = msgspec.msgpack.encode(Profile("app_forged", "Forged", "t1", tier))
        world.store.set(store.PROFILE_PREFIX + "app_forged", data)
        world.store.publish(store.PROFILES_CHANNEL, data)
        for _ in range(3):
            answer = world.get("/v1/check/v2/orders/1", "app_forged")
            assert answer[1]["ratelimit-policy"].partition("q=")[2].partition(";")[0] == "50"
    until(
        lambda: (
            (s := world.status()) is not None
            and s.messages_rejected >= before.messages_rejected + 4
            and "a profile" in s.last_error
        ),
        "the count",
        10,
    )


def test_outcomes_that_no_gateway_sent_change_nothing_and_are_told(world: World) -> None:
    """Whoever could write to the store could make a service look broken."""
    before = world.status()
    assert before is not None
    made = Outcome("app_o", "orders-read", time.time(), 503, 500_000.0)
    sealed = entry([made] * 50, world.keys)
    body = msgspec.msgpack.encode([made] * 900)
    for forged in ({"b": body}, {"b": body, "s": b"x" * 60}, {**sealed, "b": body}):
        world.store.xadd(store.OUTCOMES_STREAM, forged)
    until(
        lambda: (
            (s := world.status()) is not None
            and s.outcomes.refused >= before.outcomes.refused + 3
            and "outcomes are not believed" in s.last_error
        ),
        "the count",
        10,
    )
    assert world.status().services[0].latency_ms < 400_000.0
    for _ in range(3):
        world.store.xadd(store.OUTCOMES_STREAM, sealed)
    until(
        lambda: (s := world.status()) is not None and "sent them before" in s.outcomes.why,
        "those put back",
        10,
    )


def test_what_the_console_is_told_is_sealed(world: World) -> None:
    key = bytes.fromhex((world.keys / "token.key").read_text())
    world.publish()
    beats = [told.HEARTBEAT.derive_key(key)]

    def told_version() -> int:
        data = world.store.get(store.NODE_PREFIX + "d01")
        return told.read_heartbeat(data, "d01", time.time(), beats).config_version

    until(lambda: told_version() == world.version, "the heartbeat", 10)
    until(lambda: world.ack(world.version) is not None, "the ack", 10)
    data = world.store.hget(f"{store.ACKS_PREFIX}{world.version}", "d01")
    assert told.read_ack(data, "d01", world.version, [told.ACK.derive_key(key)]).ok


def test_one_bad_outcome_costs_itself_only(world: World) -> None:
    good = Outcome("app_o", "orders-read", time.time(), 200, 77_000.0)
    bad = [Outcome("app_o", "orders-read", time.time(), 200, float("inf")), ["x"] * 5, None, 7]
    world.store.xadd(store.OUTCOMES_STREAM, entry([*bad, good], world.keys))
    until(
        lambda: (s := world.status()) is not None and s.services[0].latency_ms > 1_000.0,
        "the good one",
        10,
    )
    assert world.status().services[0].latency_ms <= 77_000.0


def test_decisions_reach_the_stream_and_outcomes_reach_the_services(world: World) -> None:
    ids = {world.get(f"/v1/check/v2/orders/{k}", "app_e")[1]["sluice-decision"] for k in range(5)}
    until(lambda: ids <= {f"dec_{e.id.hex()}" for e in world.events()}, "the events", 10)
    world.store.xadd(
        store.OUTCOMES_STREAM,
        entry([Outcome("app_e", "orders-read", time.time(), 200, 9.0)], world.keys),
    )
    until(
        lambda: (s := world.status()) is not None and s.services[0].feedback_age_s < 60,
        "the outcome",
        10,
    )


def test_without_valkey_it_decides_on_and_nothing_kept_is_lost(world: World) -> None:
    before = len(world.events())
    world.end("valkey", signal.SIGTERM)
    answers = [world.get(f"/v1/check/v2/orders/{k}", "app_away")[0] for k in range(20)]
    assert answers == [200] * 20
    switched = configs.sign(defaults.config(world.version + 1), world.key)
    world.version += 1
    (world.folder / "d01" / "switch.bin").write_bytes(switched)
    until(lambda: world.running() == world.version, "the file on the node", 5)
    world.start_valkey()
    until(lambda: len(world.events()) >= before + 20, "the buffered events", 20)
    assert len({e.id for e in world.events()}) == len(world.events())
    until(
        lambda: (s := world.status()) is not None and s.config_version == world.version,
        "the heartbeat",
        10,
    )
    assert world.publish() == world.version
    until(lambda: world.running() == world.version, "a push after the restart", 10)


def test_a_killed_decider_starts_again_on_the_document_it_acked_without_valkey(
    world: World,
) -> None:
    version = world.publish(switches=[Switch("all_ml")])
    until(lambda: world.ack(version) is not None, "the ack", 10)
    world.end("decider")
    world.end("valkey", signal.SIGTERM)
    world.start_decider()
    assert world.running() == world.version
    assert world.get("/v1/check/v2/orders/1", "app_1")[0] in (200, 429)
    world.start_valkey()


def test_paying_apps_are_known_before_their_profiles_and_after_a_start_without_valkey(
    world: World,
) -> None:
    text_hash = TextHash(bytes.fromhex((world.keys / "token.key").read_text()))
    names = ["app_big_1", "app_big_2"]
    table = known_apps.of_profiles([Profile(app, app, "acme", 3) for app in names], text_hash)
    parts = known.split((table.key, table.tenant, table.tier))
    for digest, data in parts.items():
        world.store.set(store.KNOWN_PART_PREFIX + digest, data)
    snapshot = known.Snapshot(7, 1, text_hash.mark, list(parts))
    world.store.xadd(store.KNOWN_STREAM, {"b": known.sign(snapshot, world.key)}, id="7-0")
    forged = known.sign(known.Snapshot(8, 1, text_hash.mark, []), Ed25519PrivateKey.generate())
    world.store.xadd(store.KNOWN_STREAM, {"b": forged}, id="8-0")
    until(
        lambda: (
            (s := world.status()) is not None
            and (s.known_apps, s.known_version, s.known_rejected) == (2, 7, 1)
        ),
        "the table",
        10,
    )
    assert b"\nsluice_known_apps 2\n" in world.get("/metrics")[2]
    assert "r=3999" in world.get("/v1/check/v2/orders/1", names[0])[1]["ratelimit"]
    # nobody named a client's address here
    assert re.search(rb"^sluice_unknown_sources_total [1-9]", world.get("/metrics")[2], re.M)
    world.end("decider")
    world.end("valkey", signal.SIGTERM)
    world.start_decider()
    assert "r=3999" in world.get("/v1/check/v2/orders/1", names[1])[1]["ratelimit"]
    world.start_valkey()


def asked(world: World, verb: commands.Verb, app: str, nonce: str) -> commands.Answer:
    """Sends a signed command as the console does and waits for the answer."""
    now = time.time()
    world.store.publish(
        store.COMMANDS_CHANNEL,
        commands.sign(commands.Command(verb, app, nonce, now, now + commands.LIFE_S), world.key),
    )
    found = world.store.blpop([store.ANSWERS_PREFIX + nonce], timeout=10)
    assert found is not None, "no answer came"
    return msgspec.msgpack.decode(found[1], type=commands.Answer)


def test_a_signed_command_looks_into_a_bucket_and_fills_it_once(world: World) -> None:
    world.publish(switches=[Switch("all_ml")])
    until(lambda: world.running() == world.version, "the config", 10)
    until(
        lambda: (
            not asked(world, "fill_burst", "app_none", secrets.token_hex(16)).error.startswith(
                "this node has"
            )
        ),
        "its start",
        30,
    )
    # how many pass by what was leased of the quota so far
    statuses = [world.get(f"/v1/check/v2/orders/{k}", "app_peek")[0] for k in range(40)]
    passed = statuses.count(200)
    assert passed > 20
    seen = asked(world, "peek", "app_peek", "1" * 32)
    assert seen.node == "d01"
    assert 0 <= seen.view.tokens < seen.view.burst == 50
    assert seen.view.quota_used == passed
    filled = asked(world, "fill_burst", "app_peek", "2" * 32)
    assert (filled.done, filled.view.tokens) == (True, 50)
    assert asked(world, "fill_burst", "app_peek", "2" * 32).error == "it was done already"
    world.store.publish(store.COMMANDS_CHANNEL, b"\xff rubbish")
    assert asked(world, "peek", "app_peek", "3" * 32).view.quota_used == passed


def test_quota_is_leased_from_the_store_and_never_beyond_it(world: World) -> None:
    tiers = [
        msgspec.structs.replace(t, quota_per_day=400, rate=1000, burst=10_000)
        for t in defaults.TIERS
    ]
    version = world.publish(msgspec.structs.replace(defaults.config(), tiers=tiers))
    until(lambda: world.running() == version, "the config", 10)
    admitted = 0
    for _ in range(900):
        status = world.get("/v1/check/v2/orders/1", "app_quota")[0]
        admitted += status == 200
        if status != 200:
            time.sleep(0.01)
            admitted += world.get("/v1/check/v2/orders/1", "app_quota")[0] == 200
    assert 200 <= admitted <= 400


def test_an_app_that_was_unknown_at_first_gets_a_lease_of_its_own_plan(world: World) -> None:
    small, large = (
        {"quota_per_day": quota, "rate": 1000, "burst": 10_000} for quota in (40, 4_000_000)
    )
    free, *others = defaults.TIERS
    tiers = [
        msgspec.structs.replace(free, **small),
        *(msgspec.structs.replace(t, **large) for t in others),
    ]
    version = world.publish(msgspec.structs.replace(defaults.config(), tiers=tiers))
    until(lambda: world.running() == version, "the config", 10)
    world.end("decider")
    world.start_decider()  # one that starts again on the same day has hardly a share of its own
    app = "app_late"
    world.put(Profile(app, "Late", "t1", 3))
    # the region has leased more of its quota today than the pool of an unknown app holds: an empty
    # one, until it is known
    world.store.hset(world.leases(), app, 200_000)
    until(
        lambda: [world.get("/v1/check/v2/orders/1", app)[0] for _ in range(20)] == [200] * 20,
        "its lease",
        10,
    )


def test_what_a_node_leased_goes_back_when_it_ends_and_little_is_lost_when_it_is_killed(
    world: World,
) -> None:
    version = world.publish()
    until(lambda: world.running() == version, "the config", 10)
    world.end("decider", signal.SIGTERM)
    key = world.leases()

    def leased_by_a_life_that_ends_with(how: signal.Signals) -> int:
        before = int(world.store.hget(key, "app_thrift") or 0)
        world.start_decider()
        assert world.get("/v1/check/v2/orders/1", "app_thrift")[0] == 200
        until(lambda: int(world.store.hget(key, "app_thrift") or 0) > before, "a lease", 10)
        world.end("decider", how)
        return int(world.store.hget(key, "app_thrift")) - before

    free = defaults.TIERS[0]
    assert leased_by_a_life_that_ends_with(signal.SIGTERM) == 0
    assert leased_by_a_life_that_ends_with(signal.SIGKILL) == 30 * free.rate + free.burst
    world.start_decider()


def test_it_ends_on_sigterm_with_its_last_events_sent(world: World) -> None:
    before = len(world.events())
    world.get("/v1/check/v2/orders/1", "app_last")
    assert world.end("decider", signal.SIGTERM) == 0
    assert len(world.events()) > before


def test_a_task_that_loses_a_cancellation_does_not_keep_the_process_alive() -> None:
    """As the store's client does when a timeout ends at the same moment, inside a group that
    cancels its tasks only once.
    """

    async def deaf(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(deaf(2))
            tasks.create_task(deaf(3))

    async def run() -> None:
        duty = asyncio.create_task(group())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await decider_process._end_all()
        assert duty.done()

    asyncio.run(run())
