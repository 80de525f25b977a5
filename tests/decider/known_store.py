"""A store of known apps in memory, with a key that signs, and keepers that read it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import defaults, known
from decider.contracts.config import key_id
from decider.contracts.known import Entries
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.node.known_keeper import KnownKeeper


def entries(count: int, seed: int = 1, tier: int | None = None) -> Entries:
    """Make sorted entries of random apps."""
    rng = np.random.default_rng(seed)
    made = known_apps.build(
        rng.integers(0, 2**64, count, dtype=np.uint64),
        rng.integers(-(2**63), 2**63, count),
        rng.integers(1, 4, count) if tier is None else np.full(count, tier),
    )
    return made.key, made.tenant, made.tier


class Fleet:
    """What the control plane and the store do."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.parts: dict[str, bytes] = {}
        self.token_key = b"k" * 32

    async def part(self, digest: str) -> bytes | None:
        """Return a part as the store would."""
        await asyncio.sleep(0)
        return self.parts.get(digest)

    def keeper(self, folder: Path, capacity: int = 1024) -> KnownKeeper:
        """Make a decider's keeper with an engine of its own."""
        engine = Engine("d01", "local", self.token_key, capacity)
        engine.apply(defaults.config(), None)
        public = self.key.public_key()
        return KnownKeeper(engine, {key_id(public): public}, folder)

    def snapshot(self, version: int, held: Entries) -> bytes:
        """Put a table's parts into the store and return its signed snapshot."""
        parts = known.split(held)
        self.parts |= parts
        return known.sign(known.Snapshot(version, 1, self._mark(), list(parts)), self.key)

    def changes(self, version: int, previous: int, rows: Entries) -> bytes:
        """Return signed changes."""
        made = known.Changes(version, previous, 1, self._mark(), 1, known.pack(rows))
        return known.sign(made, self.key)

    def send(self, keeper: KnownKeeper, message: bytes) -> bool:
        """Offer a message; return whether it was applied."""
        return asyncio.run(keeper.offer(message, self.part))

    def _mark(self) -> bytes:
        from decider.engine.text_hash import TextHash

        return TextHash(self.token_key).mark
