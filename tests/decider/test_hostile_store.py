"""Whatever somebody writes into the store: a decider goes on, and decides as one that got only what
the console, the other deciders and the gateways wrote.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decider.contracts import config as configs
from decider.contracts import defaults, known, store
from decider.contracts.requests import CheckRequest, Outcome, outcomes_in
from decider.contracts.sealed import codes, profiles
from decider.contracts.sealed import outcomes as sealing
from decider.contracts.sealed.profiles import ProfileError
from decider.contracts.store import Profile
from decider.engine.engine import Engine
from decider.engine.shared import report as reports
from decider.engine.shared.report import Report
from decider.node import commands, leasing
from decider.node.config_keeper import Keeper
from decider.node.duties import Faults, keep_doing
from decider.node.known_keeper import KnownKeeper
from decider.node.store_sync import StoreSync
from tests.decider.test_peek import KEY, KEYS

NOW = float(math.floor(time.time()))
TOKEN_KEY = b"k" * 32
SEALING = profiles.derive_key(TOKEN_KEY)
DEEP = b"\x91" * 5_000 + b"\xc0"
APPS = ("app_1", "app_2", "app_new")


class Still:
    """An engine's clock that stands still."""

    skew, steps = 0.0, 0

    def read(self, told: float | None = None) -> float:
        return NOW if told is None else told

    at = read


