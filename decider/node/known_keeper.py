"""The keeper of the table of known apps: it verifies snapshots and changes, lets the engine hold
them, and remembers them on this node's disk.

What does not verify is ignored, counted and told; the engine keeps the table that it has. Nothing
here holds up a request: parts are checked and joined in a thread, and the engine takes a table in
parts of less than a millisecond.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from decider.contracts import known
from decider.contracts.files import write_atomically
from decider.contracts.known import Changes, KnownError, Snapshot
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.engine.known_apps.table import KnownApps, KnownAppsError

log = logging.getLogger(__name__)

# Digest to the bytes of a part, None when the store has none.
FetchPart = Callable[[str], Awaitable[bytes | None]]

_read_files = msgspec.msgpack.Decoder(list[bytes]).decode


class KnownKeeper:
    """The table of known apps of one engine."""

    def __init__(self, engine: Engine, keys: dict[str, Ed25519PublicKey], data: Path) -> None:
        """Keep what `data`, this node's directory (known.bin, known_changes.bin), holds."""
        self.engine = engine
        self.version = 0
        """Version of the table that the engine holds, 0 before the first."""
        self.apps = 0
        """Apps in that table."""
        self.rejected = 0
        """Messages and parts that were ignored since the start."""
        self.last_error = ""
        self._keys = keys
        self._snapshot_file, self._changes_file = data / "known.bin", data / "known_changes.bin"
        self._changes: list[bytes] = []
        self._refused = b""

    def start_from_disk(self) -> None:
        """Hold the table that this node kept, if there is one. Call it before requests come."""
        try:
            if self._snapshot_file.is_file():
                self._start_snapshot(*_read_files(self._snapshot_file.read_bytes()))
            # apart from the snapshot, which is in force without them
            if self.version and self._changes_file.is_file():
                self._start_changes(_read_files(self._changes_file.read_bytes()))
        except (OSError, TypeError, KnownError, KnownAppsError, msgspec.MsgspecError) as error:
            self._reject(b"", f"what was kept on disk: {error}")

    def _start_snapshot(self, signed: bytes, *parts: bytes) -> None:
        snapshot = known.verify(signed, self._keys)
        if not isinstance(snapshot, Snapshot):
            raise KnownError("it is no snapshot")
        self._check_mark(snapshot)
        table = _joined(snapshot, list(parts))
        self.engine.hold_known(table)
        self.version, self.apps = snapshot.version, known_apps.count(table)

    def _start_changes(self, kept: list[bytes]) -> None:
        for data in kept:
            changes = known.verify(data, self._keys)
            # those of another snapshot: the process ended between two writes
            if isinstance(changes, Changes) and changes.previous == self.version:
                keys, tenants, tiers = known.unpack(changes.rows)
                table = known_apps.change(self.engine.known.table, keys, tenants, tiers)
                self._take(changes, keys, table)
                self._changes.append(data)

    async def offer(self, data: bytes, fetch: FetchPart) -> bool:
        """Verify a message and apply it when it is newer and follows on what is held. Return
        whether it was applied.

        Parts are had with `fetch`. Its errors are passed on; the message may then be offered again.
        """
        try:
            message = known.verify(data, self._keys)
            if message.version <= self.version:
                return False
            self._check_mark(message)
            if isinstance(message, Snapshot):
                await self._load(message, data, fetch)
            elif message.previous != self.version:
                raise KnownError(
                    f"version {message.version} changes {message.previous}, not {self.version}"
                )
            else:
                await self._change(message, data)
        except (KnownError, KnownAppsError) as error:
            self._reject(data, str(error))
            return False
        return True

    def _check_mark(self, message: known.Message) -> None:
        if message.mark != self.engine.text_hash.mark:
            raise KnownError("its hashes were made with another token.key")

    async def _load(self, snapshot: Snapshot, data: bytes, fetch: FetchPart) -> None:
        parts = []
        for digest in snapshot.parts:
            part = await fetch(digest)
            if part is None:
                raise KnownError(f"the store does not have part {digest[:12]}")
            parts.append(part)
        table = await asyncio.to_thread(_joined, snapshot, parts)
        await self._hold(table)
        self.version, self.apps, self._changes = snapshot.version, known_apps.count(table), []
        await asyncio.to_thread(self._keep_snapshot, data, parts)

    async def _change(self, changes: Changes, data: bytes) -> None:
        keys, tenants, tiers = known.unpack(changes.rows)
        held = self.engine.known.table
        self._take(
            changes, keys, await asyncio.to_thread(known_apps.change, held, keys, tenants, tiers)
        )
        self._changes.append(data)
        await asyncio.to_thread(self._keep_changes)
        await self._merge_if_grown()

    async def _hold(self, table: KnownApps) -> None:
        for _ in self.engine.known.hold_in_parts(table):
            await asyncio.sleep(0)

    def _take(self, changes: Changes, keys: NDArray[np.uint64], table: KnownApps) -> None:
        self.engine.known.change(table, keys)
        self.version, self.apps = changes.version, known_apps.count(table)

    async def _merge_if_grown(self) -> None:
        held = self.engine.known.table
        if len(held.changed_key) >= known_apps.MERGE_FROM:
            # nothing else changes the table meanwhile: messages are offered one after another
            await self._hold(await asyncio.to_thread(known_apps.merge, held))

    def _keep_snapshot(self, data: bytes, parts: list[bytes]) -> None:
        self._write(self._snapshot_file, [data, *parts])
        self._keep_changes()

    def _keep_changes(self) -> None:
        self._write(self._changes_file, self._changes)

    def _write(self, path: Path, contents: list[bytes]) -> None:
        # a list of bytes in msgpack (its array 32 and bin 32), made without a copy of megabytes,
        # for which requests would wait
        pieces = [b"\xdd" + len(contents).to_bytes(4, "big")]
        for data in contents:
            pieces += [b"\xc6" + len(data).to_bytes(4, "big"), data]
        try:
            write_atomically(path, *pieces)
        except OSError as error:
            self.last_error = f"the known apps could not be kept on disk: {error}"

    def _reject(self, data: bytes, error: str) -> None:
        # Once: the poll brings the same bad message every two seconds.
        if data and data == self._refused:
            return
        self._refused = data
        self.rejected += 1
        self.last_error = f"known apps refused: {error}"
        log.warning("%s", self.last_error)


def _joined(snapshot: Snapshot, parts: list[bytes]) -> KnownApps:
    return known_apps.checked(*known.join(snapshot.parts, parts))
