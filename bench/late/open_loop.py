"""Checks sent at fixed times, whatever becomes of those before (an open loop), in compiled code.

Each check has its intended time, and its latency counts from there: a server that stalls is charged
for all that it kept waiting. A connection has one check open, as a gateway's has; a check for which
no connection is free waits, and its time runs.
"""

from __future__ import annotations

import ctypes
import math
import select
import socket
from typing import Any, NamedTuple

import numpy as np
from numba import njit

# Latencies are told apart in steps of 10 us up to 200 ms; longer ones share the last place.
STEP_NS, STEPS = 10_000, 20_000
# Bytes of one read: an answer and more.
READ = 4096
# Seconds after the last check in which answers are still awaited.
LINGER_S = 0.5
# Linux's numbers: CLOCK_MONOTONIC, MSG_DONTWAIT | MSG_NOSIGNAL, and the bytes of an epoll_event.
CLOCK, FLAGS, EVENT = 1, 0x4040, 12
# Events of one look for answers.
EVENTS = 512
# Longest sleep of the sender, and how long before a send it wakes up, as the system is slow to.
TURN_NS, WAKE_NS = 1_000_000, 60_000

_libc = ctypes.CDLL(None)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = getattr(_libc, name)
    found.restype, found.argtypes = result, arguments
    return found


_int, _long, _address = ctypes.c_int, ctypes.c_long, ctypes.c_void_p
_send = _function("send", _long, _int, _address, _long, _int)
_recv = _function("recv", _long, _int, _address, _long, _int)
_wait = _function("epoll_pwait2", _int, _int, _address, _int, _address, _address)
_clock = _function("clock_gettime", _int, _int, _address)


class OpenResult(NamedTuple):
    """What became of the checks of one run."""

    sent: int
    within: float
    """Share of all that were decided within the time asked for, 0 to 1."""
    p99_ms: float
    """Of all checks, those without a decision counted as endless; 200 stands for 200 and more."""
    late: float
    """Share that was decided and marked late, 0 to 1."""
    undecided: float
    """Share that was answered without a decision, 0 to 1."""
    unanswered: int
    late_sends_ms: float
    """Longest time after its own at which a check was sent, ms: the sender was late, or no
    connection was free.
    """
    unasked: int
    """Answers of a gateway with no decider behind them."""


@njit
def _now(spec: np.ndarray) -> int:
    _clock(CLOCK, spec.ctypes.data)
    ns: int = spec[0] * 1_000_000_000 + spec[1]
    return ns


