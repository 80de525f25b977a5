"""A table of known apps is loaded between requests: in bounded steps, swapped whole, kept whole."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.contracts import known
from decider.contracts.requests import CheckRequest
from decider.engine import address_table
from decider.engine.known_apps import review
from decider.engine.known_apps import table as known_apps
from decider.engine.known_apps.table import KnownApps
from decider.node import known_keeper
from decider.node.known_keeper import KnownKeeper
from tests.decider.known_store import Fleet, entries
from tests.decider.test_engine import NOW, engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def same(one: KnownApps, other: KnownApps) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ---- steps


def test_tracked_apps_are_brought_in_line_a_bounded_number_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, apps, most = engine(capacity=4096), 1300, review.REVIEW_APPS
    made.decide([CheckRequest(f"a{k}", "GET", "/") for k in range(apps)], NOW)
    steps: list[int] = []
    slots, some = review.review_slots, review.review_apps

    def counted_slots(table: np.ndarray, first: int, last: int) -> None:
        steps.append(last - first)
        slots(table, first, last)

    def counted_apps(table: np.ndarray, keys: np.ndarray) -> None:
        steps.append(len(keys))
        some(table, keys)

    monkeypatch.setattr(review, "review_slots", counted_slots)
    monkeypatch.setattr(review, "review_apps", counted_apps)
    for turn, _ in enumerate(made.known.hold_in_parts(known_apps.empty())):
        assert len(steps) == turn + 1
    assert steps == [most, most, apps - 2 * most]
    steps.clear()
    keys = np.arange(known.CHANGES_ENTRIES, dtype=np.uint64)
    for turn, _ in enumerate(made.known.change_in_parts(known_apps.empty(), keys)):
        assert len(steps) == turn + 1
    assert steps == [most, known.CHANGES_ENTRIES - most]


def test_whatever_grows_with_the_table_is_done_in_a_thread(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the event loop a decider only verifies a signature, swaps and reviews tracked apps."""
    on_loop: list[str] = []

    def watched(place: object, name: str) -> None:
        call = getattr(place, name)

        def watching(*given: object) -> object:
            try:
                asyncio.get_running_loop()
                on_loop.append(name)
            except RuntimeError:
                pass
            return call(*given)

        monkeypatch.setattr(place, name, watching)

    for name in ("change", "count", "merge", "build"):
        watched(known_apps, name)
    watched(known_apps.Filling, "add")
    for name in ("open_part", "pack"):
        watched(known, name)
    watched(known_keeper, "write_pieces_atomically")
    monkeypatch.setattr(known_apps, "MERGE_FROM", 5)
    messages = [
        fleet.snapshot(1, entries(20)),
        fleet.changes(2, 1, entries(9, seed=2)),
        fleet.snapshot(3, entries(30, seed=3)),
    ]
    keeper = fleet.keeper(tmp_path)
    on_loop.clear()
    assert all(fleet.send(keeper, message) for message in messages)
    assert on_loop == []
    assert keeper.apps == 30


# ---- whole


def test_a_look_up_during_a_load_answers_from_one_table_whole(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "PART_ENTRIES", 10)
    monkeypatch.setattr(review, "REVIEW_APPS", 4)
    monkeypatch.setattr(known_apps, "MERGE_FROM", 8)
    keeper, held = fleet.keeper(tmp_path), entries(60)
    key, tenant, _ = held
    every = np.arange(60)
    tables = [(key, tenant + n, np.full(60, 1 + n % 3, np.uint8)) for n in range(3)]
    some = tuple(column[every % 5 == 0] for column in (key, tenant + 9, np.full(60, 2, np.uint8)))
    fleet.send(keeper, fleet.snapshot(1, tables[0]))
    # tracked apps, so that a swap is followed by many turns
    keeper.engine.decide([CheckRequest(f"a{k}", "GET", "/") for k in range(40)], NOW)
    messages = [
        fleet.snapshot(2, tables[1]),
        fleet.changes(3, 2, some),
        fleet.snapshot(4, tables[2]),
    ]
    seen: list[bytes] = []

    async def load() -> None:
        for message in messages:
            assert await keeper.offer(message, fleet.part)

    async def look() -> None:
        loading = asyncio.create_task(load())
        while not loading.done():
            table = KnownApps(*keeper.engine.arena._held[address_table._KNOWN])
            found = [known_apps.look_up(table, k) for k in key]
            if not seen or seen[-1] != repr(found).encode():
                seen.append(repr(found).encode())
            await asyncio.sleep(0)
        await loading

    asyncio.run(look())
    changed = list(zip(tables[1][2].tolist(), tables[1][1].tolist(), strict=True))
    changed = [(2, int(tenant[k]) + 9) if k % 5 == 0 else row for k, row in enumerate(changed)]
    whole = [list(zip(t[2].tolist(), t[1].tolist(), strict=True)) for t in tables]
    whole.insert(2, changed)
    expected = [repr(rows).encode() for rows in whole]
    # whichever were seen, in this order, and nothing else
    assert seen == [rows for rows in expected if rows in seen]
    assert len(seen) > 2


