"""A connection moves by its table, whatever the order of events, and answers what it accepted."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from decider.http import transport as channel_module
from decider.http import transport_states
from decider.http.batcher import Batcher, Stats
from decider.http.connection import Connection
from decider.http.context import Limits, ServerContext
from decider.http.fast_path import END, PlainReader
from decider.http.pace import Pace
from decider.http.responses import Answers
from decider.http.transport_states import ENDED, OPEN, PAUSED, TRANSITIONS, Event, State
from tests.decider.http_client import FakeEngine, parse, request

DOCS = Path(__file__).parents[2] / "docs" / "transport.md"
LIMITS = Limits(head=2048, url=512, headers=20, body=1000, decide_body=60_000, outstanding=4)
ONE = {"app": "app_1", "method": "GET", "path": "/x"}


def decide(count: int, **headers: str) -> bytes:
    """A body of `count` requests; more than 256 take several turns."""
    body = msgspec.json.encode({"requests": [ONE] * count})
    return request("POST", "/v1/decide", body, content_type="application/json", **headers)


REQUESTS = {
    "check": request(),
    "five checks": request() * 5,
    "check with an id": request("POST", x_request_id="r1"),
    "check without an app": request(x_sluice_app=""),
    "last check": request(connection="close"),
    "healthz": request(target="/healthz"),
    "upgrade": request(upgrade="h2c", connection="upgrade"),
    "check with a body": request("POST", body=b"body"),
    "long address": request(target="/v1/check/" + "p" * 600),
    "expect": request(expect="100-continue", content_length="2") + b"ok",
    "tunnel": b"CONNECT decider:443 HTTP/1.1\r\nhost: decider\r\n\r\n",
    "nonsense": b"nonsense\r\n\r\n",
    "decide 1": decide(1),
    "last decide 1": decide(1, connection="close"),
    "decide 300": decide(300),
    "last decide 600": decide(600, connection="close"),
}

PARTS = st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=6)
RARELY = st.sampled_from([False] * 9 + [True])
"""For what ends a walk: were it common, no walk would come far."""


class Turn:
    """A call booked on the loop."""

    def __init__(self, call: Callable[..., object], args: tuple[object, ...]) -> None:
        self.call = call
        self.args = args
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """An event loop whose turns and clock the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.booked: list[Turn] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[..., object], *args: object) -> Turn:
        self.booked.append(Turn(call, args))
        return self.booked[-1]

    def turn(self) -> None:
        booked, self.booked = self.booked, []
        for each in booked:
            if not each.cancelled:
                each.call(*each.args)


class Wire:
    """The transport of one connection, as strict as an event loop's."""

    def __init__(self, owner: Connection, loop: Loop) -> None:
        self.written = b""
        self.reading = True
        self.closing = self.lost = self.half_closed = self.full = self.stalled = False
        self._owner = owner
        self._loop = loop

    def write(self, data: bytes) -> None:
        assert not self.closing, "wrote after close"
        assert not self.half_closed, "wrote after the end of the answers"
        self.written += data
        if self.full and not self.stalled:
            self.stalled = True
            self._owner.pause_writing()  # as the event loop does: inside of write

    def drain(self) -> None:
        self.full = False
        if self.stalled:
            self.stalled = False
            self._owner.resume_writing()
            if self.closing:
                self._loop.call_soon(self.lose)

    def lose(self) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self._owner.connection_lost(None)

    def close(self) -> None:
        assert not self.closing, "closed twice"
        self.closing = True
        if not self.stalled:  # else once the buffer is empty
            self._loop.call_soon(self.lose)

    def abort(self) -> None:
        self.closing = True
        self._loop.call_soon(self.lose)

    def is_closing(self) -> bool:
        return self.closing

    def write_eof(self) -> None:
        self.half_closed = True

    def pause_reading(self) -> None:
        assert self.reading and not self.closing
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading and not self.closing
        self.reading = True


