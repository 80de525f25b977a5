"""What control's tests share: keys on disk, an emptied store, and deciders played by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import redis

from control.audit.actors import SYSTEM, Actor
from control.config import changes
from control.models import ConfigVersion
from decider.contracts.config import Signed, verify
from decider.contracts.store import (
    ACKS_PREFIX,
    CONFIG_KEY,
    NODE_PREFIX,
    NODE_TTL_S,
    NODES_KEY,
    Ack,
    NodeStatus,
)
from tests.told import sealed

DELE = Actor("Dele Okafor", "sre@demo.sluice.example", "SRE")


@pytest.fixture(autouse=True)
def installation(settings, tmp_path: Path, keys: Path, valkey: redis.Redis) -> Path:
    """An installation's folder with keys, and nothing in Valkey."""
    settings.SLUICE_VAR = tmp_path
    settings.SLUICE_KEYS = keys
    settings.SLUICE_MODELS = tmp_path / "models"
    return tmp_path


@pytest.fixture
def first(db) -> ConfigVersion:
    """The first config version, committed as far as the test's transaction goes."""
    row = changes.first(by=SYSTEM, reason="A new installation")
    assert row is not None
    return row


@pytest.fixture
def published(keys: Path, valkey: redis.Redis) -> Callable:
    """Reads the document in the store, its signature checked; None when there is none."""
    from control.deciders.keys import load_public_keys

    def read():
        data = valkey.get(CONFIG_KEY)
        return verify(data, load_public_keys(keys)) if data else None

    return read


def status(node: str = "d01", **fields) -> NodeStatus:
    """A heartbeat; any field may be given."""
    now = time.time()
    base = {
        "node": node,
        "region": "local",
        "at": now,
        "started_at": now - 600,
        "config_version": 1,
        "model": "",
        "ml_state": 0,
        "decisions": 0,
        "by_action": [0] * 5,
        "events_sent": 0,
        "events_dropped": 0,
        "apps": 0,
        "latency_p99_us": 0.0,
        "services": [],
    }
    return NodeStatus(**(base | fields))


def beat(valkey: redis.Redis, said: NodeStatus) -> None:
    """Does what a decider does once a second."""
    valkey.set(NODE_PREFIX + said.node, sealed(said), ex=NODE_TTL_S)
    valkey.zadd(NODES_KEY, {said.node: said.at})


def ack(valkey: redis.Redis, version: int, node: str = "d01", **fields) -> None:
    """Acks a version as a decider would."""
    now = time.time()
    base = {
        "node": node,
        "region": "local",
        "version": version,
        "ok": True,
        "error": "",
        "received_at": now,
        "applied_at": now,
        "took_ms": 0.4,
        "last_old_decision_at": now,
    }
    said = Ack(**(base | fields))
    valkey.hset(ACKS_PREFIX + str(version), node, sealed(said))


def payload_of(signed: bytes) -> bytes:
    return msgspec.msgpack.decode(signed, type=Signed).payload
