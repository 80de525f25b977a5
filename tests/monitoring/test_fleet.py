"""What the fleet's page and the strip read of the config in the store."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import config, defaults, store
from decider.contracts.store import GatewayStatus
from monitoring import fleet


def test_a_document_of_either_key_is_read_while_keys_are_rotated(settings, tmp_path: Path) -> None:
    settings.SLUICE_KEYS = tmp_path
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    lines = [key.public_key().public_bytes_raw().hex() for key in (old, new)]
    (tmp_path / "config.pub").write_text("\n".join(lines) + "\n")
    for key in (old, new):
        found, problem = fleet._document(config.sign(defaults.config(7, 1.0), key))
        assert (found and found.version, problem) == (7, "")


def test_agents_of_gateways_are_read_and_those_that_fell_silent_are_named(
    valkey: redis.Redis,
) -> None:
    now = time.time()
    status = store.AgentStatus("edge-1", now, 3, 10, 2)
    valkey.set(store.AGENT_PREFIX + "edge-1", msgspec.msgpack.encode(status))
    valkey.zadd(store.AGENTS_KEY, {"edge-1": now, "edge-2": now - 60, "edge-3": now - 7_200})
    found = fleet.read_fleet(now)
    assert found.agents == (status,)
    assert found.lost_agents == (fleet.Lost("edge-2", now - 60),)


@pytest.mark.parametrize("rubbish", [b"\xc1", b"\x90", b"\x91" * 5_000, b"\x93\xa1\xff"])
def test_what_cannot_be_read_costs_itself_only(valkey: redis.Redis, rubbish: bytes) -> None:
    now = time.time()
    good = store.AgentStatus("edge-2", now, 3)
    for key, data in (("edge-1", rubbish), ("edge-2", msgspec.msgpack.encode(good))):
        valkey.set(store.AGENT_PREFIX + key, data)
        valkey.zadd(store.AGENTS_KEY, {key: now})
    valkey.set(store.INGEST_STATUS_KEY, rubbish)
    found = fleet.read_fleet(now)
    assert (found.agents, found.ingest) == ((good,), None)


def test_a_gateway_that_is_silent_or_tells_nonsense_costs_itself_only() -> None:
    good = GatewayStatus("edge", 1_000.0, 10, 1, 10, 1, 2.5)
    bad = (
        msgspec.structs.replace(good, gateway="old", at=900.0),
        msgspec.structs.replace(good, gateway="ahead", at=1_100.0),
        msgspec.structs.replace(good, gateway="more than all", recent_unasked=11),
        msgspec.structs.replace(good, gateway="negative", recent_p99_ms=-1.0),
        msgspec.structs.replace(good, gateway="endless", recent_p99_ms=float("inf")),
        msgspec.structs.replace(good, gateway="no number", recent_p99_ms=float("nan")),
    )
    raw = [msgspec.msgpack.encode(each) for each in (*bad, good)]
    assert fleet._gateways([b"", b"\xc1", *raw, b"\x93"], 1_010.0) == (good,)


def test_the_slowest_gateway_counts_and_a_share_is_that_of_all() -> None:
    told = (
        GatewayStatus("a", 0.0, 100, 0, 100, 0, 2.5),
        GatewayStatus("b", 0.0, 300, 4, 300, 4, 15.1),
        GatewayStatus("idle", 0.0),
    )
    found = fleet.Fleet(0.0, (), (), None, "", None, 0, gateways=told)
    assert (found.unasked, found.unasked_share, found.added_p99_ms) == ((4, 400), 0.01, 15.1)
    nothing = fleet.Fleet(0.0, (), (), None, "", None, 0)
    assert (nothing.unasked_share, nothing.added_p99_ms) == (None, None)
