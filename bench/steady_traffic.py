"""Checks at a steady rate: `python -m bench.steady_traffic RATE PORT,PORT...`, until it is stopped.

One thread sends small pipelined groups, so that the traffic itself costs little. A decider that
falls behind gets no more requests: those that are due then are left out, not sent later.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

# Apps that ask, requests sent at once, and requests a connection may have open: a decider that
# falls behind is left alone before its socket's buffer is full.
APPS, PIPELINE, MOST_OPEN = 2000, 8, 64
REQUEST = (
    "GET /v1/check/v2/orders/{0} HTTP/1.1\r\nHost: bench\r\nx-sluice-app: app_{0}\r\nauthorization:"
    " Bearer t{0}\r\n\r\n"
)
ANSWER = b"HTTP/1.1 "


class DeciderConnection:
    """One connection to a decider."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.open = 0
        """Requests sent and not answered."""

    def send(self, group: bytes) -> None:
        if self.open + PIPELINE <= MOST_OPEN:
            self.socket.sendall(group)
            self.open += PIPELINE

    def take(self) -> None:
        """Count answers. Raises ConnectionError when the decider closes the connection."""
        # The mark of an answer may be split over two reads and is then not counted. That is rare,
        # and costs one of the MOST_OPEN places.
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("a decider closed its connection")
        self.open = max(0, self.open - data.count(ANSWER))


def send(rate: float, paths: list[str]) -> None:
    """Send `rate` checks a second to the Unix sockets at all paths together, without end.

    Raises ConnectionError when a decider closes its connection.
    """
    groups = [
        "".join(REQUEST.format(g + k) for k in range(PIPELINE)).encode()
        for g in range(0, APPS, PIPELINE)
    ]
    lines, reading = [DeciderConnection(path) for path in paths], selectors.DefaultSelector()
    for line in lines:
        reading.register(line.socket, selectors.EVENT_READ, line)
    sent, began = 0, time.monotonic()
    while True:
        due = int((time.monotonic() - began) * rate / PIPELINE)
        for turn in range(max(sent, due - 4 * len(lines)), due):
            lines[turn % len(lines)].send(groups[turn % len(groups)])
        sent = due
        for key, _ in reading.select(0.001):
            key.data.take()


if __name__ == "__main__":
    send(float(sys.argv[1]), sys.argv[2:])