@njit
def _drive(
    poller: int,
    sockets: np.ndarray,
    texts: np.ndarray,
    starts: np.ndarray,
    gap_ns: float,
    count: int,
    linger_ns: int,
    found: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Send `count` checks, one each `gap_ns`, and count answers.

    `found`: latencies of decided checks by step. `totals`: answered, late, undecided, largest
    delay of a send in ns, unasked. `sockets` by connection; an event's data is the connection's
    number.
    """
    spec, data, pause = np.zeros(2, np.int64), np.zeros(READ, np.uint8), np.zeros(2, np.int64)
    events = np.zeros(EVENTS * EVENT, np.uint8)
    due = np.zeros(len(sockets), np.int64)
    free = np.arange(len(sockets))
    left, sent, began = len(sockets), 0, _now(spec)
    end = began + int(gap_ns * count) + linger_ns
    now = began
    while totals[0] < count and now < end:
        now = _now(spec)
        while left > 0 and sent < count and began + int(sent * gap_ns) <= now:
            left -= 1
            line = free[left]
            due[line] = began + int(sent * gap_ns)
            text = sent % (len(starts) - 1)
            size = starts[text + 1] - starts[text]
            _send(sockets[line], texts.ctypes.data + starts[text], size, FLAGS)
            totals[3] = max(totals[3], now - due[line])
            sent += 1
        # it sleeps until the next one is due: a busy sender would take the time it measures
        due_in = began + int(sent * gap_ns) - _now(spec) if sent < count else TURN_NS
        pause[1] = min(max(0, due_in - WAKE_NS), TURN_NS)
        ready = _wait(poller, events.ctypes.data, EVENTS, pause.ctypes.data, 0)
        for k in range(ready):
            line = events[k * EVENT + 4] | (np.int64(events[k * EVENT + 5]) << 8)
            size = _recv(sockets[line], data.ctypes.data, READ, FLAGS)
            # the rest of a body that came in pieces, or none
            if size <= 0 or due[line] == 0 or not _begins(data, size):
                continue
            kind = _kind(data, size)
            took = (_now(spec) - due[line]) // STEP_NS
            totals[0] += 1
            totals[1] += kind == 1
            totals[2] += kind == 2
            totals[4] += kind == 3
            if kind != 2:
                found[min(took, STEPS - 1)] += 1
            due[line], free[left] = 0, line
            left += 1


@njit
def _begins(data: np.ndarray, size: int) -> bool:
    """Return whether an answer begins in the first `size` bytes ("HTTP/1.1 ")."""
    for at in range(size - 8):
        if data[at] == 72 and data[at + 1] == 84 and data[at + 4] == 47 and data[at + 8] == 32:
            return True
    return False


@njit
def _kind(data: np.ndarray, size: int) -> int:
    """Return 0 for a decision, 1 for one that is marked late, 3 for a gateway's answer that no
    decider was behind, and 2 for any other answer without a decision.
    """
    late, decided, unasked = False, False, False
    for at in range(12, size - 12):
        # "\nsluice-l", "\nsluice-d" and "\nsluice-u"
        if data[at] == 10 and data[at + 1] == 115 and data[at + 7] == 45:
            late |= data[at + 8] == 108
            decided |= data[at + 8] == 100
            unasked |= data[at + 8] == 117
    if unasked:
        return 3
    return 2 if not decided else 1 if late else 0


def run(
    port: int,
    rate: float,
    seconds: float,
    texts: list[bytes],
    connections: int,
    within_ms: float,
    linger_s: float = LINGER_S,
) -> OpenResult:
    """Send `rate` checks a second, in turns those of `texts`, over so many connections.

    Wait for the answers at most `linger_s` longer.
    """
    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    with select.epoll() as poller:
        for number, line in enumerate(lines):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _register(poller.fileno(), line.fileno(), number)
        count = int(rate * seconds)
        found, totals = np.zeros(STEPS, np.int64), np.zeros(5, np.int64)
        sockets = np.array([line.fileno() for line in lines], np.int32)
        starts = np.cumsum([0, *(len(text) for text in texts)])
        data, linger_ns = np.frombuffer(b"".join(texts), np.uint8), int(linger_s * 1e9)
        _drive(
            *(poller.fileno(), sockets, data, starts, 1e9 / rate, count, linger_ns, found, totals)
        )
    for line in lines:
        line.close()
    return _result(count, found, totals, within_ms)


def _register(poller: int, descriptor: int, number: int) -> None:
    """Have epoll tell the connection's number: Python's own object tells the descriptor."""
    event = (1).to_bytes(4, "little") + number.to_bytes(8, "little")
    add = 1  # EPOLL_CTL_ADD
    if _function("epoll_ctl", _int, _int, _int, _int, ctypes.c_char_p)(
        poller, add, descriptor, event
    ):
        raise OSError("a connection cannot be watched")


def _result(count: int, found: np.ndarray, totals: np.ndarray, within_ms: float) -> OpenResult:
    sums = np.cumsum(found)
    at = int(np.searchsorted(sums, math.ceil(0.99 * count)))
    step_ms = STEP_NS / 1e6
    return OpenResult(
        count,
        float(sums[int(within_ms / step_ms) - 1]) / count,
        min(at + 1, STEPS) * step_ms,
        totals[1] / count,
        totals[2] / count,
        int(count - totals[0]),
        totals[3] / 1e6,
        int(totals[4]),
    )
