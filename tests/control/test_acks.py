from __future__ import annotations

import time

import pytest

from control.deciders import acks
from control.deciders.acks import NodeState
from control.errors import StoreUnavailable
from decider.contracts.store import ACKS_PREFIX, NODE_PREFIX, NODES_KEY
from decider.store_users.roles import Role
from tests.control.conftest import ack, beat, status
from tests.servers import store_url


@pytest.fixture(autouse=True)
def as_console(settings, installation) -> None:
    """The console asks how far a version is."""
    settings.VALKEY_URL = store_url(Role.CONSOLE)


@pytest.fixture
def made_at() -> float:
    return time.time() - 2


def test_nodes_are_acked_waiting_refused_or_silent(valkey, made_at) -> None:
    for node, region in (("d01", "eu"), ("d02", "eu"), ("d03", "us")):
        beat(valkey, status(node, region=region, config_version=4))
    valkey.zadd(NODES_KEY, {"d04": time.time() - 60, "d99": time.time() - 7200})
    ack(valkey, 5, "d01", region="eu", last_old_decision_at=made_at + 0.031)
    ack(valkey, 5, "d03", region="us", ok=False, error="the signature does not match")
    reached = acks.reach(5, made_at, True, time.time())
    states = {node.name: node.state for node in reached.nodes}
    assert states == {
        "d01": NodeState.ACKED,
        "d02": NodeState.WAITING,
        "d03": NodeState.REFUSED,
        "d04": NodeState.SILENT,
    }
    assert [(region.name, region.acked, len(region.nodes)) for region in reached.regions] == [
        ("eu", 1, 2),
        ("unknown region", 0, 1),
        ("us", 0, 1),
    ]
    assert (reached.acked, reached.total, reached.complete) == (1, 4, False)
    assert reached.ms == pytest.approx(31, abs=0.1)
    assert {node.name: node.error for node in reached.late}["d03"] == "the signature does not match"


@pytest.mark.parametrize("rubbish", [b"\xff", b"\x90", b"\x91" * 5_000, b"\x95\xa1\xff"])
def test_a_decider_that_writes_rubbish_keeps_nobody_from_seeing_the_others(
    valkey, made_at, rubbish: bytes
) -> None:
    beat(valkey, status("d01"))
    ack(valkey, 5, "d01")
    valkey.set(NODE_PREFIX + "d02", rubbish)
    valkey.zadd(NODES_KEY, {"d02": time.time(), b"\xff": time.time()})
    valkey.hset(ACKS_PREFIX + "5", mapping={"d02": rubbish, b"\xff": rubbish})
    # where its refusals would be, under the version that it runs
    beat(valkey, status("d03", config_version=4))
    valkey.hset(ACKS_PREFIX + "4", "d03", rubbish)
    reached = acks.reach(5, made_at, True, time.time())
    states = {node.name: node.state for node in reached.nodes}
    assert states["d01"] is NodeState.ACKED
    assert states["d02"] is NodeState.UNBELIEVED
    doubts = {node.name: node.doubt for node in reached.nodes}
    assert doubts["d01"] == ""
    assert all("is not believed: it " in doubts[name] for name in ("d02", "d03"))


def test_a_node_without_traffic_counts_until_it_applied_the_change(valkey, made_at) -> None:
    beat(valkey, status("d01"))
    beat(valkey, status("d02"))
    ack(valkey, 5, "d01", applied_at=made_at + 0.004, last_old_decision_at=made_at - 30)
    ack(valkey, 5, "d02", applied_at=made_at + 0.003, last_old_decision_at=0)
    reached = acks.reach(5, made_at, True, time.time())
    assert [node.ms for node in reached.nodes] == [
        pytest.approx(4, abs=0.1),
        pytest.approx(3, abs=0.1),
    ]
    assert (reached.complete, reached.ms) == (True, pytest.approx(4, abs=0.1))


def test_a_node_that_started_after_the_change_never_ran_the_old_state(valkey, made_at) -> None:
    beat(valkey, status("d01", started_at=made_at + 1))
    ack(valkey, 5, "d01", source="disk")
    reached = acks.reach(5, made_at, True, time.time())
    assert (reached.complete, reached.ms) == (True, None)


def test_a_node_that_follows_a_later_version_and_does_not_go_back_has_refused(
    valkey, made_at
) -> None:
    """After a restore of the database, its heartbeat alone would count as an ack."""
    beat(valkey, status("d01", config_version=9))
    beat(valkey, status("d02", config_version=9))
    ack(valkey, 3, "d01", ok=False, error="config 3 is not followed")
    reached = acks.reach(3, made_at, True, time.time())
    assert [node.state for node in reached.nodes] == [NodeState.REFUSED, NodeState.ACKED]
    assert reached.late[0].error == "config 3 is not followed"


def test_a_refusal_acked_under_the_running_version_is_found(valkey, made_at) -> None:
    beat(valkey, status("d01", config_version=4))
    ack(valkey, 4, "d01", ok=False, error="the signature does not match")
    beat(valkey, status("d02", config_version=5))
    ack(valkey, 5, "d02", ok=False, error="malformed config document")
    beat(valkey, status("d03", config_version=4))
    ack(valkey, 4, "d03", ok=False, error="long ago", received_at=made_at - 60)
    nodes = {
        node.name: (node.state, node.error)
        for node in acks.reach(5, made_at, True, time.time()).nodes
    }
    assert nodes == {
        "d01": (NodeState.REFUSED, "the signature does not match"),
        "d02": (NodeState.ACKED, "malformed config document"),
        "d03": (NodeState.WAITING, ""),
    }


def test_without_any_decider_nothing_is_complete(valkey, made_at) -> None:
    reached = acks.reach(5, made_at, True, time.time())
    assert (reached.total, reached.complete, reached.ms) == (0, False, None)


def test_a_store_that_does_not_answer_is_said_in_a_sentence(settings) -> None:
    settings.VALKEY_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(StoreUnavailable, match="Valkey does not answer"):
        acks.reach(5, 0.0, True, time.time())