class Shelf:
    """The store as one decider finds it."""

    def __init__(self) -> None:
        self.values: dict[str, bytes | None] = {}
        self.streams: dict[str, list[tuple[bytes, dict[bytes, bytes]]]] = {}
        self.answer: object = []

    def append(self, stream: str, fields: dict[bytes, bytes], name: str) -> None:
        self.streams.setdefault(stream, []).append((name.encode(), fields))

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def mget(self, keys: list[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    async def xrange(self, stream: str, **_: Any) -> list:
        return self.streams.pop(stream, [])

    async def xread(self, streams: dict[str, Any], **_: Any) -> list:
        return [(name, self.streams.pop(name, [])) for name in streams]

    async def eval(self, *_: Any) -> object:
        return self.answer


class Decider:
    """All that reads the store in a decider, on an engine whose clock stands still."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine("d01", "local", TOKEN_KEY, capacity=256, quota_share=0.5)
        self.engine.clock = Still()  # type: ignore[assignment]
        self.shelf = Shelf()
        self.sync = StoreSync("redis://127.0.0.1:1/0", self.engine, NOW - 600.0, folder)
        self.sync.store = self.sync._patient = self.shelf
        self.sync.leasing._store = self.shelf
        self.sync._outcomes_from = "0"
        self.keeper = Keeper(self.engine, KEYS, folder, folder, self.sync.fetch_model)
        self.known = KnownKeeper(self.engine, KEYS, folder)
        self.sync.keeper, self.sync.known = self.keeper, self.known
        self.engine.sharing.peers.join(NOW - 600.0)
        self.desk = commands.Desk(self.engine, KEYS, NOW - 600.0)
        self.number = 0

    async def take(self, kind: str, data: bytes) -> None:
        """Run the duty that reads a message of this kind."""
        self.number += 1
        await getattr(self, f"_take_{kind}")(data)

    async def _take_config(self, data: bytes) -> None:
        self.shelf.values[store.CONFIG_KEY] = data
        await self.sync._poll()
        await self.keeper.flushed()

    async def _take_profile(self, data: bytes) -> None:
        for app in APPS:
            self.engine.wanted_profiles[app] = None
            self.shelf.values[store.PROFILE_PREFIX + app] = data
        await self.sync._profiles()
        self.engine.know(self.sync._believed([data]))

    async def _take_outcomes(self, data: bytes) -> None:
        try:
            body, seal = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
            fields = {b"b": body, b"s": seal}
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            fields = {b"b": data}
        # the store names entries by its own time
        self.shelf.append(store.OUTCOMES_STREAM, fields, f"{int(NOW * 1e3)}-{self.number}")
        await self.sync._learn()

    async def _take_report(self, data: bytes) -> None:
        self.engine.sharing.hear([data], NOW)

    async def _take_known(self, data: bytes) -> None:
        self.shelf.append(store.KNOWN_STREAM, {b"b": data}, f"{self.number}-0")
        await self.sync._look_at_known()

    async def _take_command(self, data: bytes) -> None:
        try:
            self.desk.obey(data, NOW)
        except commands.CommandError:
            return

    def probe(self) -> list[tuple]:
        """Ask the same things and return all answers, without what is drawn by chance."""
        self.engine.tick(NOW + 1.0)
        asked = [
            CheckRequest(app, method, path, token=f"t{k}", source=f"192.0.2.{k}")
            for k, (app, method, path) in enumerate(
                (app, method, path)
                for app in (*APPS, "app_0", "app_other")
                for method, path in (("GET", "/v2/orders/1"), ("POST", "/v1/login"))
                for _ in range(40)
            )
        ]
        decided = self.engine.decide(asked, NOW + 1.0)
        told = {"id", "receipt"}
        names = [name for name in decided[0].__struct_fields__ if name not in told]
        # what was measured for them shows what outcomes and reports changed
        measured = [(self.engine.features.tobytes(), self.engine.services(NOW + 1.0))]
        return [*(tuple(getattr(one, name) for name in names) for one in decided), *measured]


def a_config(version: int) -> bytes:
    return configs.sign(defaults.config(version, float(NOW)), KEY)


def a_profile(app: str = "app_1", **fields: Any) -> Profile:
    made = Profile(app, "One", "t1", 2, NOW - 1e7, True, sealed_at=NOW - 100.0)
    return msgspec.structs.replace(made, **fields)


def an_outcome(**fields: Any) -> Outcome:
    made = Outcome("app_1", "orders-read", float(NOW), 200, 20.0, endpoint="GET /v2/orders/{id}")
    return msgspec.structs.replace(made, **fields)


GATEWAY = sealing.Sealer(sealing.derive_key(TOKEN_KEY), "edge")


def an_entry(outcomes: list[Outcome], sealer: sealing.Sealer = GATEWAY, at: float = NOW) -> bytes:
    """Both fields of an entry of outcomes."""
    body = msgspec.msgpack.encode(outcomes)
    return msgspec.msgpack.encode([body, sealer.seal(body, at)])


def a_report(number: int = 1, asked: float = 50.0) -> Report:
    figures = np.zeros((1, reports.N_FIGURES), np.float32)
    figures[0, reports.ASKED] = figures[0, reports.ADMITTED] = asked
    return Report("d02", NOW - 100.0, number, ["orders-read"], figures.tobytes(), b"")


def a_table(version: int) -> bytes:
    mark = Engine("x", "local", TOKEN_KEY, capacity=64).text_hash.mark
    return known.sign(known.Snapshot(version, 1, mark, []), KEY)


def a_command(verb: commands.Verb = "peek") -> bytes:
    said = commands.Command(verb, "app_1", "0" * 32, float(NOW), NOW + commands.LIFE_S)
    return commands.sign(said, KEY)


def seal_report(report: Report) -> bytes:
    return reports.seal(report, reports.derive_key(TOKEN_KEY))


VALID = {
    "config": a_config(5),
    "profile": profiles.seal(a_profile(), SEALING),
    "outcomes": an_entry([an_outcome()] * 3),
    "report": seal_report(a_report()),
    "known": a_table(7),
    "command": a_command(),
}
STRANGER = sealing.Sealer(b"x" * 32, "edge")
# What was good once, or is sealed by somebody else's key.
PUT_BACK = (
    ("outcomes", VALID["outcomes"]),
    ("outcomes", an_entry([an_outcome(status=503)] * 900, STRANGER)),
    ("outcomes", an_entry([an_outcome(status=503)] * 900, at=NOW - 3_600.0)),
    ("outcomes", msgspec.msgpack.encode([an_outcome(status=503)] * 900)),
    ("profile", profiles.seal(a_profile(tier=3, sealed_at=NOW - 200.0), SEALING)),
    ("profile", profiles.seal(a_profile(tier=3, sealed_at=0.0), SEALING)),
)
EXTREMES = (
    99,
    -1,
    4,
    2**31,
    2**62,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    -0.5,
    None,
    "x",
    [],
    True,
)


def with_a_field(good: list, place: int, value: object) -> bytes:
    """A message whose fields are `good`, but for one."""
    return msgspec.msgpack.encode([*good[:place], value, *good[place + 1 :]])


@st.composite
def bad_messages(draw: st.DrawFn) -> tuple[str, bytes]:
    """A message that is none, as somebody without a key can write it; and its kind."""
    kind = draw(st.sampled_from(list(VALID)))
    good = VALID[kind]
    ways = ["rubbish", "cut", "swapped", "flipped", "deep", "plain", "old", "put back"]
    way = draw(st.sampled_from(ways))
    if way == "cut":
        return kind, good[: draw(st.integers(0, len(good) - 1))]
    if way == "swapped":
        other = draw(st.sampled_from([name for name in VALID if name != kind]))
        return kind, VALID[other]
    if way == "put back":
        return draw(st.sampled_from(PUT_BACK))
    if way == "flipped":
        at = draw(st.integers(0, len(good) - 1))
        return kind, good[:at] + bytes([good[at] ^ draw(st.integers(1, 255))]) + good[at + 1 :]
    if way == "deep":
        return kind, DEEP
    if way == "plain":
        return draw(unsealed())
    if way == "old":
        # sealed and signed for another purpose
        plain = msgspec.msgpack.encode(a_profile(tier=3))
        return "report", codes.seal(plain, SEALING)
    return kind, draw(st.binary(max_size=300))


@st.composite
def unsealed(draw: st.DrawFn) -> tuple[str, bytes]:
    """A message with an extreme value in one of its fields, and no seal or signature."""
    value = draw(st.sampled_from(EXTREMES))
    made: dict[str, list] = {
        "profile": msgspec.to_builtins(a_profile(draw(st.sampled_from(APPS)))),
        "report": list(msgspec.structs.astuple(a_report(9, 1e6))),
        "command": ["fill_burst", "app_1", "1" * 32, float(NOW), NOW + 5.0],
        "config": msgspec.to_builtins(defaults.config(99, float(NOW))),
    }
    kind = draw(st.sampled_from(list(made)))
    fields = made[kind]
    if kind == "config":
        return kind, msgspec.msgpack.encode(fields)
    return kind, with_a_field(fields, draw(st.integers(0, len(fields) - 1)), value)


def play(*streams: Iterable[tuple[str, bytes]]) -> list[list[tuple]]:
    """What deciders answer, each after messages of its own."""

    async def run() -> list[list[tuple]]:
        answers = []
        with tempfile.TemporaryDirectory(prefix="sluice-hostile-") as name:
            for k, messages in enumerate(streams):
                folder = Path(name) / str(k)
                folder.mkdir()
                made = Decider(folder)
                for kind, data in messages:
                    await made.take(kind, data)
                answers.append(made.probe())
                made.sync._ledger.close()
        return answers

    return asyncio.run(run())


FIRST = list(VALID.items())
LATER = [
    ("config", a_config(6)),
    ("profile", profiles.seal(a_profile("app_2", tier=3), SEALING)),
    ("outcomes", an_entry([an_outcome(app="app_2", status=503)] * 5)),
    ("report", seal_report(a_report(2, 70.0))),
    ("known", a_table(8)),
    ("command", a_command("fill_burst")),
]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(bad=st.lists(bad_messages(), min_size=1, max_size=12))
def test_bad_messages_change_no_answer(bad: list[tuple[str, bytes]]) -> None:
    hostile, calm = play([*FIRST, *bad, *LATER, *bad], [*FIRST, *LATER])
    assert hostile == calm


def test_what_is_compared_would_tell_a_difference() -> None:
    raised = ("profile", profiles.seal(a_profile(tier=0), SEALING))
    slow = ("outcomes", an_entry([an_outcome(latency_ms=9e5, status=503)] * 900))
    calm, other, third = play(FIRST, [*FIRST, raised], [*FIRST, slow])
    assert calm != other
    assert calm != third


def extreme_outcomes() -> list[list]:
    good = list(msgspec.structs.astuple(an_outcome()))
    strange = (*EXTREMES, "x" * 200_000)
    return [
        [*good[:place], value, *good[place + 1 :]]
        for place in range(len(good))
        for value in strange
    ]


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    bad=st.lists(st.one_of(st.sampled_from(extreme_outcomes()), st.none(), st.integers(-9, 9))),
    places=st.randoms(use_true_random=False),
)
def test_a_bad_outcome_costs_none_of_its_neighbours(bad: list, places: Any) -> None:
    bad = [one for one in bad if not _is_outcome(one)]
    good = [list(msgspec.structs.astuple(an_outcome(status=s))) for s in (200, 503, 404)]
    mixed = [*good, *bad]
    places.shuffle(mixed)
    kept, count = outcomes_in(msgspec.msgpack.encode(mixed))
    assert sorted(one.status for one in kept) == [200, 404, 503]
    assert count == len(bad)
    assert all(math.isfinite(one.latency_ms) and math.isfinite(one.at) for one in kept)


def _is_outcome(item: object) -> bool:
    """Whether the value happens to be one that an outcome may have, such as a status of 200."""
    if not isinstance(item, list):
        return False
    app, service, at, status, latency, asked, decision, size, endpoint, named = item
    texts = (app, service, asked, decision, named)
    return (
        all(isinstance(text, str) and len(text) <= 128 for text in texts)
        and bool(app)
        and isinstance(endpoint, str)
        and len(endpoint) <= 131_072
        and all(isinstance(n, int) and not isinstance(n, bool) for n in (status, size))
        and 100 <= status <= 599
        and 0 <= size <= 2**53
        and all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in (at, latency))
        and 0 <= at <= 7e9
        and 0 <= latency <= 3.6e6
    )


@pytest.mark.parametrize(
    "data", [b"", b"\xff", DEEP, b"\x93\xc0", b"\x80", b"\xc4\x01x", b"\xa1\xff"]
)
def test_an_entry_that_is_no_list_is_one_bad_item(data: bytes) -> None:
    assert outcomes_in(data) == ([], 1)


@pytest.mark.parametrize("place", range(11))
@pytest.mark.parametrize("value", EXTREMES)
def test_even_a_sealed_profile_is_held_to_its_ranges(place: int, value: object) -> None:
    """A console with a fault, or one that was taken over, ends no decider."""
    fields = msgspec.to_builtins(a_profile())
    sealed = codes.seal(with_a_field(fields, place, value), SEALING)
    data = msgspec.msgpack.encode([*fields[:10], sealed])
    try:
        found = profiles.unseal(data, SEALING)
    except ProfileError:
        return
    assert 0 <= found.tier <= 3
    assert 0.0 <= found.cohort_prior <= 1.0
    assert 0.0 <= found.created_at <= 7e9
    assert 1 <= len(found.app) <= 128
    history = (found.abuse_history, found.chargeback_history, found.false_throttle_history)
    assert all(0 <= count <= 2**32 for count in history)


DATA = msgspec.structs.astuple(a_profile())
# A stored profile as deciders read it that know no time of it; the ones of before knew no `sealed`.
Undated = msgspec.defstruct(
    "Undated",
    [*((name, Any) for name in Profile.__struct_fields__[:10]), ("sealed", bytes, b"")],
    array_like=True,
)


def test_a_profile_is_read_by_older_deciders_and_from_newer_consoles() -> None:
    data = profiles.seal(a_profile(), SEALING)
    # before profiles were sealed, and before they had a time
    assert msgspec.structs.astuple(msgspec.msgpack.decode(data, type=Undated))[:10] == DATA[:10]
    body = codes.unseal(msgspec.msgpack.decode(data, type=Undated).sealed, SEALING, 8_192)
    undated = msgspec.defstruct("Body", Undated.__struct_fields__[:10], array_like=True)
    assert msgspec.structs.astuple(msgspec.msgpack.decode(body, type=undated)) == DATA[:10]
    # with fields that are not known here, inside the seal and behind it
    sealed = codes.seal(msgspec.msgpack.encode([*DATA, "new"]), SEALING)
    newer = msgspec.msgpack.encode([*DATA[:10], sealed, "newer"])
    assert profiles.unseal(newer, SEALING) == a_profile()
    # of a console of before
    older = msgspec.msgpack.encode(
        [*DATA[:10], codes.seal(msgspec.msgpack.encode(DATA[:10]), SEALING)]
    )
    assert profiles.unseal(older, SEALING) == a_profile(sealed_at=0.0)


def test_a_profile_of_another_fleet_or_without_a_seal_is_not_believed() -> None:
    for data in (
        msgspec.msgpack.encode(a_profile(tier=3)),
        profiles.seal(a_profile(tier=3), profiles.derive_key(b"x" * 32)),
        b"\x00" * 10_000,
    ):
        with pytest.raises(ProfileError):
            profiles.unseal(data, SEALING)


def test_only_the_sealed_part_counts() -> None:
    forged = msgspec.to_builtins(a_profile(tier=3))[:10]
    sealed = codes.seal(msgspec.msgpack.encode(a_profile(tier=0)), SEALING)
    assert profiles.unseal(msgspec.msgpack.encode([*forged, sealed]), SEALING).tier == 0


def test_a_profile_at_another_apps_key_is_not_taken(tmp_path: Path) -> None:
    async def run() -> None:
        made = Decider(tmp_path)
        await made.take("config", VALID["config"])
        made.shelf.values[store.PROFILE_PREFIX + "app_2"] = VALID["profile"]
        # also not where it is asked for as well
        made.engine.wanted_profiles |= {"app_1": None, "app_2": None}
        await made.sync._profiles()
        assert made.engine.slot_of("app_1") == made.engine.slot_of("app_2") == -1
        made.sync._ledger.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "answer",
    [None, [], b"x", [b"7"], [2**70], [-5], [1.5], [None], [[1]], [True], {"a": 1}, [1, 2], -3],
)
def test_no_answer_of_the_store_leases_more_than_is_due(answer: object, tmp_path: Path) -> None:
    async def run() -> None:
        made = Decider(tmp_path)
        for kind in ("config", "profile"):
            await made.take(kind, VALID[kind])
        made.sync.leasing._open = True
        made.sync.leasing.ledger.enter("ledger", 0.0)
        made.engine.leases.want("app_1", 1_000_000.0, 100)
        made.shelf.answer = answer
        faults = Faults()
        try:
            await made.sync.leasing.lease()
        except leasing.UNREADABLE as error:
            faults.note("lease", error)
        assert faults.count == 0
        assert made.sync.leasing.ledger.held(["app_1"]).get("app_1", 0) <= 100
        made.sync._ledger.close()

    asyncio.run(run())


def test_a_duty_that_fails_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decider.node.duties.AFTER_FAULT_S", 0.0)
    faults, steps = Faults(), []

    async def look() -> None:
        steps.append(1)
        if len(steps) < 4:
            raise IndexError("99 is out of bounds")

    async def run() -> None:
        task = asyncio.create_task(keep_doing(look, 0.0, faults))
        while len(steps) < 6:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert faults.count == 3
    assert faults.last == "look failed: IndexError: 99 is out of bounds"


def test_a_duty_of_the_store_that_fails_shows_in_the_heartbeat(tmp_path: Path) -> None:
    async def run() -> None:
        made = Decider(tmp_path)

        async def breaks() -> None:
            raise IndexError("99")

        with pytest.raises(IndexError):
            await made.sync._with_store(breaks)()
        assert "breaks: IndexError" in made.sync.last_error
        made.sync._ledger.close()

    asyncio.run(run())


def test_a_switch_file_that_cannot_be_read_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "switch.bin").mkdir()
    keeper = SimpleNamespace(data=tmp_path, _file_seen=None, offer=lambda *_: None)
    faults = Faults()

    async def run() -> None:
        async def look() -> None:
            Keeper.look_at_file(keeper)  # type: ignore[arg-type]

        task = asyncio.create_task(keep_doing(look, 0.0, faults))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert faults.count == 1
