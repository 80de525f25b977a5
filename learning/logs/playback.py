"""Plays access logs through a private engine, as fast as it goes, or through a real gateway at a
chosen speed.

Offline, each log is shifted as a whole so that it ends now: its own relative times are kept
exactly, so rates are true, and the decisions are recent enough to be looked at. Several logs
overlay each other, all ending now.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from decider.contracts import event, ids
from decider.contracts.event import Event, EventBatch
from decider.contracts.requests import CheckRequest, Decision, Outcome
from decider.contracts.store import Profile
from decider.contracts.units import rounded_span
from decider.contracts.vocabulary import REASONS, Action, Reason
from decider.engine.engine import Engine
from learning.logs.access_log import Entry, Format, Report, entries
from learning.traffic.client import Answer, Client, GatewayError

NODE = "replay"
# Requests this close are decided together, seconds.
BATCH_S = 0.02
BATCH_MOST = 256
TICK_S = 0.2
# After a quiet time the controllers take this many steps of this length at most; by then prices
# have come down.
LONGEST_TICK_S, QUIET_TICKS = 5.0, 5
EVENTS_PER_BATCH = 500
REFUSED_SHOWN = 8
IN_FLIGHT_MOST = 256

Advance = Callable[[int], object]
Publish = Callable[[bytes], object]
Lookup = Callable[[Sequence[str]], list[Profile]]


class ReplayError(Exception):
    """A replay that cannot be done; the message says why and what would help."""


class Span(NamedTuple):
    """What a first look at the logs found."""

    last: list[float]
    """Newest time of each log, unix seconds by its own clock."""
    requests: int


@dataclass(slots=True)
class Refused:
    """One app's refusals."""

    count: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    decision: str = ""
    """Decision id of the first one, to look up."""


@dataclass(slots=True)
class Summary:
    """What a replay did."""

    report: Report
    requests: int = 0
    first: float = 0.0
    last: float = 0.0
    wall_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """Action (offline) or status (through a gateway) -> requests."""
    refused: dict[str, Refused] = field(default_factory=dict)
    kept: int | None = None
    """Decisions sent to the console; None when that is for the deciders behind a gateway to do."""

    def note(self, app: str, why: str, decision: str) -> None:
        """Counts one refusal."""
        mine = self.refused.setdefault(app, Refused(decision=decision))
        mine.count += 1
        mine.reasons[why] += 1


def look(paths: Sequence[Path], key: bytes, form: Format, limit: int | None) -> Span:
    """Reads the logs once for their times. Raises LogError for one that cannot be read, ReplayError
    when none holds a request.
    """
    last: list[float] = []
    total = 0
    for path in paths:
        newest, report = float("-inf"), Report()
        for entry in islice(entries(path, key, report, form), limit):
            newest = max(newest, entry.at)
            total += 1
        last.append(newest)
        if newest == float("-inf"):
            why = (
                ", ".join(f"{n:,} lines: {reason}" for reason, n in report.skipped.most_common(3))
                or "it is empty"
            )
            raise ReplayError(f"{path} holds no request that can be read ({why}).")
    return Span(last, total if limit is None else min(total, limit))


def _shifted(
    paths: Sequence[Path], key: bytes, form: Format, span: Span, end: float, report: Report
) -> Iterator[Entry]:
    """All logs in one, in time order, each moved as a whole so that it ends at `end`."""

    def moved(path: Path, by: float) -> Iterator[Entry]:
        return (replace(entry, at=entry.at + by) for entry in entries(path, key, report, form))

    streams = [moved(path, end - newest) for path, newest in zip(paths, span.last, strict=True)]
    return heapq.merge(*streams, key=lambda entry: entry.at)