class CountingBatcher(Batcher):
    """Counts what connections ask."""

    accepted = 0

    def add(self, owner, request, mark) -> None:
        self.accepted += 1
        super().add(owner, request, mark)

    def start(self, job) -> None:
        self.accepted += len(job.requests)
        super().start(job)


class Walk(RuleBasedStateMachine):
    """One connection under random events."""

    def __init__(self) -> None:
        super().__init__()
        self.loop, self.engine, stats = Loop(), FakeEngine(), Stats()
        with mock.patch.object(asyncio, "get_running_loop", return_value=self.loop):
            answers = Answers(0.0)
            self.batcher = CountingBatcher(self.engine, answers, stats, lambda: None, Pace(60.0))
            self.context = ServerContext(
                self.batcher, answers, stats, LIMITS, lambda: {"config_version": 1}, lambda: b""
            )
        self.context.plain = PlainReader(LIMITS.headers)
        for at, known in enumerate(each for each in REQUESTS.values() if each.endswith(END)):
            self.context.plain.learn(known, float(at))
        self.one = Connection(self.context)
        self.wire = Wire(self.one, self.loop)
        self.sent = b""
        self.eof = self.cut = False
        self.one.connection_made(self.wire)  # type: ignore[arg-type]

    def teardown(self) -> None:
        """Let the client read and the loop turn until nothing moves; then count."""
        for _ in range(50):
            if not self.wire.lost:
                self.wire.drain()
            self.loop.turn()
            self.keeps_its_invariants()
        assert self.one.state in (State.READING, State.LINGERING, State.LOST)
        assert (self.one.waiting, self.one._job, self.loop.booked) == (0, None, [])
        text = self.wire.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        told = [int(n, 16) for n in re.findall(rb"dec_([0-9a-f]{32})", text)]
        assert told == list(range(len(told))), "answers are missing, doubled or out of order"
        assert len(told) <= self.batcher.accepted
        if not self.cut:
            assert len(told) == self.batcher.accepted
        assert b" 500 " not in text
        parse(text)

    # What may happen

    @rule(parts=PARTS)
    def send(self, parts: list[str]) -> None:
        """The client sends; the bytes arrive by `receive`."""
        self.sent += b"".join(REQUESTS[part] for part in parts)

    @precondition(lambda self: self.sent and self._can_receive())
    @rule(size=st.sampled_from([1, 100, 190, 1000, 8192, 60_000, 200_000]))
    def receive(self, size: int) -> None:
        piece, self.sent = self.sent[:size], self.sent[size:]
        self.one.data_received(piece)

    @precondition(lambda self: self._can_receive())
    @rule(really=RARELY)
    def end(self, really: bool) -> None:
        if not really:
            return
        self.eof = True
        if not self.one.eof_received() and not self.wire.closing:
            self.wire.close()

    @rule()
    def turn(self) -> None:
        self.loop.turn()

    @rule()
    def stop_reading(self) -> None:
        """The client stops reading: the next answer fills the buffer."""
        self.wire.full = self.wire.full or not self.wire.closing

    @rule()
    def read_on(self) -> None:
        if not self.wire.lost:
            self.wire.drain()

    @rule(seconds=st.sampled_from([0.5, 0.5, 0.5, 0.5, 3.0, 6.0, 11.0, 80.0]))
    def sweep(self, seconds: float) -> None:
        self.loop.now += seconds
        self.context.now = self.loop.now
        if self.one in self.context.connections:
            cut = not self.wire.closing and 0.0 < self.one.deadline < self.loop.now
            self.cut = self.cut or cut
            self.one.sweep(self.loop.now)

    @rule(really=RARELY)
    def shut_down(self, really: bool) -> None:
        if really:
            self.context.stop()
            self.one.close_if_idle()

    @rule(parts=PARTS)
    def send_all_and_read_nothing(self, parts: list[str]) -> None:
        """What a busy client does; most hold-ups begin so."""
        self.send(parts)
        self.stop_reading()
        if self._can_receive():
            self.receive(len(self.sent))

    @rule(really=RARELY)
    def cut_off(self, really: bool) -> None:
        """The server stops and waits no longer."""
        if really and not self.wire.lost:
            self.cut = True
            self.one.abort()

    @precondition(lambda self: not self.wire.lost)
    @rule(really=RARELY)
    def lose(self, really: bool) -> None:
        if really:
            self.cut = True
            self.wire.lose()

    def _can_receive(self) -> bool:
        return self.wire.reading and not self.wire.closing and not self.eof

    # What must hold

    @invariant()
    def keeps_its_invariants(self) -> None:
        state, one = self.one.state, self.one
        assert (state in ENDED) == self.wire.closing
        assert (state is State.LOST) == self.wire.lost == (one not in self.context.connections)
        if state in OPEN or state is State.LINGERING:
            assert self.wire.reading is (state not in PAUSED)
        live = [t for t in self.loop.booked if t.call == one._catch_up and not t.cancelled]
        assert live == ([one._turn] if state is State.CATCHING_UP else [])
        assert (one._turn is not None) == (state is State.CATCHING_UP)
        assert bool(one._later) <= (state in PAUSED)
        assert not (one._job is not None and state in (State.READING, State.LINGERING))
        if state in (State.STALLED, State.STALLED_DECIDING, State.LINGERING):
            assert one.deadline > 0.0
        if state is State.CLOSING:
            assert one.deadline > 0.0 or self.cut  # what is cut is gone a turn later
        if state in (State.READING, State.CATCHING_UP, State.DECIDING):
            assert one.deadline == 0.0