@pytest.mark.parametrize("spoilt", ["signature", "missing", "cut", "longer", "unsorted", "tier"])
def test_what_is_wrong_with_a_snapshot_leaves_the_table_in_force(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    monkeypatch.setattr(known, "PART_ENTRIES", 50)
    keeper, (key, tenant, tier) = fleet.keeper(tmp_path), entries(120)
    fleet.send(keeper, fleet.snapshot(1, (key, tenant, tier)))
    before, kept = keeper.engine.known.table, (tmp_path / "known.bin").read_bytes()
    # the last of three parts: the two before it are taken in already
    if spoilt == "unsorted":
        key = np.concatenate([key[:110], key[:10]])
    elif spoilt == "tier":
        tier = np.concatenate([tier[:119], np.array([9], np.uint8)])
    message = fleet.snapshot(2, (key, tenant + 1, tier))
    last = list(fleet.parts)[-1]
    if spoilt == "signature":
        message = message[:-1] + bytes([message[-1] ^ 1])
    elif spoilt == "missing":
        del fleet.parts[last]
    elif spoilt == "cut":
        fleet.parts[last] = fleet.parts[last][: -known.ENTRY_BYTES]
    elif spoilt == "longer":
        fleet.parts[last] += bytes(known.ENTRY_BYTES)
    assert not fleet.send(keeper, message)
    assert (keeper.version, keeper.apps, keeper.rejected) == (1, 120, 1)
    assert keeper.engine.known.table is before
    assert (tmp_path / "known.bin").read_bytes() == kept


def test_a_part_that_fails_to_come_leaves_the_table_and_may_be_offered_again(
    fleet: Fleet, tmp_path: Path
) -> None:
    keeper = fleet.keeper(tmp_path)
    fleet.send(keeper, fleet.snapshot(1, entries(10)))
    before, newest = keeper.engine.known.table, fleet.snapshot(2, entries(12, seed=4))

    async def away(digest: str) -> bytes | None:
        raise ConnectionError("the store is away")

    with pytest.raises(ConnectionError):
        asyncio.run(keeper.offer(newest, away))
    assert (keeper.engine.known.table is before, keeper.version) == (True, 1)
    assert fleet.send(keeper, newest)
    assert (keeper.apps, keeper.version, keeper.rejected) == (12, 2, 0)


# ---- equal


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.integers(0, 60), max_size=40),
    st.dictionaries(
        st.integers(0, 60), st.sampled_from([0, 1, 2, 3, known_apps.REMOVED]), max_size=30
    ),
)
def test_merging_gives_what_sorting_all_of_it_gives(held: set[int], steps: dict[int, int]) -> None:
    key = np.array(sorted(held), np.uint64)
    before = known_apps.build(key, key.astype(np.int64), np.ones(len(key)))
    changed, tiers = np.array(list(steps), np.uint64), np.array(list(steps.values()), np.uint8)
    grown = known_apps.change(before, changed, changed.view(np.int64) + 100, tiers)
    merged = known_apps.merge(grown)
    plain = {k: (k, 1) for k in held} | {k: (k + 100, t) for k, t in steps.items()}
    rows = {k: row for k, row in plain.items() if row[1] != known_apps.REMOVED}
    expected = known_apps.build(
        np.array(list(rows), np.uint64),
        np.array([tenant for tenant, _ in rows.values()], np.int64),
        np.array([tier for _, tier in rows.values()], np.uint8),
    )
    assert same(merged, expected)


def test_a_table_that_came_in_parts_is_the_table_that_was_sent(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "PART_ENTRIES", 64)
    for version, count in enumerate((0, 1, 64, 65, 200), start=1):
        held = entries(count, seed=version)
        keeper = fleet.keeper(tmp_path)
        assert fleet.send(keeper, fleet.snapshot(version, held))
        assert same(keeper.engine.known.table, known_apps.checked(*held))
        again = fleet.keeper(tmp_path)
        again.start_from_disk()
        assert same(again.engine.known.table, keeper.engine.known.table)
        assert (again.version, again.apps, again.rejected) == (version, count, 0)


# ---- memory and disk


def test_a_load_takes_a_second_table_and_one_part_more(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million entries: 17 MB stand, 35 MB while one table takes the other's place."""
    keeper = fleet.keeper(tmp_path)
    messages = [fleet.snapshot(n, entries(1_000_000, seed=n)) for n in (1, 2)]
    stands, most = _traced(keeper, fleet, messages)
    assert stands < 17.7e6
    assert most < 37e6


def _traced(keeper: KnownKeeper, fleet: Fleet, messages: list[bytes]) -> tuple[int, int]:
    """Return the bytes that stand after loading each message, and the most that stood."""
    tracemalloc.start()
    try:
        for message in messages:
            assert fleet.send(keeper, message)
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_a_kill_at_any_step_of_a_save_leaves_a_table_that_can_be_read(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-B", "-m", "tests.decider.killed_saves", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    # pieces of two files, and for each: bytes and folder flushed, and the rename
    assert int(ran.stdout) >= 12