class Offline:
    """A replay through a private engine, whose config and model are already applied."""

    def __init__(self, engine: Engine, publish: Publish, lookup: Lookup) -> None:
        self._engine, self._publish, self._lookup = engine, publish, lookup
        self._ids = ids.IdSource()
        self._waiting: list[Event] = []
        self._outcomes: list[tuple[float, Outcome]] = []
        self._ticked = 0.0

    def run(
        self,
        paths: Sequence[Path],
        key: bytes,
        form: Format = "auto",
        limit: int | None = None,
        end: float | None = None,
        span: Span | None = None,
        advance: Advance | None = None,
    ) -> Summary:
        """Replays the logs, ending at `end` (unix seconds, default now). Raises LogError,
        ReplayError.
        """
        span = span or look(paths, key, form, limit)
        summary = Summary(Report(), kept=0)
        began = time.perf_counter()
        stream = islice(
            _shifted(paths, key, form, span, time.time() if end is None else end, summary.report),
            limit,
        )
        for batch in _batches(stream):
            self._decide(batch, summary)
            if advance is not None:
                advance(len(batch))
        self._send(0, summary)
        summary.wall_s = time.perf_counter() - began
        return summary

    def _decide(self, batch: list[Entry], summary: Summary) -> None:
        now = batch[-1].at
        self._catch_up(now)
        requests = [
            CheckRequest(e.app, e.method, e.path, "", e.source, e.request_id, e.bytes_in)
            for e in batch
        ]
        decisions = self._engine.decide(requests, now=now)
        summary.first = summary.first or batch[0].at
        summary.last = now
        summary.requests += len(batch)
        for entry, decision in zip(batch, decisions, strict=True):
            self._account(entry, decision, summary)
        if self._engine.wanted_profiles:
            self._introduce(now)
        self._waiting += self._engine.take_events()
        self._send(EVENTS_PER_BATCH, summary)

    def _account(self, entry: Entry, decision: Decision, summary: Summary) -> None:
        action = Action(decision.action)
        summary.answers[action.word] += 1
        if action != Action.ADMIT:
            summary.note(
                entry.app,
                REASONS[Reason(decision.reason)].text,
                ids.format_decision_id(decision.id),
            )
        elif entry.served:
            row = self._engine.router.route(entry.method, entry.path).service
            assert self._engine.config is not None
            service = self._engine.config.services[row]
            latency = service.latency_ms if entry.duration_ms is None else entry.duration_ms
            at = entry.at + latency / 1000
            outcome = Outcome(
                entry.app,
                service.name,
                at,
                entry.status,
                latency,
                entry.request_id,
                "",
                entry.bytes_out,
            )
            self._outcomes.append((at, outcome))

    def _catch_up(self, now: float) -> None:
        """Outcomes that were there by `now`, and the controllers' steps until then."""
        if not self._ticked:
            self._ticked = now
        due = [outcome for at, outcome in self._outcomes if at <= now]
        if due:
            self._outcomes = [waiting for waiting in self._outcomes if waiting[0] > now]
            self._engine.learn(due, now=now)
        quiet = now - self._ticked
        if quiet < TICK_S:
            return
        steps = min(QUIET_TICKS, math.ceil(quiet / LONGEST_TICK_S))
        for step in range(steps - 1, -1, -1):
            self._engine.tick(now=now - step * min(LONGEST_TICK_S, quiet / steps))
        self._ticked = now

    def _introduce(self, now: float) -> None:
        """Tells the engine of apps it asked about; pseudonyms have no profile."""
        names = [app for app in self._engine.wanted_profiles if not app.startswith("anon_")]
        self._engine.wanted_profiles.clear()
        if names:
            self._engine.know(self._lookup(names), now=now)

    def _send(self, least: int, summary: Summary) -> None:
        """Publishes what was kept, when it is at least `least` decisions."""
        while self._waiting and len(self._waiting) >= least:
            part, self._waiting = self._waiting[:EVENTS_PER_BATCH], self._waiting[EVENTS_PER_BATCH:]
            batch = EventBatch(
                self._ids.one(), NODE, time.time(), self._engine.events_dropped, part
            )
            self._publish(event.encode_batch(batch))
            summary.kept = (summary.kept or 0) + len(part)


