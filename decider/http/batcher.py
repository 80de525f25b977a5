"""The batcher: all checks that arrive in one turn of the event loop go to the engine together.

No request waits for a batch to fill. A batch is what one turn brought, so a lone request is decided
at once, and 64 busy connections share one call. When more has come than can be answered in time,
`pace` says for how many there is time to ask the model. Large `/v1/decide` bodies go to the engine
in slices between turns, so that checks overtake them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from decider.contracts.requests import CheckRequest, Decision
from decider.http import decide_api
from decider.http.arrivals import BEAT_S, Arrivals
from decider.http.pace import FEW, Cost, Pace
from decider.http.problem import INTERNAL, NOT_IN_TIME, Problem
from decider.http.responses import CLOSE, LATE, Answers

# Requests the engine gets in one call. Chosen: large enough that the cost of a call hardly shows
# per request, and small enough to hold the event loop for about a millisecond (256 at about 3 us).
MAX_BATCH = 256
# Seconds that a few checks may have waited and still need no plan. Chosen: a small part of what
# `pace` allows, which a few checks cannot use up.
PROMPT_S = 0.001

log = logging.getLogger(__name__)


class Decides(Protocol):
    """The part of the engine that the batcher uses."""

    def decide(
        self, requests: Sequence[CheckRequest], now: float | None = None
    ) -> list[Decision]: ...

    def decide_late(self, requests: Sequence[CheckRequest]) -> tuple[list[Decision], bool]:
        """Decide without the model. Return also whether it would have been asked otherwise."""


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
    strangers: int = 0
    """Requests at a TCP address that knew no good secret; they count as refused, too."""
    timeouts: int = 0
    late: int = 0
    """Checks that the fallback limiter decided, as this decider was too late to ask the model."""
    undecided: int = 0
    """Checks that came too late for any decision."""
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
        self,
        engine: Decides,
        answers: Answers,
        stats: Stats,
        on_decided: Callable[[], None],
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
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
        self._clock = clock
        self._pace, self._arrivals = pace, Arrivals(clock())
        self._turning, self._turn_at = False, clock()
        self._beat: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Note signs of life of the loop from now on, so that a halt is noticed."""
        self._arrivals.beat(self._clock())
        self._beat = self._loop.call_later(BEAT_S, self.watch)

    def stop_watching(self) -> None:
        if self._beat is not None:
            self._beat.cancel()

    def accept(self) -> None:
        """Note that there is a new connection."""
        self._arrivals.accept(self._clock())

    def add(self, owner: Owner, request: CheckRequest, mark: int) -> None:
        """Queue a check for the end of this turn."""
        # Three lists and no tuple per check: this runs once per request.
        if not self._turning:
            self._turning, self._turn_at = True, self._clock()
            self._arrivals.begin(self._turn_at)
            self._loop.call_soon(self._end_turn)
        self._requests.append(request)
        self._owners.append(owner)
        self._marks.append(mark)
        owner.waiting += 1

    def _end_turn(self) -> None:
        self._turning = False
        self.run()
        self._arrivals.end(self._clock())

    def run(self) -> None:
        """Decide and answer all queued checks. Connections also call this before they send an
        answer that needs no decision, so that answers leave in the order of their requests.
        """
        requests, owners, marks = self._requests, self._owners, self._marks
        if not requests:
            return
        # New lists first: delivering answers may lead a connection to queue the next checks.
        self._requests, self._owners, self._marks = [], [], []
        start = 0
        now = ranked_until = self._clock()
        while start < len(requests):
            count, cost = self._next(len(requests) - start, now, ranked_until)
            if start == 0 and cost is not self._pace.ranked:
                self._pace.ranked.forget()
            part = slice(start, start + min(count, MAX_BATCH))
            self._deliver(owners[part], self._texts(requests[part], marks[part], cost))
            start, before, now = part.stop, now, self._clock()
            if cost is not None:
                cost.note(part.stop - part.start, now - before)
            if cost is self._pace.ranked:
                ranked_until = now

    def _next(self, left: int, now: float, ranked_until: float) -> tuple[int, Cost | None]:
        """Return how many of the checks left to decide next, and by which way's cost."""
        waited = now - self._arrivals.since
        if left <= FEW and waited < PROMPT_S:
            # a few that just came need no plan
            return left, self._pace.ranked
        return self._pace.next_slice(left, waited, now - self._turn_at, now - ranked_until)

    def _texts(
        self, requests: list[CheckRequest], marks: list[int], cost: Cost | None
    ) -> list[str]:
        """Return one response per request, decided in the way of this cost; None stands for no
        decision. When the engine fails, each is a 500, which gateways treat by their own failure
        policy.
        """
        if cost is None:
            self._stats.undecided += len(requests)
            return self._problems(NOT_IN_TIME, marks)
        try:
            if cost is self._pace.ranked:
                decisions, late = self._engine.decide(requests), False
            else:
                decisions, late = self._engine.decide_late(requests)
            if late:
                self._stats.late += len(requests)
                marks = [mark | LATE for mark in marks]
            render = self._answers.check
            texts = [
                render(decision, mark, request.app)
                for decision, mark, request in zip(decisions, marks, requests, strict=True)
            ]
        except Exception:  # noqa: BLE001 - whatever the engine raises, the connections need an answer
            self._failed(len(requests))
            return self._problems(INTERNAL, marks)
        self._decided(len(requests))
        return texts

    def _problems(self, what: Problem, marks: list[int]) -> list[str]:
        texts = {mark: self._answers.problem(what, mark).decode("ascii") for mark in set(marks)}
        return [texts[mark] for mark in marks]

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
        # no longer than a slice of checks: checks wait meanwhile
        most = min(MAX_BATCH, self._pace.slice_of(self._pace.ranked))
        part, began = job.requests[start : start + most], self._clock()
        try:
            job.answers += decide_api.answers(self._engine.decide(part))
            self._pace.ranked.note(len(part), self._clock() - began)
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
