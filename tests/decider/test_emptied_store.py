"""Two real deciders whose real Valkey is emptied at noon: the day's quota does not begin anew."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import msgspec
import pytest

from decider.contracts import defaults
from decider.contracts.config import Config
from decider.engine.quota import POOL_SHARE
from tests.conftest import write_keys
from tests.decider.test_process import World, until

pytestmark = [pytest.mark.parts, pytest.mark.in_order]
NODES = ("d01", "d02")
QUOTA = 3_000


def document() -> Config:
    plans = {"quota_per_day": QUOTA, "rate": 1e5, "burst": 1e5}
    tiers = [msgspec.structs.replace(tier, **plans) for tier in defaults.TIERS]
    return msgspec.structs.replace(defaults.config(), tiers=tiers)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("emptied")
    write_keys(folder / "keys")
    made = World(folder, folder / "keys")
    try:
        made.publish(document())
        for node in NODES:
            made.start_decider(node, node)
        yield made
    finally:
        for name in list(made.servers):
            made.end(name, signal.SIGTERM)


def use(world: World, most: int, for_s: float) -> int:
    """Send requests of one app to both deciders until `most` were admitted or nothing was for
    `for_s`. Return how many were admitted.
    """
    admitted, give_up = 0, time.monotonic() + for_s
    while admitted < most and time.monotonic() < give_up:
        answers = [world.get("/v1/check/v2/orders/1", "app_noon", node)[0] for node in NODES]
        if got := answers.count(200):
            admitted, give_up = admitted + got, time.monotonic() + for_s
    return admitted


def test_a_store_that_is_emptied_at_noon_does_not_begin_the_days_quota_anew(world: World) -> None:
    admitted = use(world, QUOTA // 2, 10)
    assert admitted >= QUOTA // 2
    world.store.flushall()
    world.publish(document())
    admitted += use(world, 10 * QUOTA, 8)
    assert POOL_SHARE * QUOTA <= admitted <= QUOTA
    world.store.flushall()
    admitted += use(world, 10 * QUOTA, 8)
    assert admitted <= QUOTA


def test_a_decider_says_whom_it_waits_for_and_goes_on_when_that_one_is_back(world: World) -> None:
    world.end("d02", signal.SIGKILL)
    world.store.flushall()
    until(
        lambda: (s := world.status()) is not None and s.leases_wait == "d02", "the wait for d02", 15
    )
    assert b"sluice_leases_waiting 1" in world.get("/metrics")[2]
    world.start_decider("d02", "d02")
    until(lambda: (s := world.status()) is not None and s.leases_wait == "", "the end of it", 30)
    assert b"sluice_leases_waiting 0" in world.get("/metrics")[2]
