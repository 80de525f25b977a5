"""Deciders for tests: a real engine behind a real desk, answering commands over the real Valkey as
`decider.node.store_sync` does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import redis

from control.deciders.keys import load_public_keys
from decider.contracts import defaults, store
from decider.contracts.config import Config
from decider.contracts.requests import CheckRequest
from decider.contracts.store import Profile
from decider.engine.engine import Engine
from decider.node import commands
from tests.told import sealed


@cache
def warm_up() -> None:
    """Run once what a played decider runs. Without Numba's cache the first decision compiles for
    more than a minute: heartbeats expire meanwhile and buckets fill up again.
    """
    scratch = Engine("warm", "local", b"k" * 32, capacity=256)
    scratch.apply(defaults.config(1), None)
    scratch.know([Profile("warm")])
    scratch.decide([CheckRequest("warm", "GET", "/v2/orders/1")])
    scratch.slot_of("warm")


class Played:
    """One decider that lives in a thread. Like a real one it is warm before it listens; who has it
    report does so afterwards.
    """

    def __init__(
        self, valkey: redis.Redis, keys: Path, node: str = "d01", config: Config | None = None
    ) -> None:
        warm_up()
        self.clock: Callable[[], float] = time.time
        """Unix seconds by which it decides and answers; a test may stop it."""
        self.engine = Engine(node, "local", b"k" * 32, capacity=256)
        self.engine.apply(config or defaults.config(1), None)
        self.heard: list[bytes] = []
        self.valkey, self.node, self.keys = valkey, node, keys
        self.desk = commands.Desk(self.engine, load_public_keys(keys), time.time() - 600)
        self._channel = valkey.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(store.COMMANDS_CHANNEL)
        self._channel.get_message(timeout=1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def track(self, app: str, requests: int, tier: int = 1, tenant: str = "t1") -> None:
        """Knows an app and decides that many requests of it now."""
        now = self.clock()
        self.engine.know([Profile(app, app, tenant, tier)], now)
        self.engine.decide([CheckRequest(app, "GET", "/v2/orders/1") for _ in range(requests)], now)

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._channel.get_message(timeout=0.05)
            if message is None:
                continue
            self.heard.append(message["data"])
            try:
                answer = self.desk.obey(message["data"], self.clock())
            except commands.CommandError:
                continue
            self.valkey.rpush(store.ANSWERS_PREFIX + answer.nonce, sealed(answer, self.keys))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._channel.close()