@contextmanager
def moves_followed() -> Iterator[set[tuple[State, Event]]]:
    """Collect the moves that connections take, with pieces so small that a few kilobytes are a
    backlog.
    """
    taken: set[tuple[State, Event]] = set()

    def follow(state: State, event: Event) -> State:
        taken.add((state, event))
        return transport_states.follow(state, event)

    with (
        mock.patch.object(channel_module, "follow", follow),
        mock.patch.object(channel_module, "HEAD_STEP", 1000),
        mock.patch.object(channel_module, "BODY_STEP", 5000),
    ):
        yield taken


BACKLOG = ["five checks"] * 6
ANSWER = "check without an app"  # answered within the parser, so a full buffer stalls at once
WAYS: dict[State, tuple[bool, list[str]]] = {
    State.READING: (True, []),
    State.CATCHING_UP: (True, BACKLOG),
    State.DECIDING: (True, ["decide 1"]),
    State.STALLED: (False, [ANSWER]),
    State.STALLED_DECIDING: (False, [ANSWER, "decide 1"]),
    State.DRAINING: (True, ["last check"]),
    State.LINGERING: (True, ["nonsense"]),
    State.CLOSING: (True, ["tunnel"]),
}
"""What leads to a state: whether the client reads its answers, and what it sends."""


def turns(walk: Walk) -> None:
    for _ in range(12):
        walk.turn()


def stalls(walk: Walk) -> None:
    walk.stop_reading()
    turns(walk)


def closes_then_reads(walk: Walk) -> None:
    walk.shut_down(True)
    walk.read_on()


