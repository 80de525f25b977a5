"""The keeper of the table of known apps: it verifies snapshots and changes, lets the engine hold
them, and remembers them on this node's disk.

A message that does not verify is ignored, counted and logged; the engine keeps the table that it
has. Nothing here holds up a request: a thread checks each part, puts it into a new table and merges
changes, in calls that let other threads run. The engine swaps in a table as a whole, and then
brings a bounded number of tracked apps at a time in line with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from decider.contracts import known
from decider.contracts.files import remove_drafts, write_pieces_atomically
from decider.contracts.known import Changes, KnownError, Snapshot
from decider.engine.engine import Engine
from decider.engine.known_apps import table as known_apps
from decider.engine.known_apps.table import Filling, KnownApps, KnownAppsError

log = logging.getLogger(__name__)

# Fetches the bytes of a part by its digest; None when the store does not have it.
FetchPart = Callable[[str], Awaitable[bytes | None]]

# It reads views, because a copy of a snapshot would take as much memory as the table.
_read_views = msgspec.msgpack.Decoder(list[memoryview]).decode


class KnownKeeper:
    """The keeper of one engine's table of known apps."""

    def __init__(self, engine: Engine, keys: dict[str, Ed25519PublicKey], data: Path) -> None:
        """Set up the keeper; it reads nothing yet. `data`: this node's directory, with known.bin
        and known_changes.bin.
        """
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
        """Give the engine the table that this node kept on disk, if there is one. Call it before
        requests come.
        """
        try:
            for path in (self._snapshot_file, self._changes_file):
                remove_drafts(path)
            if self._snapshot_file.is_file():
                self._start_snapshot(*_read_views(self._snapshot_file.read_bytes()))
            # after the snapshot, which stays in force when the changes cannot be read
            if self.version and self._changes_file.is_file():
                self._start_changes(_read_views(self._changes_file.read_bytes()))
        except (OSError, TypeError, KnownError, KnownAppsError, msgspec.MsgspecError) as error:
            self._reject(b"", f"what was kept on disk: {error}")

    def _start_snapshot(self, signed: memoryview, *parts: memoryview) -> None:
        snapshot = known.verify(bytes(signed), self._keys)
        if not isinstance(snapshot, Snapshot):
            raise KnownError("the file does not begin with a snapshot")
        self._check_mark(snapshot)
        if len(parts) != len(snapshot.parts):
            raise KnownError(
                f"the file holds {len(parts)} parts, its snapshot names {len(snapshot.parts)}"
            )
        filling = _room_for(snapshot)
        for digest, part in zip(snapshot.parts, parts, strict=True):
            filling.add(*known.open_part(digest, part))
        table = filling.table()
        self.engine.hold_known(table)
        self.version, self.apps = snapshot.version, len(table.key)

    def _start_changes(self, kept: list[memoryview]) -> None:
        for view in kept:
            changes = known.verify(data := bytes(view), self._keys)
            # other changes belong to another snapshot: the process ended between two writes
            if isinstance(changes, Changes) and changes.previous == self.version:
                keys, tenants, tiers = known.unpack(changes.rows)
                table, apps = _changed(self.engine.known.table, keys, tenants, tiers)
                self.engine.known.change(table, keys)
                self.version, self.apps = changes.version, apps
                self._changes.append(data)

    async def offer(self, data: bytes, fetch: FetchPart) -> bool:
        """Verify a message and apply it when it is a newer snapshot, or changes to the table that
        is held. Return whether it was applied.

        `fetch` gets the parts of a snapshot. Its errors are raised; offer the message again after
        one.
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
                    f"version {message.version} changes version {message.previous}, but this node"
                    f" holds version {self.version}"
                )
            else:
                await self._change(message, data)
                await self._merge_if_grown()
        except (KnownError, KnownAppsError) as error:
            self._reject(data, str(error))
            return False
        return True

    def _check_mark(self, message: known.Message) -> None:
        if message.mark != self.engine.text_hash.mark:
            raise KnownError(
                "the table of known apps was hashed with another token.key: give the console and"
                " all deciders the same file"
            )

    async def _load(self, snapshot: Snapshot, data: bytes, fetch: FetchPart) -> None:
        filling, sizes = _room_for(snapshot), []
        for digest in snapshot.parts:
            part = await fetch(digest)
            if part is None:
                raise KnownError(f"the store does not have part {digest[:12]}")
            sizes.append(len(part) // known.ENTRY_BYTES)
            await asyncio.to_thread(_add_part, filling, digest, part)
        table = filling.table()
        await self._hold(table)
        self.version, self.apps, self._changes = snapshot.version, len(table.key), []
        await asyncio.to_thread(self._keep_snapshot, data, table, sizes)

    async def _change(self, changes: Changes, data: bytes) -> None:
        keys, tenants, tiers = known.unpack(changes.rows)
        table, apps = await asyncio.to_thread(
            _changed, self.engine.known.table, keys, tenants, tiers
        )
        await _in_turns(self.engine.known.change_in_parts(table, keys))
        self.version, self.apps = changes.version, apps
        self._changes.append(data)
        await asyncio.to_thread(self._keep_changes)

    async def _merge_if_grown(self) -> None:
        if len(self.engine.known.table.changed_key) >= known_apps.MERGE_FROM:
            # nothing else changes the table meanwhile: messages are offered one after another
            await self._hold(await asyncio.to_thread(known_apps.merge, self.engine.known.table))

    async def _hold(self, table: KnownApps) -> None:
        before = [self.engine.known.table]
        await _in_turns(self.engine.known.hold_in_parts(table))
        # freeing megabytes takes a while, so a thread drops the last reference to them
        await asyncio.to_thread(before.clear)

    def _keep_snapshot(self, data: bytes, table: KnownApps, sizes: list[int]) -> None:
        self._write(self._snapshot_file, 1 + len(sizes), chain([data], _parts_of(table, sizes)))
        self._keep_changes()

    def _keep_changes(self) -> None:
        self._write(self._changes_file, len(self._changes), self._changes)

    def _write(self, path: Path, count: int, contents: Iterable[bytes]) -> None:
        try:
            write_pieces_atomically(path, _list_of(count, contents))
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


async def _in_turns(parts: Iterator[None]) -> None:
    """Run the parts of a long step, each in a turn of the event loop of its own."""
    for _ in parts:
        await asyncio.sleep(0)


def _room_for(snapshot: Snapshot) -> Filling:
    return Filling(len(snapshot.parts) * known.PART_ENTRIES)


def _add_part(filling: Filling, digest: str, data: bytes) -> None:
    filling.add(*known.open_part(digest, data))


def _changed(
    table: KnownApps, keys: np.ndarray, tenants: np.ndarray, tiers: np.ndarray
) -> tuple[KnownApps, int]:
    """Return the table with the changes made, and how many apps it then holds."""
    after = known_apps.change(table, keys, tenants, tiers)
    return after, known_apps.count(after)


def _parts_of(table: KnownApps, sizes: list[int]) -> Iterator[bytes]:
    """Yield the parts from which a table was filled. `sizes`: entries of each part."""
    at = 0
    for size in sizes:
        to = at + size
        yield known.pack((table.key[at:to], table.tenant[at:to], table.tier[at:to]))
        at = to


def _list_of(count: int, contents: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a msgpack list of `count` bytes objects (its formats array 32 and bin
    32).
    """
    yield b"\xdd" + count.to_bytes(4, "big")
    for data in contents:
        yield b"\xc6" + len(data).to_bytes(4, "big")
        yield data
