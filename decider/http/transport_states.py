"""The states of a connection, the events that move it, and the one table of legal moves.

Rule 1: the state of a connection alone says whether it reads, parses, or may be written to.
`transport.StatefulProtocol` changes its state in one place, by this table; an event the table does
not list is a defect and raises.

Rule 2: this table knows nothing of HTTP. Whether a request is well formed is `connection`'s matter.

A connection can be held up for three reasons: more bytes came than one turn of the event loop may
parse (catching up), a `/v1/decide` body is being decided (deciding), or the client does not read
its answers (stalled). The last two can hold together. The end of a hold-up always leads to catching
up, because bytes may have gathered meanwhile. When there are none, the connection reads on in the
same step.

A connection ends in up to three steps: it drains (answers are still to come), it lingers (it was
refused, and reads on for a moment, because a reset would take the answer with it), and it closes.
"""

from __future__ import annotations

import sys
from enum import StrEnum


class State(StrEnum):
    """What a connection is doing."""

    READING = "reading"
    """Takes in bytes and parses them as they come."""
    CATCHING_UP = "catching up"
    """Holds bytes for a later turn, which is booked."""
    DECIDING = "deciding"
    """Waits for the answer to a `/v1/decide` body."""
    STALLED = "stalled"
    """Waits for the client to read its answers."""
    STALLED_DECIDING = "stalled, deciding"
    DRAINING = "draining"
    """Accepts no request, and owes answers."""
    LINGERING = "lingering"
    """Has sent its last answer, a refusal, and drops what still comes."""
    CLOSING = "closing"
    """The transport sends what is left in its buffer."""
    LOST = "lost"
    """There is no transport."""


class Event(StrEnum):
    """The events that move a connection to another state."""

    BACKLOG = "more came than one turn parses"
    CAUGHT_UP = "all is parsed"
    JOB = "a body goes to the engine"
    JOB_DONE = "the body is answered"
    STALL = "the client stops reading"
    RESUME = "the client reads again"
    LAST = "the last request is accepted"
    REFUSE = "the connection is refused"
    CLOSE = "closed or cut"
    GONE = "the transport is gone"


_ENDS = {
    Event.LAST: State.DRAINING,
    Event.REFUSE: State.LINGERING,
    Event.CLOSE: State.CLOSING,
    Event.GONE: State.LOST,
}
"""How an open state can end while no body is being decided."""

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.READING: {
        Event.BACKLOG: State.CATCHING_UP,
        Event.JOB: State.DECIDING,
        Event.STALL: State.STALLED,
        **_ENDS,
    },
    State.CATCHING_UP: {
        Event.CAUGHT_UP: State.READING,
        Event.JOB: State.DECIDING,
        Event.STALL: State.STALLED,
        **_ENDS,
    },
    # A refusal first finishes the body that is being decided, so these two states have no REFUSE.
    State.DECIDING: {
        Event.JOB_DONE: State.CATCHING_UP,
        Event.STALL: State.STALLED_DECIDING,
        Event.LAST: State.DRAINING,
        Event.CLOSE: State.CLOSING,
        Event.GONE: State.LOST,
    },
    State.STALLED_DECIDING: {
        Event.JOB_DONE: State.STALLED,
        Event.RESUME: State.DECIDING,
        Event.LAST: State.DRAINING,
        Event.CLOSE: State.CLOSING,
        Event.GONE: State.LOST,
    },
    State.STALLED: {
        Event.RESUME: State.CATCHING_UP,
        Event.JOB: State.STALLED_DECIDING,
        **_ENDS,
    },
    State.DRAINING: {
        Event.STALL: State.DRAINING,
        Event.RESUME: State.DRAINING,
        Event.CLOSE: State.CLOSING,
        Event.GONE: State.LOST,
    },
    State.LINGERING: {
        Event.RESUME: State.LINGERING,
        Event.CLOSE: State.CLOSING,
        Event.GONE: State.LOST,
    },
    State.CLOSING: {
        Event.RESUME: State.CLOSING,
        Event.GONE: State.LOST,
    },
    State.LOST: {},
}

OPEN = frozenset(
    (State.READING, State.CATCHING_UP, State.DECIDING, State.STALLED, State.STALLED_DECIDING)
)
"""States in which requests are accepted."""
PAUSED = OPEN - {State.READING}
"""States in which nothing is read. A draining connection leaves reading as it was: it ends within
the turn, or when a body is decided, for which reading was paused already.
"""
ENDED = frozenset((State.CLOSING, State.LOST))
"""States in which nothing may be written."""


class IllegalMoveError(Exception):
    """An event came in a state in which it must not: a defect of the decider."""


def follow(state: State, event: Event) -> State:
    """Return the state that `event` leads to from `state`. Raise IllegalMoveError when the table
    has none.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalMoveError(f"'{event}' must not happen while {state}") from None


def diagram() -> str:
    """Return the table as a Mermaid state diagram. Events with the same two ends share an arrow."""
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{state}" as {state.name}' for state in State]
    lines.append(f"    [*] --> {State.READING.name}")
    for state, moves in TRANSITIONS.items():
        for after in dict.fromkeys(moves.values()):
            events = ", ".join(event for event, target in moves.items() if target is after)
            lines.append(f"    {state.name} --> {after.name}: {events}")
    lines.append(f"    {State.LOST.name} --> [*]")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(diagram())
