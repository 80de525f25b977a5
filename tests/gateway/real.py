"""Real deciders and the feedback program behind a gateway."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import config, defaults, store
from decider.contracts.config import Config, ListEntry, Override, Sampling
from decider.contracts.sealed.outcomes import KEY_FILE
from decider.contracts.vocabulary import Action
from decider.store_users.roles import Role
from tests.conftest import write_keys
from tests.gateway.running import Gateway, identity_file, until
from tests.servers import PATIENT, store_url

BLOCKED, SHED = "app-blocked", "app-shed"
START_S = 180.0
"""A decider whose code is not compiled yet needs a while."""


def document() -> Config:
    """The starting document, with an app that is blocked, a network that is blocked and an app that
    is shed; every decision is kept.
    """
    return msgspec.structs.replace(
        defaults.config(),
        issued_at=time.time(),
        lists=[
            ListEntry(verdict="block", kind="app", subject=BLOCKED),
            ListEntry(verdict="block", kind="source", subject="203.0.113.0/24", network=True),
        ],
        overrides=[
            Override(
                id="shed", kind="app", subject=SHED, until=time.time() + 3600, action=Action.SHED
            )
        ],
        sampling=Sampling(admit=1.0, refuse=1.0),
    )


def publish(client: redis.Redis, keys: Path) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((keys / "config.key").read_text()))
    client.set(store.CONFIG_KEY, config.sign(document(), key))


def decider(
    folder: Path, node: str, gateway: Gateway, *, reads_credentials: bool = False
) -> list[str]:
    """The command of a decider whose data lie in `folder`. `reads_credentials`: it verifies them
    itself, as the shipped identity.toml says.
    """
    where = ["--node", node, "--listen", gateway.address(node), "--data", str(folder / node)]
    where += [] if node in gateway.sockets else ["--secret", str(gateway.secret)]
    where += ["--models", str(folder / "models"), "--keys", str(folder / "keys")]
    shared = ["--valkey", store_url(Role.DECIDER), "--capacity", "20000", *PATIENT]
    identity = ["--identity", str(identity_file(folder))] if reads_credentials else []
    return [sys.executable, "-m", "decider", *where, *shared, *identity]


def is_healthy(gateway: Gateway, node: str) -> bool:
    try:
        return gateway.ask_decider(node, "/healthz", 1)[0] == 200
    except OSError:
        return False


@contextmanager
def with_deciders(
    folder: Path,
    started: AbstractContextManager[Gateway],
    nodes: Sequence[str] = ("d01", "d02"),
    *,
    reads_credentials: bool = False,
) -> Iterator[tuple[Gateway, redis.Redis]]:
    """A gateway, real deciders and the feedback program, on an emptied Valkey, once all decide."""
    write_keys(folder / "keys")
    client = redis.Redis.from_url(os.environ["VALKEY_URL"])
    client.flushdb()
    publish(client, folder / "keys")
    with started as gateway:
        for node in nodes:
            program = decider(folder, node, gateway, reads_credentials=reads_credentials)
            gateway.start(node, program)
        log = ["--log", str(gateway.log), "--valkey", store_url(Role.FEEDBACK)]
        log += ["--outcomes-key", str(folder / "keys" / KEY_FILE)]
        gateway.start("feedback", [sys.executable, "-m", "decider.node.feedback", *log])
        for node in nodes:
            until(lambda node=node: is_healthy(gateway, node), node, START_S)
        until(lambda: decides(gateway), "the gateway's first answers", 30.0)
        yield gateway, client
    client.close()


def decides(gateway: Gateway) -> bool:
    """Whether requests of many apps are all decided, so that no decider is thought to be dead."""
    answers = [gateway.get(f"warm-{k}") for k in range(12)]
    return all("sluice-decision" in answer.headers for answer in answers)
