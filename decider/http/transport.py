"""The transport's side of a connection: what comes in when, what goes out, how it ends.

Limits on time and memory live here: back-pressure both ways, pieces for long reads, deadlines,
orderly closing.
"""

from __future__ import annotations

import asyncio
from typing import cast

from decider.http import problem
from decider.http.batcher import Job
from decider.http.context import Hub
from decider.http.problem import Problem
from decider.http.responses import CLOSE

HEAD_STEP = 8 * 1024
# Bytes of one connection that are parsed in one turn, so that none keeps the others waiting.
BODY_STEP = 64 * 1024


class Channel(asyncio.Protocol):
    """A connection that knows nothing of HTTP's grammar; `connection.Connection` adds it."""

    __slots__ = (
        "_batcher",
        "_close_after",
        "_done",
        "_head_done",
        "_hub",
        "_job",
        "_later",
        "_limits",
        "_pumping",
        "_reading",
        "_transport",
        "deadline",
        "last",
        "since",
        "stalled_since",
        "waiting",
    )

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._batcher = hub.batcher
        self._transport: asyncio.Transport | None = None
        self._job: Job | None = None
        self._later = bytearray()  # received, to be parsed in a later turn
        self._pumping = False  # a turn for it is booked
        self._reading = True
        self._done = False  # nothing more is parsed
        self._close_after = False  # close when the last waiting check is answered
        self.waiting = 0
        self.last = hub.now
        """When bytes last came."""
        self.since = 0.0
        """When the request being received began; 0 between requests."""
        self.stalled_since = 0.0
        """When the client stopped reading its answers; 0 while it reads."""
        self.deadline = 0.0
        """When a closing connection is cut; 0 while it is open."""
        self._head_done = False  # the request being received has all its header fields

    def _feed(self, data: bytes) -> None:
        """Parses the next bytes."""
        raise NotImplementedError

    def _reset(self) -> None:
        """Forgets the request being received."""
        raise NotImplementedError

    # Coming in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            asyncio.Transport, transport
        )  # uvloop's own class, which derives from neither
        hub, most = self._hub, self._limits.connections
        hub.connections.add(self)
        if hub.stopping or len(hub.connections) > most:
            hub.stats.turned_away += 1
            self._refuse(
                problem.too_busy(
                    "This decider has as many connections as it may have; try again in a second."
                )
            )

    def connection_lost(self, error: Exception | None) -> None:
        self._hub.connections.discard(self)
        if self._job is not None:
            self._batcher.drop(self._job)
        self._reset()
        self._later.clear()
        self._done = True
        self._transport = self._job = None

    def _receive(self, data: bytes) -> None:
        """The long way, for whatever is not a plain check."""
        if self._later or not self._reading or len(data) > HEAD_STEP:
            self._later += data
            if not self._pumping:
                self._pump()
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        """A client may stop sending and still want its answers."""
        self._done = True
        if self.waiting or self._job is not None:
            self._close_after = True
            return True
        return False

    def pause_writing(self) -> None:
        self.stalled_since = self._hub.now
        self._pause()

    def resume_writing(self) -> None:
        self.stalled_since = 0.0
        self._go_on()

    def _pause(self) -> None:
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Takes up reading where a stall or a job had stopped it."""
        if self._transport is None or self.stalled_since or self._job is not None:
            return
        if self._later and not self._done:
            self._book_pump()
        elif not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _pump(self) -> None:
        """Parses the next piece of what was received; the rest has to wait for the other
        connections.
        """
        self._pumping = False
        if self._done or self.stalled_since or self._job is not None:
            return
        step = BODY_STEP if self._head_done else HEAD_STEP
        piece = bytes(self._later[:step])
        del self._later[:step]
        self._feed(piece)
        if self._later and not self._done:
            self._pause()
            self._book_pump()
        else:
            self._go_on()

    def _book_pump(self) -> None:
        """Always for a later turn: this one may be inside the parser, which cannot be fed twice at
        once.
        """
        if not self._pumping:
            self._pumping = True
            self._hub.loop.call_soon(self._pump)

    # Going out

    def answered(self, data: bytes, count: int) -> None:
        self.waiting -= count
        if self._transport is not None:
            self._transport.write(data)
            if self._close_after and not self.waiting:
                self._close()

    def job_done(self, data: bytes, mark: int) -> None:
        self._job = None
        if self._transport is not None:
            self._transport.write(data)
            if mark & CLOSE or self._close_after:
                self._close()
            else:
                self._go_on()

    def _send(self, data: bytes, mark: int) -> None:
        """An answer that needs no decision; those asked before it come first."""
        if self._job is not None:
            self._batcher.finish(self._job)
        if self.waiting:
            self._batcher.run()
        if self._transport is not None:
            self._transport.write(data)
            if mark & CLOSE:
                self._close()

    def _refuse(self, what: Problem) -> None:
        """Answers and gives the connection up, but reads on for a while: a reset would take the
        answer with it.
        """
        self._hub.stats.refused += 1
        self._done = True
        self._send(self._hub.answers.problem(what, CLOSE), 0)
        self._reset()
        self._later.clear()
        self.deadline = self._hub.loop.time() + self._limits.linger_s
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
            self._go_on()

    def _finish_reading(self) -> None:
        self._done = True
        if self.waiting or self._job is not None:
            self._close_after = True
        else:
            self._close()

    def _close(self) -> None:
        """Closes when all that was written has been sent."""
        if self._transport is not None:
            self.deadline = self._hub.loop.time() + self._limits.stall_s
            self._transport.close()

    # The clock's side

    def sweep(self, now: float) -> None:
        """Ends what has taken too long."""
        limits = self._limits
        if self.deadline:
            if now > self.deadline:
                self.abort()
        elif self.stalled_since:
            if now - self.stalled_since > limits.stall_s:
                self.abort()
        elif self._job is not None or self.waiting:
            return
        elif self.since and not self._pumping:
            if now - self.since > (limits.body_s if self._head_done else limits.head_s):
                self._hub.stats.timeouts += 1
                self._refuse(problem.REQUEST_TIMEOUT)
        elif now - self.last > limits.idle_s:
            self._close()

    def close_if_idle(self) -> None:
        """For shutdown: what is being received or decided may still finish."""
        if not self.since and not self.waiting and self._job is None and not self.deadline:
            self._close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