LEADS: dict[tuple[State, Event], tuple[bool, list[str], Callable[[Walk], None]]] = {
    (State.READING, Event.BACKLOG): (True, BACKLOG, turns),
    (State.READING, Event.JOB): (True, ["decide 1"], turns),
    (State.READING, Event.STALL): (False, [ANSWER], turns),
    (State.READING, Event.LAST): (True, ["last check"], turns),
    (State.READING, Event.REFUSE): (True, ["nonsense"], turns),
    (State.CATCHING_UP, Event.CAUGHT_UP): (True, BACKLOG, turns),
    (State.CATCHING_UP, Event.JOB): (True, [*BACKLOG, "decide 1"], turns),
    (State.CATCHING_UP, Event.STALL): (True, BACKLOG, stalls),
    (State.CATCHING_UP, Event.LAST): (True, [*BACKLOG, "last check"], turns),
    (State.CATCHING_UP, Event.REFUSE): (True, [*BACKLOG, "nonsense"], turns),
    (State.DECIDING, Event.JOB_DONE): (True, ["decide 1"], turns),
    (State.DECIDING, Event.STALL): (False, ["decide 1"], turns),
    (State.DECIDING, Event.LAST): (True, ["last decide 1"], turns),
    (State.STALLED_DECIDING, Event.JOB_DONE): (False, [ANSWER, "decide 1"], turns),
    (State.STALLED_DECIDING, Event.RESUME): (False, [ANSWER, "decide 1"], Walk.read_on),
    (State.STALLED_DECIDING, Event.LAST): (False, [ANSWER, "last decide 1"], turns),
    (State.STALLED, Event.RESUME): (False, [ANSWER], Walk.read_on),
    (State.STALLED, Event.JOB): (False, [ANSWER, "decide 1"], turns),
    (State.STALLED, Event.LAST): (False, [ANSWER, "last check"], turns),
    (State.STALLED, Event.REFUSE): (False, [ANSWER, "nonsense"], turns),
    (State.DRAINING, Event.STALL): (True, ["last check"], stalls),
    (State.DRAINING, Event.RESUME): (False, [ANSWER, "last decide 1"], Walk.read_on),
    (State.LINGERING, Event.RESUME): (False, ["nonsense"], Walk.read_on),
    (State.CLOSING, Event.RESUME): (False, [ANSWER], closes_then_reads),
}
"""What makes a connection take a move. A connection can be cut and lost in every state."""
for _state, (_reads, _parts) in WAYS.items():
    LEADS[_state, Event.GONE] = (_reads, _parts, lambda walk: walk.lose(True))
    if _state is not State.CLOSING:
        LEADS[_state, Event.CLOSE] = (_reads, _parts, lambda walk: walk.cut_off(True))


def test_no_move_of_the_table_is_left_out_below() -> None:
    assert set(LEADS) == {(state, event) for state, moves in TRANSITIONS.items() for event in moves}


@pytest.mark.parametrize("move", LEADS, ids=lambda move: f"{move[0].name}-{move[1].name}")
def test_each_move_of_the_table_is_taken(move: tuple[State, Event]) -> None:
    reads, parts, act = LEADS[move]
    walk = Walk()
    with moves_followed() as taken:
        if reads:
            walk.send(parts)
            walk.receive(len(walk.sent))
        else:
            walk.send_all_and_read_nothing(parts)
        if move[1] in (Event.CLOSE, Event.GONE):
            assert walk.one.state is move[0]
        walk.keeps_its_invariants()
        act(walk)
        walk.keeps_its_invariants()
        walk.teardown()
    assert move in taken


def test_a_body_answered_while_a_piece_is_parsed_books_one_turn() -> None:
    walk = Walk()
    with moves_followed():
        walk.send(["decide 1", *BACKLOG])
        walk.receive(len(walk.sent))
        walk.keeps_its_invariants()
        walk.teardown()


def test_any_order_of_events_makes_legal_moves_and_answers_each_request_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR), moves_followed():
        run_state_machine_as_test(
            Walk, settings=settings(max_examples=200, stateful_step_count=40, deadline=None)
        )
    assert caplog.records == []  # a defect inside a parser's callback is logged, not raised


def test_an_event_the_table_does_not_list_raises() -> None:
    for state, event in itertools.product(State, Event):
        if event in TRANSITIONS[state]:
            assert transport_states.follow(state, event) is TRANSITIONS[state][event]
        else:
            with pytest.raises(transport_states.IllegalMoveError):
                transport_states.follow(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    reached, edge = {State.READING}, [State.READING]
    while edge:
        edge = [n for s in edge for n in TRANSITIONS[s].values() if n not in reached]
        reached.update(edge)
    assert reached == set(State)
    assert [s for s in State if Event.GONE not in TRANSITIONS[s]] == [State.LOST]


def test_the_documents_diagram_is_drawn_from_the_table() -> None:
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert drawn == transport_states.diagram()
