"""A wire between two parts: a relay whose connections a test can freeze or cut."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

# Where a part listens: a port of the loopback, or a Unix socket.
Place = int | Path
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Wire:
    """A relay from one place to another."""

    def __init__(self, here: Place, there: Place) -> None:
        self.here, self.there = here, there
        self._connections: list[list[asyncio.StreamWriter]] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self._is_cut = False
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        if isinstance(self.here, Path):
            self._server = await asyncio.start_unix_server(self._relay, self.here)
        else:
            self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.here)

    async def close(self) -> None:
        await self.cut()
        assert self._server is not None
        self._server.close()

    async def freeze(self) -> None:
        """Let nothing through, as a network that drops every packet; what is sent waits."""
        self._flows.clear()

    async def cut(self) -> None:
        """Break every connection, and each new one at once."""
        self._is_cut = True
        for connection in self._connections:
            for end in connection:
                end.transport.abort()

    async def mend(self) -> None:
        self._is_cut = False
        self._flows.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            await self._flows.wait()
            far_reader, far_writer = await self._reach()
            ends.append(far_writer)
            self._connections.append(ends)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer))
                both.create_task(self._pump(far_reader, writer))
        except* OSError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
            if ends in self._connections:
                self._connections.remove(ends)

    async def _reach(self) -> Streams:
        if self._is_cut:
            raise ConnectionResetError
        if isinstance(self.there, Path):
            return await asyncio.open_unix_connection(self.there)
        return await asyncio.open_connection("127.0.0.1", self.there)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        # an end that was told no more is coming may still have something to say
        if writer.can_write_eof():
            writer.write_eof()


class Wires:
    """Wires by name, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._wires: dict[str, Wire] = {}

    def lay(self, name: str, here: Place, there: Place) -> None:
        """Open a wire that listens at `here` and leads to `there`."""
        self._wires[name] = Wire(here, there)
        self._do(self._wires[name].open)

    def freeze(self, *names: str) -> None:
        self._each(names, Wire.freeze)

    def cut(self, *names: str) -> None:
        self._each(names, Wire.cut)

    def mend(self, *names: str) -> None:
        self._each(names, Wire.mend)

    def touching(self, part: str) -> list[str]:
        """Return the names of the wires with the part at an end; a name is "from>to"."""
        return [name for name in self._wires if part in name.split(">")]

    def close(self) -> None:
        self._each(self._wires, Wire.close)
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        """Let the relays of broken connections end."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        # what a broken connection leaves is cleared away in the next turns of the loop
        await asyncio.sleep(0.05)

    def _each(self, names: Any, step: Callable[[Wire], Awaitable[None]]) -> None:
        for name in names:
            wire = self._wires[name]
            self._do(lambda wire=wire: step(wire))

    def _do(self, step: Callable[[], Any]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(step(), self._loop)
        done.result(10)
