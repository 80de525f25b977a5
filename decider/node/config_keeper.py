"""The keeper of the config: it verifies documents, applies newer ones, loads models, and remembers
the last good document.

A document can come by push, by poll, from a file that an operator put on this node, or from this
node's own disk at start. All go through `offer`, so all are verified alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from decider.contracts import config as configs
from decider.contracts.artifact import ArtifactError
from decider.contracts.config import Config, ConfigError
from decider.contracts.files import write_atomically
from decider.contracts.store import Ack, cut
from decider.engine.engine import Engine
from decider.scoring.model import Model

# Fetches the bytes of an artifact by its digest; None when the store does not have it. Raises
# OSError when the store is out of reach.
FetchModel = Callable[[str], Awaitable[bytes | None]]


class Keeper:
    """The keeper of one engine's config document and model."""

    def __init__(
        self,
        engine: Engine,
        keys: dict[str, Ed25519PublicKey],
        data: Path,
        models: Path,
        fetch_model: FetchModel,
    ) -> None:
        """Set up the keeper; it reads nothing yet.

        `data`: this node's directory, with config.bin and switch.bin. `models`: the directory of
        artifacts, each named by its digest.
        """
        self.engine, self.data = engine, data
        self.last_error = ""
        self.model_error = ""
        # Bounded, because acks gather while the store is away. The oldest matter least.
        self.acks: asyncio.Queue[Ack] = asyncio.Queue(maxsize=1000)
        self._keys, self._models, self._fetch_model = keys, models, fetch_model
        self._file_seen: tuple[int, int] | None = None
        self._refused = b""
        self._in_force = b""
        self._older = b""
        """Document that the last poll brought although it is older than the one in force."""
        self._loading: asyncio.Task[None] | None = None
        self._unkept: list[tuple[bytes, Ack]] = []  # in force, not on disk yet, oldest first
        self._keeping: asyncio.Task[None] | None = None

    @property
    def version(self) -> int:
        """Version of the document in force, 0 before the first."""
        return self.engine.config.version if self.engine.config else 0

    @property
    def keys(self) -> dict[str, Ed25519PublicKey]:
        """The console's public keys by id."""
        return self._keys

    def offer(self, data: bytes, source: str) -> bool:
        """Verify a signed document and apply it when it is newer than the one in force. Return
        whether it was applied. A refused one is acked once, with the reason, and so is an older one
        in the store.
        """
        received_at, started = time.time(), time.perf_counter()
        try:
            config = configs.verify(data, self._keys)
        except ConfigError as error:
            if data != self._refused:  # the poll brings the same every two seconds
                self._refused = data
                self.last_error = f"config from {source} refused: {error}"
                self._send(self._made(self.version, received_at, started, source, error=str(error)))
            return False
        if config.version <= self.version:
            self._look_at_older(data, config.version, received_at, started, source)
            return False
        # Read before it changes: the kill-switch page shows when the old document last decided.
        old_decision_at = self.engine.last_decision_at if self.version else 0.0
        self.engine.apply(config, self._model_for(config))
        self.last_error, self._in_force = "", data
        ack = self._made(config.version, received_at, started, source, last_old=old_decision_at)
        # a document that was read from disk need not be written there
        self._send(ack) if source == "disk" else self._keep(data, ack)
        return True

    def _look_at_older(
        self, data: bytes, version: int, received_at: float, started: float, source: str
    ) -> None:
        """Ack a document that the store holds although a newer one is in force here, or another one
        of the same version: the console's database was restored, and nothing that it publishes
        would be followed.
        """
        # A push may overtake the answer to a poll, so only what two polls brought is the store's.
        if source != "poll" or data in (self._in_force, self._refused):
            return
        if data != self._older:
            self._older = data
            return
        self._refused = data
        here = "another document of that version" if version == self.version else "a newer one"
        error = (
            f"config {configs.version_text(version)} is not followed: {here} is in force here,"
            f" config {configs.version_text(self.version)}."
            " Was the database restored? Then `manage.py restored` makes deciders follow it"
        )
        self.last_error = f"config from the store refused: {error}"
        self._send(self._made(version, received_at, started, source, error=error))

    def _model_for(self, config: Config) -> Model | None:
        """Return the model to use at once: the running one, until the named one is loaded."""
        if config.model is None:
            self.model_error = ""
            return None
        running = self.engine.model
        if running is None or running.digest != config.model.digest:
            self.load_soon()
        return running

    def load_soon(self) -> None:
        """Start to load the model that the document names, beside the running one."""
        # One load at a time: `_load` looks again at the end, so it serves a newer document too.
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(self._load())

    async def _load(self) -> None:
        """Load models until the running one is the one that the document names. A model that cannot
        be used leaves the fallback limiter in charge.
        """
        while (config := self.engine.config) is not None and config.model is not None:
            digest = config.model.digest
            if self.engine.model is not None and self.engine.model.digest == digest:
                return
            model: Model | None = None
            try:
                data = await self._artifact(digest)
                # In a thread, because compiling a model takes long and decisions must go on.
                model = await asyncio.to_thread(Model.load, data, digest)
                self.model_error = ""
            except (ArtifactError, OSError) as error:
                self.model_error = f"model {digest[:12]} cannot be used: {error}"
            # The document may have changed meanwhile; then the loop loads what it names now.
            current = self.engine.config
            if current is not None and current.model is not None and current.model.digest == digest:
                self.engine.apply(current, model)
                return

    async def _artifact(self, digest: str) -> bytes:
        """Return the bytes of an artifact from this machine or the store. Raise ArtifactError when
        neither has it, OSError when the store is out of reach.
        """
        path = self._models / digest
        if path.is_file():
            return await asyncio.to_thread(path.read_bytes)
        data = await self._fetch_model(digest)
        if data is None:
            raise ArtifactError("neither this node nor the store has it")
        await asyncio.to_thread(write_atomically, path, data)
        return data

    def needs_model(self) -> bool:
        """Return whether the document names a model that is not the running one."""
        config = self.engine.config
        if config is None or config.model is None:
            return False
        return self.engine.model is None or self.engine.model.digest != config.model.digest

    def _made(
        self,
        version: int,
        received_at: float,
        started: float,
        source: str,
        *,
        error: str = "",
        last_old: float = 0.0,
    ) -> Ack:
        return Ack(
            node=self.engine.node,
            region=self.engine.region_name,
            version=version,
            ok=not error,
            error=cut(error),
            received_at=received_at,
            applied_at=time.time(),
            took_ms=(time.perf_counter() - started) * 1e3,
            last_old_decision_at=last_old,
            source=source,
        )

    def _send(self, ack: Ack) -> None:
        if self.acks.full():
            self.acks.get_nowait()
        self.acks.put_nowait(ack)

    def _keep(self, data: bytes, ack: Ack) -> None:
        """Keep a document on disk for the next start, then let its ack go.

        In this order, because a node that acked a version must start with it after a kill. In a
        thread, because a disk takes milliseconds to flush, and no decision may wait for it: the
        document is in force already. When the disk cannot be written, `last_error` says so, and the
        document is acked all the same: it is in force.
        """
        self._unkept.append((data, ack))
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep_all())

    async def flushed(self) -> None:
        """Wait until the document in force is on disk and acked."""
        if self._keeping is not None:
            # shielded: a waiter that is cancelled must not cancel the flush
            await asyncio.shield(self._keeping)

    async def _keep_all(self) -> None:
        while self._unkept:
            kept, self._unkept = self._unkept, []
            # the newest replaces the others, which were in force for a moment only
            await asyncio.to_thread(self._write, kept[-1][0])
            for _, ack in kept:
                self._send(ack)

    def _write(self, data: bytes) -> None:
        try:
            write_atomically(self.data / "config.bin", data)
        except OSError as error:
            self.last_error = f"the config could not be kept on disk: {error}"

    def start_from_disk(self) -> None:
        """Apply the last good document of this node, if there is one."""
        path = self.data / "config.bin"
        if path.is_file():
            self.offer(path.read_bytes(), "disk")

    def look_at_file(self) -> None:
        """Apply the document that an operator put on this node while the store was away
        (switch.bin).
        """
        # Compared by time and size first: this runs four times a second on the event loop.
        path = self.data / "switch.bin"
        try:
            stat = path.stat()
        except OSError:
            return
        seen = (stat.st_mtime_ns, stat.st_size)
        if seen != self._file_seen:
            # noted first: a file that cannot be read is tried again once it has changed
            self._file_seen = seen
            self.offer(path.read_bytes(), "file")
