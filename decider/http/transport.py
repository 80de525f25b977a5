"""The transport's side of a connection: how it reads, writes and ends.

Limits on time and memory live here: back-pressure both ways, pieces for long reads, deadlines,
orderly closing. The table in `transport_states` says which state may follow which.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import cast

from decider.http import problem
from decider.http.batcher import Job
from decider.http.context import ServerContext
from decider.http.problem import Problem
from decider.http.responses import CLOSE
from decider.http.transport_states import ENDED, OPEN, PAUSED, Event, State, follow

# Bytes of one connection that are parsed in one turn while a head comes in. Less than for a body:
# 8 KiB can hold dozens of pipelined checks, and each costs more than copying a body.
HEAD_STEP = 8 * 1024
# Bytes of one connection that are parsed in one turn, so that none keeps the others waiting.
BODY_STEP = 64 * 1024

READING, CATCHING_UP, DRAINING = State.READING, State.CATCHING_UP, State.DRAINING
_MAY_BE_IDLE = frozenset((READING, CATCHING_UP, State.STALLED))
_OWN_DEADLINE = frozenset((State.LINGERING, State.CLOSING))
"""States whose deadline a stall neither sets nor lifts."""


class StatefulProtocol(asyncio.Protocol, ABC):
    """A connection without HTTP's grammar, which `connection.Connection` adds."""

    __slots__ = (
        "_batcher",
        "_context",
        "_head_done",
        "_job",
        "_later",
        "_limits",
        "_transport",
        "_turn",
        "deadline",
        "last",
        "since",
        "state",
        "waiting",
    )

    _transport: asyncio.Transport  # there until the connection is lost

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._limits = context.limits
        self._batcher = context.batcher
        self.state = READING
        self._job: Job | None = None
        self._later = bytearray()  # received, to be parsed in a later turn
        self._turn: asyncio.Handle | None = None  # that turn; booked only while catching up
        self.waiting = 0
        self.last = context.now
        """Loop time at which bytes last came."""
        self.since = 0.0
        """Loop time at which the request being received began; 0 between requests."""
        self.deadline = 0.0
        """Loop time at which the connection is cut unless its state changes; 0 for no deadline."""
        self._head_done = False  # the request being received has all its header fields

    @abstractmethod
    def _feed(self, data: bytes) -> None:
        """Parse the next bytes."""

    @abstractmethod
    def _reset(self) -> None:
        """Forget the request being received."""

    def _move(self, event: Event) -> None:
        """Move to the state that the table names, and make reading and the booked turn follow it.
        Raise IllegalMoveError where the table has no such move.
        """
        before, after = self.state, follow(self.state, event)
        self.state = after
        if self._turn is not None and after is not CATCHING_UP:
            self._turn.cancel()
            self._turn = None
        if after not in OPEN:
            self._later.clear()
            if after is not State.LINGERING:
                return  # a draining connection leaves reading as it was; the others have ended
        pause = after in PAUSED
        if pause is not (before in PAUSED) and not self._transport.is_closing():
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # Coming in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            asyncio.Transport, transport
        )  # uvloop's own class, which derives from neither
        context, most = self._context, self._limits.connections
        context.connections.add(self)
        self._batcher.accept()
        if context.stopping or len(context.connections) > most:
            context.stats.turned_away += 1
            self._refuse(
                problem.too_busy(
                    "This decider has as many connections as it may have; try again in a second."
                )
            )

    def connection_lost(self, error: Exception | None) -> None:
        self._move(Event.GONE)
        self._context.connections.discard(self)
        if self._job is not None:
            self._batcher.drop(self._job)
        self._reset()
        self._job = None
        del self._transport

    def _receive(self, data: bytes) -> None:
        """Parse or store bytes that the fast path did not take as a plain check."""
        if self.state is READING and len(data) <= HEAD_STEP:
            self._feed(data)
        else:
            self._later += data
            if self.state is READING:
                self._parse_piece()

    def eof_received(self) -> bool:
        """Return whether to stay open: a client may stop sending and still want its answers."""
        if self.waiting or self._job is not None:
            if self.state in OPEN:
                self._move(Event.LAST)
            return self.state is DRAINING
        if self.state in OPEN:
            self.deadline = self._context.loop.time() + self._limits.stall_s
        if self.state not in ENDED:
            self._move(Event.CLOSE)  # the transport closes itself on False
        return False

    def pause_writing(self) -> None:
        if self.state not in _OWN_DEADLINE:
            self.deadline = self._context.now + self._limits.stall_s
        self._move(Event.STALL)

    def resume_writing(self) -> None:
        if self.state not in _OWN_DEADLINE:
            self.deadline = 0.0
        self._move(Event.RESUME)
        self._go_on()

    def _go_on(self) -> None:
        """Book the next turn while bytes are left, or read on. Does nothing while held up."""
        if self._later:
            if self.state is READING:
                self._move(Event.BACKLOG)
            if self.state is CATCHING_UP and self._turn is None:
                # A later turn, always: this one may be inside the parser, which cannot be fed
                # twice at once.
                self._turn = self._context.loop.call_soon(self._catch_up)
        elif self.state is CATCHING_UP:
            self._move(Event.CAUGHT_UP)

    def _catch_up(self) -> None:
        self._turn = None
        self._parse_piece()

    def _parse_piece(self) -> None:
        """Parse the next piece of the bytes received; the rest waits until other connections had a
        turn.
        """
        step = BODY_STEP if self._head_done else HEAD_STEP
        piece = bytes(self._later[:step])
        del self._later[:step]
        self._feed(piece)
        self._go_on()

    # Going out

    def answered(self, data: bytes, count: int) -> None:
        self.waiting -= count
        if self.state is READING:
            self._transport.write(data)
        elif self.state not in ENDED:
            self._transport.write(data)
            self._close_when_drained()

    def job_done(self, data: bytes, mark: int) -> None:
        self._job = None
        if self.state in ENDED:
            return
        self._transport.write(data)
        if self.state in OPEN:
            self._move(Event.JOB_DONE)
            self._go_on()
        else:
            self._close_when_drained()

    def _close_when_drained(self) -> None:
        if self.state is DRAINING and not self.waiting and self._job is None:
            self._close()

    def _send(self, data: bytes, mark: int) -> None:
        """Send an answer that needs no decision, after the answers to all requests before it."""
        if self._job is not None:
            self._batcher.finish(self._job)
        if self.waiting:
            self._batcher.run()
        if self.state not in ENDED:
            self._transport.write(data)
            if mark & CLOSE:
                self._close()

    def _refuse(self, what: Problem) -> None:
        """Send a problem and give the connection up, but read on for a while: a reset would destroy
        the answer on its way. Bytes after a connection's last request get no answer, so they are
        not refused either.
        """
        if self.state not in OPEN:
            return
        self._context.stats.refused += 1
        self._send(self._context.answers.problem(what, CLOSE), 0)
        self._reset()
        self._move(Event.REFUSE)
        self.deadline = self._context.loop.time() + self._limits.linger_s
        if not self._transport.is_closing():
            self._transport.write_eof()

    def _finish_reading(self) -> None:
        if self.state in OPEN:
            if self.waiting or self._job is not None:
                self._move(Event.LAST)
            else:
                self._close()

    def _close(self) -> None:
        """Close when all that was written has been sent."""
        if self.state not in ENDED:
            self._move(Event.CLOSE)
            self.deadline = self._context.loop.time() + self._limits.stall_s
            self._transport.close()

    # The clock's side

    def sweep(self, now: float) -> None:
        """End the connection, or refuse its request, when a time limit has passed. `now`: loop
        time.
        """
        limits = self._limits
        if self.deadline:
            if now > self.deadline:
                self.abort()
        elif self.state is not READING or self.waiting:
            return
        elif self.since:
            if now - self.since > (limits.body_s if self._head_done else limits.head_s):
                self._context.stats.timeouts += 1
                self._refuse(problem.REQUEST_TIMEOUT)
        elif now - self.last > limits.idle_s:
            self._close()

    def close_if_idle(self) -> None:
        """Close for shutdown, unless something is being received or decided, which may finish."""
        if self.state in _MAY_BE_IDLE and not self.since and not self.waiting:
            self._close()

    def abort(self) -> None:
        """Cut the connection."""
        if self.state is State.LOST:
            return
        if self.state is not State.CLOSING:
            self._move(Event.CLOSE)
        self._transport.abort()