def _batches(found: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries within BATCH_S of each other, at most BATCH_MOST together."""
    batch: list[Entry] = []
    for entry in found:
        if batch and (entry.at > batch[0].at + BATCH_S or len(batch) == BATCH_MOST):
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


async def through_gateway(
    paths: Sequence[Path],
    key: bytes,
    url: str,
    speed: float,
    form: Format = "auto",
    limit: int | None = None,
    span: Span | None = None,
    advance: Advance | None = None,
) -> Summary:
    """Sends the logs' requests to a gateway, `speed` times as fast as they came. Raises LogError,
    ReplayError, ValueError.
    """
    if not speed > 0:
        raise ReplayError(f"The speed must be positive, not {speed}.")
    client = Client(url, most=IN_FLIGHT_MOST)
    summary, room, tasks = (
        Summary(Report()),
        asyncio.Semaphore(IN_FLIGHT_MOST),
        set[asyncio.Task[None]](),
    )
    span = span or look(paths, key, form, limit)
    began = time.perf_counter()

    async def send(entry: Entry) -> None:
        try:
            _account(entry, await client.send(_request(entry)), summary)
        except GatewayError as error:
            summary.answers[f"no answer: {error}"] += 1
        finally:
            room.release()
            if advance is not None:
                advance(1)

    for entry in islice(_shifted(paths, key, form, span, time.time(), summary.report), limit):
        summary.first = summary.first or entry.at
        summary.last, summary.requests = entry.at, summary.requests + 1
        await asyncio.sleep(
            max(0.0, (entry.at - summary.first) / speed - (time.perf_counter() - began))
        )
        await room.acquire()
        tasks.add(task := asyncio.create_task(send(entry)))
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    client.close()
    summary.wall_s = time.perf_counter() - began
    return summary


def _request(entry: Entry) -> CheckRequest:
    return CheckRequest(
        entry.app, entry.method, entry.path, "", "", entry.request_id, min(entry.bytes_in, 65_536)
    )


def _account(entry: Entry, answer: Answer, summary: Summary) -> None:
    summary.answers[str(answer.status)] += 1
    if answer.status in (403, 429, 503):
        wait = f", told to wait {answer.retry_after:.0f} s" if answer.retry_after else ""
        summary.note(entry.app, f"answered {answer.status}{wait}", answer.decision)


def describe(summary: Summary) -> str:
    """The summary as a table for people."""
    span, report = summary.last - summary.first, summary.report
    rows = [
        (
            "requests",
            (
                f"{summary.requests:,} in {summary.wall_s:.1f} s,"
                f" {summary.requests / max(summary.wall_s, 1e-9):,.0f} a second"
            ),
        ),
        (
            "of the log",
            (
                f"{rounded_span(span)}, {summary.requests / span:.2f} requests a second"
                if span > 0
                else "one moment"
            ),
        ),
        *(
            (answer, f"{n:,} ({n / max(summary.requests, 1):.1%})")
            for answer, n in summary.answers.most_common()
        ),
        (
            "kept",
            (
                "the deciders' own sample"
                if summary.kept is None
                else f"{summary.kept:,} decisions for the console"
            ),
        ),
        *(("skipped", f"{n:,} lines: {reason}") for reason, n in report.skipped.most_common()),
        *(("noticed", f"{n:,} lines: {oddity}") for oddity, n in report.noticed.most_common()),
    ]
    if report.via_cdn:
        share = report.via_cdn / max(report.read, 1)
        rows.append(
            (
                "shared",
                (
                    f"{share:.0%} of the requests came from a CDN's addresses: many clients stand"
                    " behind each"
                ),
            )
        )
    if shared := report.shared():
        count = sum(report.requests[app] for app in shared)
        rows.append(
            (
                "shared",
                (
                    f"{len(shared):,} addresses ({count:,} requests) show many user agents and may"
                    " be shared"
                ),
            )
        )
    lines = [f"  {name:12} {text}" for name, text in rows]
    if summary.refused:
        lines += [
            "",
            "  Refused most",
            f"  {'app':20} {'refused':>8}  {'main reason':60}  decision",
        ]
        top = sorted(summary.refused.items(), key=lambda item: -item[1].count)[:REFUSED_SHOWN]
        lines += [
            f"  {app:20.20} {r.count:>8,}  {r.reasons.most_common(1)[0][0]:60.60}  {r.decision}"
            for app, r in top
        ]
    return "\n".join(lines)
