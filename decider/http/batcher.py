"""The batcher: all checks that arrive in one turn of the event loop go to the engine together.

No request waits for a batch to fill. A batch is what one turn brought, so a lone request is decided
at once, and 64 busy connections share one call. Large `/v1/decide` bodies go to the engine in
slices between turns, so that checks overtake them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from decider.contracts.requests import CheckRequest, Decision
from decider.http import decide_api
from decider.http.problem import INTERNAL
from decider.http.responses import CLOSE, Answers

# Requests the engine gets in one call. Chosen: large enough that the cost of a call hardly shows
# per request, and small enough to hold the event loop for about a millisecond (256 at about 3 us).
MAX_BATCH = 256

log = logging.getLogger(__name__)


class Decides(Protocol):
    """The part of the engine that the batcher uses."""

    def decide(
        self, requests: Sequence[CheckRequest], now: float | None = None
    ) -> list[Decision]: ...


class Owner(Protocol):
    """A connection that waits for answers."""

    waiting: int

    def answered(self, data: bytes, count: int) -> None:
        """Write `count` answers, joined in the order asked."""

    def job_done(self, data: bytes, mark: int) -> None:
        """Write the answer to the connection's job; `mark` is CLOSE when it is the last answer,
        else 0.
        """


class Stats(msgspec.Struct):
    """Counts since the start of the process."""

    decided: int = 0
    batches: int = 0
    failed: int = 0
    """Requests answered 500 because the engine raised."""
    refused: int = 0
    """Requests answered with a problem before they reached the engine."""
    timeouts: int = 0
    turned_away: int = 0
    """Connections that were refused because there were too many, or because the server was
    stopping.
    """


class Job:
    """A `/v1/decide` body on its way through the engine."""

    __slots__ = ("answers", "form", "mark", "owner", "requests")

    def __init__(
        self, owner: Owner, requests: Sequence[CheckRequest], form: decide_api.Form, mark: int
    ) -> None:
        self.owner = owner
        self.requests = requests
        self.form = form
        self.mark = mark
        self.answers: list[decide_api.DecideAnswer] = []


class Batcher:
    """Queue of checks and jobs. One per server; everything runs on the event loop's thread."""

    def __init__(
        self, engine: Decides, answers: Answers, stats: Stats, on_decided: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._answers = answers
        self._stats = stats
        self._on_decided = on_decided
        self._loop = asyncio.get_running_loop()
        self._requests: list[CheckRequest] = []
        self._owners: list[Owner] = []
        self._marks: list[int] = []
        self._jobs: deque[Job] = deque()
        self._logged_at = -1.0  # before any loop time, so that the first failure is logged

    def add(self, owner: Owner, request: CheckRequest, mark: int) -> None:
        """Queue a check for the end of this turn."""
        # Three lists and no tuple per check: this runs once per request.
        if not self._requests:
            self._loop.call_soon(self.run)
        self._requests.append(request)
        self._owners.append(owner)
        self._marks.append(mark)
        owner.waiting += 1

    def run(self) -> None:
        """Decide and answer all queued checks. Connections also call this before they send an
        answer that needs no decision, so that answers leave in the order of their requests.
        """
        requests, owners, marks = self._requests, self._owners, self._marks
        if not requests:
            return
        # New lists first: delivering answers may lead a connection to queue the next checks.
        self._requests, self._owners, self._marks = [], [], []
        if len(requests) <= MAX_BATCH:
            self._deliver(owners, self._texts(requests, marks))
            return
        for start in range(0, len(requests), MAX_BATCH):
            part = slice(start, start + MAX_BATCH)
            self._deliver(owners[part], self._texts(requests[part], marks[part]))

    def _texts(self, requests: list[CheckRequest], marks: list[int]) -> list[str]:
        """Return one response per request. When the engine fails, each is a 500, which gateways
        treat by their own failure policy.
        """
        try:
            decisions = self._engine.decide(requests)
            render = self._answers.check
            texts = [
                render(decision, mark, request.app)
                for decision, mark, request in zip(decisions, marks, requests, strict=True)
            ]
        except Exception:  # noqa: BLE001 - whatever the engine raises, the connections need an answer
            self._failed(len(requests))
            return [self._answers.problem(INTERNAL, mark).decode("ascii") for mark in marks]
        self._decided(len(requests))
        return texts

    def _decided(self, count: int) -> None:
        self._stats.decided += count
        self._stats.batches += 1
        self._on_decided()

    def _failed(self, count: int) -> None:
        """Count every failed request, and log at most one failure a second, so that a broken engine
        does not fill the disk as well.
        """
        self._stats.failed += count
        if (now := self._loop.time()) - self._logged_at >= 1.0:
            self._logged_at = now
            log.exception(
                "the engine failed to decide %d requests, %d so far", count, self._stats.failed
            )

    @staticmethod
    def _deliver(owners: list[Owner], texts: list[str]) -> None:
        """Join neighbouring answers of one connection into one write, which is one system call."""
        end = len(owners)
        start = 0
        while start < end:
            owner, stop = owners[start], start + 1
            while stop < end and owners[stop] is owner:
                stop += 1
            text = texts[start] if stop == start + 1 else "".join(texts[start:stop])
            owner.answered(text.encode("ascii"), stop - start)
            start = stop

    def start(self, job: Job) -> None:
        """Queue a job. It is decided slice by slice, and its owner gets one answer at the end."""
        if not self._jobs:
            self._loop.call_soon(self._next_slice)
        self._jobs.append(job)

    def finish(self, job: Job) -> None:
        """Decide the rest of a job now, because its connection has asked for more."""
        while job in self._jobs:
            self._slice(job)

    def drop(self, job: Job) -> None:
        """Forget a job whose connection is gone."""
        if job in self._jobs:
            self._jobs.remove(job)

    def _next_slice(self) -> None:
        if self._jobs:
            self._slice(self._jobs[0])
        if self._jobs:
            # Jobs take turns, so that a small body does not wait for a large one.
            self._jobs.rotate(-1)
            self._loop.call_soon(self._next_slice)

    def _slice(self, job: Job) -> None:
        start = len(job.answers)
        part = job.requests[start : start + MAX_BATCH]
        try:
            job.answers += decide_api.answers(self._engine.decide(part))
        except Exception:  # noqa: BLE001 - as for checks
            self._failed(len(part))
            self._jobs.remove(job)
            job.owner.job_done(self._answers.problem(INTERNAL, job.mark), job.mark & CLOSE)
            return
        self._decided(len(part))
        if len(job.answers) >= len(job.requests):
            self._jobs.remove(job)
            body = job.form.encode(decide_api.DecideReply(job.answers))
            job.owner.job_done(
                self._answers.document(200, job.form.content_type, body, job.mark), job.mark & CLOSE
            )
