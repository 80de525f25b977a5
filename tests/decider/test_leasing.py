"""Leases from a real Valkey that is emptied, restored, replaced or lies: real engines and their
real exchange, one step at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from console.local import servers
from decider.contracts import defaults, store
from decider.contracts.vocabulary import Action, Reason
from decider.engine import quota
from decider.node import leasing
from decider.node.lease_ledger import OWN, LeaseLedger, day_of
from decider.node.store_sync import StoreSync
from tests.decider.test_engine import ask, config, engine

pytestmark = pytest.mark.parts
QUOTA = 1_000
POOL = int(QUOTA * quota.POOL_SHARE)
OWN_SHARE = 0.01
"""Of three nodes, each of which starts once in most tests."""


class Node:
    """One decider without its HTTP server; `kill` and `start` keep its directory."""

    def __init__(
        self, url: str, name: str, data: Path, per_day: int = QUOTA, lives: int = 1
    ) -> None:
        self.url, self.name, self.data, self.per_day = url, name, data, per_day
        self.share = OWN_SHARE / lives
        self.admitted: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        tiers = [
            msgspec.structs.replace(t, quota_per_day=self.per_day, rate=1e6, burst=1e6)
            for t in defaults.TIERS
        ]
        self.engine = engine(config(tiers=tiers), quota_share=self.share)
        self.engine.node = self.name
        self.sync = StoreSync(self.url, self.engine, time.time(), self.data)
        self.leasing = self.sync.leasing

    async def kill(self) -> None:
        self.sync._ledger.close()
        await self.sync.store.aclose()
        await self.sync._patient.aclose()

    async def end(self) -> None:
        await self.sync.close()

    async def look(self) -> None:
        await self.sync._status()
        await self.leasing.look()

    def ask(self, requests: int, app: str = "app_1") -> int:
        answers = ask(self.engine, time.time(), app, count=requests)
        got = [a.action for a in answers].count(Action.ADMIT)
        self.admitted[app] += got
        return got

    async def use(self, requests: int, app: str = "app_1") -> int:
        """Send requests, and lease as often as that brings more."""
        got = self.ask(requests, app)
        while got < requests and self.engine.leases.wanted:
            await self.leasing.lease()
            more = self.ask(requests - got, app)
            if not more:
                break
            got += more
        return got

    def held(self, app: str = "app_1") -> int:
        return self.leasing.ledger.held([app]).get(app, 0)


class Fleet:
    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.store = redis.Redis.from_url(url)
        self.nodes: dict[str, Node] = {}

    def add(self, *names: str, **more: int) -> list[Node]:
        for name in names:
            self.nodes[name] = Node(self.url, name, self.folder / name, **more)
        return [self.nodes[name] for name in names]

    async def look(self, *nodes: Node, times: int = 3) -> None:
        """All look: the first time at the store, then at what the others did there."""
        for _ in range(times):
            for node in nodes or self.nodes.values():
                await node.look()

    def head(self, field: str) -> bytes | None:
        return self.store.hget(store.LEDGER_KEY, field)

    def key(self, node: str = "") -> str:
        day = f"{store.LEASES_PREFIX}{self.head('id').decode()}:{day_of(time.time())}"
        return f"{day}:{node}" if node else day

    def leased(self, app: str = "app_1", node: str = "") -> int:
        return int(self.store.hget(self.key(node), app) or 0)

    @property
    def admitted(self) -> int:
        return sum(node.admitted.total() for node in self.nodes.values())


Play = Callable[[Fleet], Coroutine[None, None, None]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("leasing")
    valkey = servers.Valkey(folder / "valkey", servers.free_port(), "test", durable=False)
    valkey.make()
    process = subprocess.Popen(valkey.command(), stdout=subprocess.DEVNULL)
    ask(engine(quota_share=0.5), time.time())  # compiled before a heartbeat can expire meanwhile
    try:
        servers.wait_until_ready(valkey)
        yield valkey.url()
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def play(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Play], None]:
    monkeypatch.setattr(leasing, "GRACE_S", 0)
    return lambda steps: run(url, tmp_path, steps)


def run(url: str, folder: Path, steps: Play) -> None:
    async def whole() -> None:
        fleet = Fleet(url, folder)
        fleet.store.flushall()
        try:
            await steps(fleet)
        finally:
            for node in fleet.nodes.values():
                await node.kill()
            fleet.store.close()

    asyncio.run(whole())


def test_a_store_that_is_emptied_at_noon_leases_nothing_anew(play) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two, three = fleet.add("d01", "d02", "d03")
        await fleet.look()
        assert await one.use(300) + await two.use(300) + await three.use(300) == 900
        before = fleet.leased()
        fleet.store.flushall()
        assert await one.use(500) < 100  # what it holds
        await fleet.look()
        assert fleet.leased() >= before - 50
        while await one.use(50) + await two.use(50) + await three.use(50):
            pass
        assert POOL <= fleet.admitted <= QUOTA
        assert fleet.leased() == POOL
        assert ask(one.engine, time.time())[0].reason == Reason.QUOTA_EXHAUSTED

    play(steps)


def test_while_the_ledger_is_rebuilt_an_app_is_told_that_more_has_not_arrived(play) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(100)
        fleet.store.flushall()
        await one.look()
        assert one.sync.status().leases_wait == "d02"
        await one.use(QUOTA)
        assert ask(one.engine, time.time())[0].reason == Reason.LEASE_AWAITED
        await fleet.look()
        assert (one.leasing.waits_for, two.leasing.waits_for) == ("", "")
        assert await one.use(50) == 50

    play(steps)


def test_two_nodes_that_notice_at_the_same_time_rebuild_one_ledger(play) -> None:
    async def steps(fleet: Fleet) -> None:
        nodes = fleet.add("d01", "d02", "d03")
        await fleet.look()
        for node in nodes:
            await node.use(200)
        held = {node.name: node.held() for node in nodes}
        fleet.store.flushall()
        for _ in range(3):
            await asyncio.gather(*(node.look() for node in nodes))
        assert {node.leasing.ledger.id for node in nodes} == {fleet.head("id").decode()}
        assert fleet.leased() == sum(held.values())
        assert {node.name: fleet.leased(node=node.name) for node in nodes} == held

    play(steps)


def test_a_node_that_died_shortly_before_is_waited_for_until_it_is_back(play) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await two.use(600)
        await two.kill()
        fleet.store.flushall()
        await fleet.look(one)
        assert one.leasing.waits_for == "d02"
        assert await one.use(300) <= OWN_SHARE * QUOTA
        two.start()  # it knows from its own file
        await fleet.look()
        await one.use(QUOTA)
        assert fleet.admitted <= QUOTA
        assert one.admitted.total() > 200

    play(steps)


def test_a_node_that_died_longer_ago_is_vouched_for(play, monkeypatch) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await two.use(600)
        lost = two.held()
        await two.kill()
        monkeypatch.setattr(leasing, "SILENT_S", 0.0)
        await one.look()
        assert not one.leasing.ledger.peers["d02"].copied  # its heartbeat is still there
        fleet.store.delete(store.NODE_PREFIX + "d02")
        await one.look()
        await one.kill()
        one.start()  # the copy is on its disk
        fleet.store.flushall()
        await fleet.look(one)
        assert fleet.leased(node="d02") == fleet.leased() == lost >= 590
        await one.use(QUOTA)
        assert fleet.admitted <= QUOTA
        two.start()
        await fleet.look()
        assert not one.leasing.ledger.peers["d02"].copied
        assert one.leasing.ledger.rows("d02", "", 10) == []
        await two.use(QUOTA)
        assert fleet.leased() == POOL

    play(steps)


def test_a_node_cannot_lease_before_the_others_can_see_it(play) -> None:
    async def steps(fleet: Fleet) -> None:
        (one,) = fleet.add("d01")
        await fleet.look()
        fleet.store.delete(store.NODE_PREFIX + "d01")
        assert await one.use(300) <= OWN_SHARE * QUOTA
        await one.look()
        assert await one.use(100) == 100

    play(steps)


def test_a_store_that_was_restored_to_an_hour_ago_is_rebuilt(play, monkeypatch) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(100)
        backup = {key: fleet.store.dump(key) for key in fleet.store.scan_iter()}
        await one.use(400)
        await two.use(200)
        fleet.store.flushall()
        for key, data in backup.items():
            fleet.store.restore(key, 0, data)
        # as a server says that was started with the data
        fleet.store.hset(store.LEDGER_KEY, "server", "0" * 40)
        old = fleet.head("id")
        assert await two.use(QUOTA) < 100  # nothing new
        await fleet.look()
        assert fleet.head("id") != old
        assert fleet.leased() == one.held() + two.held()
        while await one.use(50) + await two.use(50):
            pass
        assert POOL <= fleet.admitted <= QUOTA

    play(steps)


@pytest.mark.parametrize("by", ["a lease", "a look"])
def test_data_put_back_into_a_running_server_is_noticed_by_who_leased_since(play, by: str) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(100)
        backup = {key: fleet.store.dump(key) for key in fleet.store.scan_iter()}
        await one.use(400)
        fleet.store.flushall()
        for key, data in backup.items():
            fleet.store.restore(key, 0, data)
        if by == "a lease":
            assert await one.use(500) < 100
        else:
            await one.look()
            assert await two.use(500) <= OWN_SHARE * QUOTA
        await fleet.look()
        assert fleet.leased() == one.held() + two.held()
        await two.use(QUOTA)
        await one.use(QUOTA)
        assert fleet.admitted <= QUOTA

    play(steps)


def test_a_server_that_was_restarted_is_asked_nothing_before_all_nodes_have_reported(
    tmp_path, monkeypatch
) -> None:
    """A real server with a real file, put back to an hour ago."""
    monkeypatch.setattr(leasing, "GRACE_S", 0)
    valkey = servers.Valkey(tmp_path / "valkey", servers.free_port(), "test", durable=False)
    valkey.make()

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(valkey.command(), stdout=subprocess.DEVNULL)
        servers.wait_until_ready(valkey)
        return process

    process = start()

    async def steps(fleet: Fleet) -> None:
        nonlocal process
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(200)
        fleet.store.save()
        await one.use(400)
        process.kill()
        process.wait(10)
        process = start()
        for node in (one, two):
            with contextlib.suppress(redis.ConnectionError):  # as their duties' first try
                await node.sync.store.ping()
        assert fleet.leased(node="d01") < one.held()  # it came back with what it had saved
        assert await two.use(QUOTA) <= OWN_SHARE * QUOTA
        await fleet.look()
        assert fleet.leased() == one.held() + two.held()
        while await one.use(50) + await two.use(50):
            pass
        assert POOL <= fleet.admitted <= QUOTA

    try:
        run(valkey.url(), tmp_path / "nodes", steps)
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.parametrize(
    "nonsense",
    ["10", "-5000", "99999999999999999999999", "nan", "inf", "much", "", "1e3", "0x10", "5.5"],
)
def test_a_count_that_is_nonsense_costs_a_rebuild_and_nothing_else(play, nonsense: str) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(100, "app_good")
        await one.use(600)
        fleet.store.hset(fleet.key(), "app_1", nonsense)
        await one.use(200)
        await two.use(200, "app_1")
        await fleet.look()
        assert fleet.leased() == one.held() + two.held()
        await two.use(QUOTA)
        await one.use(QUOTA)
        assert POOL <= fleet.admitted - 100 <= QUOTA
        assert await two.use(50, "app_good") == 50

    play(steps)


@pytest.mark.parametrize("part", ["head", "all", "own", "type", "type of the head"])
def test_a_part_of_the_ledger_that_is_lost_is_rebuilt(play, part: str) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(600)
        keys = {"head": store.LEDGER_KEY, "all": fleet.key(), "own": fleet.key("d01")}
        for name, key in (*keys.items(), ("type", keys["all"]), ("type of the head", keys["head"])):
            if name == part:
                fleet.store.delete(key)
                if part.startswith("type"):
                    fleet.store.set(key, "text")
        await two.use(QUOTA)
        await one.use(300)
        await fleet.look()
        await two.use(QUOTA)
        await one.use(QUOTA)
        assert POOL <= fleet.admitted <= QUOTA

    play(steps)


NO_NUMBERS = [[None], [b"nan"], [2.5], [True], [[5]]]
LIES = [*NO_NUMBERS, [10**9], [-3], [], [1, 2, 3], b"OK", None, 7, {"a": 1}]


@pytest.mark.parametrize("lie", LIES, ids=repr)
def test_no_answer_of_a_store_that_lies_lets_a_node_admit_more(play, monkeypatch, lie) -> None:
    async def steps(fleet: Fleet) -> None:
        (one,) = fleet.add("d01")
        await fleet.look()
        one.ask(20)

        async def answer(*_: object) -> object:
            return lie

        monkeypatch.setattr(one.leasing._store, "eval", answer)
        for _ in range(100):
            await one.use(50)
        assert one.admitted.total() <= QUOTA
        status = one.sync.status()
        assert status.leases_refused > 0
        assert "the store" in status.last_error
        await one.leasing.look()  # a ledger that cannot be read stops leases, not the decider
        assert one.leasing.waits_for.startswith("a ledger that can be read")

    play(steps)


@pytest.mark.parametrize("beats", [[(b"d02", float("inf"))], [(None, 4e9)], [7], None], ids=repr)
def test_a_list_of_nodes_that_is_nonsense_stops_leases_and_not_the_decider(
    play, monkeypatch, beats
) -> None:
    async def steps(fleet: Fleet) -> None:
        (one,) = fleet.add("d01")
        await fleet.look()

        async def answer(*_: object, **__: object) -> object:
            return beats

        monkeypatch.setattr(one.leasing._store, "zrangebyscore", answer)
        await one.leasing.look()
        assert one.leasing.waits_for.startswith("a ledger that can be read")
        monkeypatch.undo()
        monkeypatch.setattr(leasing, "GRACE_S", 0)
        await one.leasing.look()
        assert one.leasing.waits_for == ""

    play(steps)


def test_one_bad_answer_costs_itself_and_not_its_neighbours(play, monkeypatch) -> None:
    async def steps(fleet: Fleet) -> None:
        (one,) = fleet.add("d01")
        await fleet.look()
        for app in ("app_a", "app_b", "app_c"):
            one.ask(5, app)
        size = one.engine.leases.wanted["app_a"][1]

        async def answer(*_: object) -> object:
            return [10**6, b"rubbish", 7]

        monkeypatch.setattr(one.leasing._store, "eval", answer)
        await one.leasing.lease()
        assert [one.held(app) for app in ("app_a", "app_b", "app_c")] == [size, 0, 7]
        assert one.leasing.refused == 2

    play(steps)


def test_the_day_ends_while_the_ledger_is_rebuilt(play, monkeypatch) -> None:
    real = time.time
    today = 86_400.0 * (real() // 86_400.0)
    ahead = [today + 86_400.0 - 60.0 - real()]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    async def steps(fleet: Fleet) -> None:
        one, two, dead = fleet.add("d01", "d02", "d03")
        await fleet.look()
        await one.use(200)
        await dead.use(300)
        await dead.kill()
        fleet.store.flushall()
        await fleet.look(one, two)
        assert "d03" in one.leasing.waits_for
        ahead[0] += 120.0
        # The clock of the second is behind. It has nothing of the new day, so the ledger opens for
        # that day; of the old one nothing is leased.
        await fleet.look(one)
        assert one.leasing.waits_for == ""
        ahead[0] -= 120.0
        await two.look()
        assert two.leasing.waits_for == ""
        assert await two.use(QUOTA) <= OWN_SHARE * QUOTA
        ahead[0] += 120.0
        await fleet.look(one, two)
        assert one.leasing.waits_for == two.leasing.waits_for == ""
        assert (one.held(), fleet.leased()) == (0, 0)
        old = fleet.admitted
        while await one.use(50) + await two.use(50):
            pass
        assert POOL <= fleet.admitted - old <= QUOTA

    play(steps)


def test_who_vouches_for_the_old_day_does_not_vouch_for_the_new_one(play, monkeypatch) -> None:
    """A node that dies seconds before midnight may hold leases of the new day: its clock may be
    ahead.
    """
    real = time.time
    today = 86_400.0 * (real() // 86_400.0)
    ahead = [today + 86_400.0 - 5.0 - real()]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    async def steps(fleet: Fleet) -> None:
        one, gone, dead = fleet.add("d01", "d02", "d03")
        await fleet.look()
        await gone.kill()
        await dead.kill()
        monkeypatch.setattr(leasing, "SILENT_S", 0.0)
        fleet.store.delete(store.NODE_PREFIX + "d02")
        await one.look()
        fleet.store.flushall()
        await fleet.look(one)
        assert one.leasing.waits_for == "d03"
        ahead[0] += 3_600.0
        await fleet.look(one)
        assert one.leasing.waits_for == "d02, d03"
        gone.start()
        dead.start()
        await fleet.look()
        assert one.leasing.waits_for == ""

    play(steps)


def test_a_new_day_begins_without_a_rebuild(play, monkeypatch) -> None:
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])

    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await one.use(300)
        id_before = fleet.head("id")
        ahead[0] = 86_400.0
        await one.sync._status()
        assert await one.use(500) == 500
        assert fleet.head("id") == id_before
        assert fleet.store.ttl(fleet.key()) > 86_400  # they forget themselves
        # another one, whose clock is behind, neither leases of the old day's rest nor breaks it
        await two.look()
        assert await two.use(100) == 100

    play(steps)


def test_a_node_that_lost_its_directory_learns_from_the_store_what_it_had_leased(play) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await two.use(500)
        await two.kill()
        for file in two.data.iterdir():
            file.unlink()
        two.start()
        await fleet.look()
        assert two.held() == fleet.leased(node="d02") >= 490
        fleet.store.flushall()
        await fleet.look()
        assert one.leasing.waits_for == ""
        await one.use(QUOTA)
        assert fleet.admitted <= QUOTA

    play(steps)


def test_a_node_that_lost_its_directory_with_the_store_is_not_taken_for_one_that_leased_nothing(
    play,
) -> None:
    async def steps(fleet: Fleet) -> None:
        one, two = fleet.add("d01", "d02")
        await fleet.look()
        await two.use(500)
        await two.kill()
        for file in two.data.iterdir():
            file.unlink()
        fleet.store.flushall()
        two.start()
        await fleet.look()
        assert one.leasing.waits_for == two.leasing.waits_for == "d02"
        await one.use(QUOTA)
        await two.use(QUOTA)
        assert fleet.admitted <= QUOTA

    play(steps)


def test_a_ledger_that_cannot_be_written_takes_no_lease(play, monkeypatch) -> None:
    async def steps(fleet: Fleet) -> None:
        (one,) = fleet.add("d01")
        await fleet.look()
        one.sync._ledger.close()
        assert await one.use(300) <= OWN_SHARE * QUOTA
        assert "could not be noted on disk" in one.sync.last_error

    play(steps)


def test_a_grace_passes_before_a_new_ledger_opens(url, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(leasing, "GRACE_S", 3_600)

    async def steps(fleet: Fleet) -> None:
        (one,) = fleet.add("d01")
        await fleet.look()
        assert one.leasing.waits_for == "every decider’s report"
        fleet.store.hincrby(store.LEDGER_KEY, "begun", -3_600)
        await fleet.look()
        assert one.leasing.waits_for == ""

    run(url, tmp_path, steps)


def test_many_apps_are_entered_into_a_new_ledger(play) -> None:
    async def steps(fleet: Fleet) -> None:
        one, _ = fleet.add("d01", "d02")
        await fleet.look()
        await asyncio.to_thread(
            one.leasing.ledger.put, OWN, [(f"app_{k:05}", k + 1) for k in range(2_345)]
        )
        fleet.store.flushall()
        await fleet.look()
        found = fleet.store.hgetall(fleet.key("d01"))
        assert found == {b"app_%05d" % k: b"%d" % (k + 1) for k in range(2_345)}
        assert fleet.leased("app_00700") == 701

    play(steps)


LIVES = 5
APPS = [f"app_{k}" for k in range(8)]
"""Several: once nothing of an app's quota is left, no step can show a fault any more."""
OFTEN, SELDOM = ["use"] * 12 + ["look", "start"] * 4 + ["kill"] * 3, ["backup", "restore"]
WHAT = [*OFTEN, *SELDOM * 2, "flush", "flush", "gone", "gone", "end"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), per_day=st.integers(100, 400))
def test_whatever_happens_to_nodes_and_the_store_no_more_than_the_quota_is_admitted(
    url, tmp_path_factory, monkeypatch, seed: int, per_day: int
) -> None:
    """Uses, leases, give-backs, kills, restarts, FLUSHALL, backups that are put back, and nodes
    that are gone for so long that the others copy what they had leased. The steps are drawn by
    their weights: lists that hypothesis draws itself hold too few uses to show a fault.
    """
    monkeypatch.setattr(leasing, "GRACE_S", 0)
    monkeypatch.setattr(leasing, "SILENT_S", 0.0)
    luck = random.Random(seed)
    steps = [
        (what, luck.randrange(3), luck.randint(10, per_day // 2), luck.choice(APPS))
        for what in luck.choices(WHAT, k=80)
    ]

    async def whole(fleet: Fleet) -> None:
        nodes = fleet.add("d01", "d02", "d03", per_day=per_day, lives=LIVES)
        await fleet.look()
        up, lives, backup = [True] * 3, [1] * 3, {}
        for what, which, size, app in steps:
            node = nodes[which]
            match what:
                case "use" if up[which]:
                    await node.use(size, app)
                case "look" if up[which]:
                    await node.look()
                case "kill" | "end" if up[which]:
                    await (node.kill() if what == "kill" else node.end())
                    up[which] = False
                case "start" if not up[which] and lives[which] < LIVES:
                    node.start()
                    up[which], lives[which] = True, lives[which] + 1
                case "flush":
                    fleet.store.flushall()
                    if up[which]:  # it notices first
                        await node.look()
                case "backup":
                    backup = {key: fleet.store.dump(key) for key in fleet.store.scan_iter()}
                case "restore":
                    fleet.store.flushall()
                    for key, data in backup.items():
                        fleet.store.restore(key, 0, data)
                    if backup:
                        fleet.store.hset(store.LEDGER_KEY, "server", "another")
                case "gone" if not up[which]:
                    fleet.store.delete(store.NODE_PREFIX + node.name)
        for which, node in enumerate(nodes):
            if not up[which]:
                node.start()
        await fleet.look()
        for app in APPS:
            while sum([await node.use(40, app) for node in nodes]):
                pass
            admitted = sum(node.admitted[app] for node in nodes)
            assert admitted <= per_day
            assert fleet.leased(app) <= int(per_day * quota.POOL_SHARE)
            if not {"kill", "end"} & {step[0] for step in steps}:
                assert admitted >= int(per_day * quota.POOL_SHARE)  # nothing is lost

    run(url, tmp_path_factory.mktemp("nodes"), whole)


def test_a_file_that_is_damaged_is_made_anew_and_knows_since_when_it_knows(tmp_path) -> None:
    path, now = tmp_path / "leases.db", time.time()
    first = LeaseLedger(path, now - 50.0)
    first.enter("id", 0.0)
    first.add({"app_1": 5, "app_2": 3})
    first.add({"app_1": -7, "app_2": -1})
    first.close()
    again = LeaseLedger(path, now)
    assert (again.id, again.known_since) == ("id", 0.0)
    assert again.held(["app_1", "app_2", "app_3"]) == {"app_1": 0, "app_2": 2}
    again.close()
    path.write_bytes(b"no database at all" * 300)
    anew = LeaseLedger(path, now)
    assert (anew.id, anew.known_since, anew.held(["app_2"])) == ("", now, {})
    anew.turn(now + 86_400.0)
    assert anew.known_since == 0.0
    anew.turn(now)  # the clock went back: that day is forgotten
    assert anew.known_since == now
    anew.close()
