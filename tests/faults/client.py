"""A steady client of the gateway, which keeps what became of each of its requests."""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from decider.contracts import ids
from learning.traffic.tokens import Signer

# Requests a second of all threads together. Chosen: a fault of seconds meets hundreds of requests,
# and a machine of two cores has time for everything else.
RATE = 40.0
# Threads, each with a connection of its own, so that one request without an answer holds up few.
THREADS = 8
# Seconds that a request may take. Chosen: above the half second that the gateway waits here.
PATIENCE_S = 2.0
# Apps. Chosen: each sends less than its plan allows, and both deciders get some.
APPS = 16
PREFIX = "steady-"
PATH = "/v2/orders/1"


class Fate(StrEnum):
    """What became of a request."""

    DECIDED = "decided"
    UNANSWERED = "unanswered"
    UNMARKED = "answered, and neither decided nor marked as unanswered"
    FAILED = "no response"


class Request(NamedTuple):
    """One request and its end."""

    at: float
    """Monotonic seconds of its sending."""
    fate: Fate
    decision: bytes = b""
    """Its decision id, if a decider answered."""
    status: int = 0


@dataclass
class SteadyClient:
    """Threads that send RATE requests a second while they are told to."""

    port: int
    signer: Signer
    requests: list[Request] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _goes: threading.Event = field(default_factory=threading.Event)
    _under_way: set[int] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start the threads, which send nothing before `resume`."""
        self._threads = [
            threading.Thread(target=self._send, args=(k,), daemon=True) for k in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        """Send nothing more, and return once every request has ended."""
        self._goes.clear()
        last = time.monotonic() + 5 * PATIENCE_S
        # a thread may be between the look at the mark and its request
        time.sleep(2 * THREADS / RATE)
        while self._under_way:
            assert time.monotonic() < last, "a request of the client does not end"
            time.sleep(0.02)

    def resume(self) -> None:
        self._goes.set()

    def stop(self) -> None:
        self._stop.set()
        self._goes.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)

    def sent(self, since: float, until: float = float("inf")) -> list[Request]:
        """Return the requests that were sent in a stretch of monotonic time and have ended."""
        return [one for one in list(self.requests) if since <= one.at < until]

    def ask(self, app: str) -> Request:
        """Send one request of an app by itself, which `sent` leaves out."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with closing(line):
            return self._ask(line, app)

    def _send(self, k: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        count = k
        while not self._stop.wait(THREADS / RATE):
            if not self._goes.is_set():
                continue
            self._under_way.add(k)
            self.requests.append(self._ask(line, f"{PREFIX}{count % APPS}"))
            self._under_way.discard(k)
            # the threads' apps differ at any time, and each thread comes by all
            count += 1
        line.close()

    def _ask(self, line: http.client.HTTPConnection, app: str) -> Request:
        at, token = time.monotonic(), self.signer.token(app)
        try:
            line.request("GET", PATH, headers={"authorization": f"Bearer {token}"})
            response = line.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            # the next request connects anew
            line.close()
            return Request(at, Fate.FAILED)
        return _judged(at, response)


def _judged(at: float, response: http.client.HTTPResponse) -> Request:
    text, unasked = response.getheader("sluice-decision"), response.getheader("sluice-unasked")
    decision = ids.parse_decision_id(text or "")
    if decision and not unasked:
        return Request(at, Fate.DECIDED, decision, response.status)
    fate = Fate.UNANSWERED if unasked == "true" and not text else Fate.UNMARKED
    return Request(at, fate, status=response.status)


def share(requests: list[Request], fate: Fate = Fate.DECIDED) -> float:
    """Return which share of the requests met this fate; 0 when there are none."""
    return sum(one.fate is fate for one in requests) / max(1, len(requests))
