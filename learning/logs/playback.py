"""Player of access logs: through a private engine as fast as it goes, or through a real gateway at
a chosen speed.

Offline, each log is shifted as a whole so that it ends now. Times within a log stay exact, so rates
are true, and the decisions are recent enough to be looked up. Several logs run side by side, and
all end now.
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
from decider.contracts.normalise.paths import path_of
from decider.contracts.requests import CheckRequest, Decision, Outcome
from decider.contracts.store import Profile
from decider.contracts.units import rounded_span
from decider.contracts.vocabulary import REASONS, Action, Reason
from decider.engine.engine import Engine
from decider.engine.routing import endpoint_of
from learning.logs.access_log import LogEntry, ReadReport, read_entries
from learning.logs.formats import AUTO
from learning.traffic.client import GatewayAnswer, GatewayClient, GatewayError
from learning.traffic.tokens import Signer

NODE = event.REPLAY_NODE
# Seconds. Requests this close in time are decided together: one call for many is faster, and the
# clocks of access logs are coarser than that.
BATCH_S = 0.02
# Requests decided in one call at most: the batch size that the engine is measured with.
BATCH_MOST = 256
# Seconds between two steps of the controllers, as in a decider (five a second).
TICK_S = 0.2
# After a quiet time the controllers take steps of at most this length (seconds), and at most this
# many. By then prices have come down, so a gap of days need not be simulated step by step.
LONGEST_TICK_S, QUIET_TICKS = 5.0, 5
# Decisions in one message to the console. Chosen: large enough to be cheap, small enough for ingest
# to store in one transaction.
EVENTS_PER_BATCH = 500
# Apps in the table of the most refused: it has to fit a terminal.
REFUSED_SHOWN = 8
# Requests under way to a gateway at once. Beyond that the replay waits, so a slow gateway is not
# buried in connections.
IN_FLIGHT_MOST = 256
# Bytes. The client sends bodies of filler, and has no more of it.
LARGEST_BODY = 65_536
# Seconds of a log's quiet time that are waited through at most. Chosen: after an hour every bucket
# is full and every price is down, and a log of months must not take months.
LONGEST_QUIET_S = 3_600.0

AdvanceBar = Callable[[int], object]
PublishBatch = Callable[[bytes], object]
LookUpProfiles = Callable[[Sequence[str]], list[Profile]]


class ReplayError(Exception):
    """A replay cannot be done; the message says why and what would help."""


class NothingReadError(ReplayError):
    """Every line of a log was skipped."""


class LogSpan(NamedTuple):
    """Times and size of the logs, from a first reading."""

    last: list[float]
    """Newest time of each log, unix seconds by its own clock."""
    requests: int


@dataclass(slots=True)
class RefusedApp:
    """One app's refusals."""

    count: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    decision: str = ""
    """Decision id of the first one, to look up."""


@dataclass(slots=True)
class ReplaySummary:
    """Counts and times of one replay."""

    report: ReadReport
    requests: int = 0
    first: float = 0.0
    last: float = 0.0
    wall_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """Action (offline) or status (through a gateway) -> requests."""
    refused: dict[str, RefusedApp] = field(default_factory=dict)
    kept: int | None = None
    """Decisions sent to the console; None through a gateway, whose deciders send a sample."""

    def note(self, app: str, why: str, decision: str) -> None:
        """Count one refusal of `app`, with its reason in words and its decision id."""
        mine = self.refused.setdefault(app, RefusedApp(decision=decision))
        mine.count += 1
        mine.reasons[why] += 1


def survey_logs(paths: Sequence[Path], key: bytes, form: str, limit: int | None) -> LogSpan:
    """Return the newest time of each log and the number of requests, for a replay of the same logs
    with the same `limit`.

    Raises LogError for a log that cannot be read, ReplayError for one that holds no request,
    ValueError for a format that does not exist.
    """
    last: list[float] = []
    total = 0
    for path in paths:
        newest, report = float("-inf"), ReadReport()
        for entry in islice(read_entries(path, key, report, form), limit):
            newest = max(newest, entry.at)
            total += 1
        last.append(newest)
        if newest == float("-inf"):
            if not report.lines:
                raise ReplayError(f"{path} holds no request: it is empty.")
            why = "; ".join(_skipped_rows(report))
            raise NothingReadError(f"{path} holds no request that can be read: {why}.")
    return LogSpan(last, total if limit is None else min(total, limit))


def _shifted(
    paths: Sequence[Path],
    key: bytes,
    form: str,
    span: LogSpan,
    end: float,
    report: ReadReport,
) -> Iterator[LogEntry]:
    """Yield the entries of all logs in time order, each log moved as a whole to end at `end`."""

    def moved(path: Path, by: float) -> Iterator[LogEntry]:
        return (replace(entry, at=entry.at + by) for entry in read_entries(path, key, report, form))

    streams = [moved(path, end - newest) for path, newest in zip(paths, span.last, strict=True)]
    return heapq.merge(*streams, key=lambda entry: entry.at)


class OfflineReplay:
    """A replay through a private engine, to which config and model are already applied.

    `publish` is called with encoded batches of decisions, `lookup` with the ids of apps whose
    profiles the engine wants.
    """

    def __init__(self, engine: Engine, publish: PublishBatch, lookup: LookUpProfiles) -> None:
        self._engine, self._publish, self._lookup = engine, publish, lookup
        self._ids = ids.IdSource()
        self._waiting: list[Event] = []
        self._outcomes: list[tuple[float, Outcome]] = []
        self._ticked = 0.0

    def run(
        self,
        paths: Sequence[Path],
        key: bytes,
        form: str = AUTO,
        limit: int | None = None,
        end: float | None = None,
        span: LogSpan | None = None,
        advance: AdvanceBar | None = None,
    ) -> ReplaySummary:
        """Replay the logs so that they end at `end` (unix seconds, default now). Return the counts.

        `limit` is the most requests to replay. `span` is the result of `survey_logs`, if it has
        been called. `advance` is called with the number of requests decided. Raises LogError for a
        log that cannot be read, ReplayError for one that holds no request.
        """
        span = span or survey_logs(paths, key, form, limit)
        summary = ReplaySummary(ReadReport(), kept=0)
        began = time.perf_counter()
        end = time.time() if end is None else end
        stream = _shifted(paths, key, form, span, end, summary.report)
        for batch in _batches(islice(stream, limit)):
            self._decide(batch, summary)
            if advance is not None:
                advance(len(batch))
        self._send(0, summary)
        summary.wall_s = time.perf_counter() - began
        return summary

    def _decide(self, batch: list[LogEntry], summary: ReplaySummary) -> None:
        now = batch[-1].at
        self._catch_up(now)
        requests = [
            CheckRequest(e.app, e.method, path_of(e.path), "", e.source, e.request_id, e.bytes_in)
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

    def _account(self, entry: LogEntry, decision: Decision, summary: ReplaySummary) -> None:
        action = Action(decision.action)
        summary.answers[action.word] += 1
        if action != Action.ADMIT:
            summary.note(
                entry.app,
                REASONS[Reason(decision.reason)].text,
                ids.format_decision_id(decision.id),
            )
        elif entry.served:
            self._expect_outcome(entry)

    def _expect_outcome(self, entry: LogEntry) -> None:
        """Keep an admitted request's logged answer until the time at which its service gave it.

        Refused requests are left out: here they never reach the service, whatever the log says.
        """
        route = self._engine.router.route(entry.method, path_of(entry.path))
        assert self._engine.config is not None
        service = self._engine.config.services[route.service]
        # A log without durations gets the service's usual latency: neither slow nor fast.
        latency = service.latency_ms if entry.duration_ms is None else entry.duration_ms
        at = entry.at + latency / 1000
        outcome = Outcome(
            entry.app,
            service.name,
            at,
            entry.status,
            latency,
            entry.request_id,
            bytes_out=entry.bytes_out,
            endpoint=endpoint_of(entry.method, entry.path),
        )
        self._outcomes.append((at, outcome))

    def _catch_up(self, now: float) -> None:
        """Give the engine the outcomes that are known by `now`, and step its controllers."""
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
        """Give the engine the profiles that it asked for."""
        # A pseudonym has no profile, so asking for one is a wasted look-up.
        names = [app for app in self._engine.wanted_profiles if not app.startswith("anon_")]
        self._engine.wanted_profiles.clear()
        if names:
            self._engine.know(self._lookup(names), now=now)

    def _send(self, least: int, summary: ReplaySummary) -> None:
        """Publish the kept decisions when there are at least `least` of them."""
        while self._waiting and len(self._waiting) >= least:
            part, self._waiting = self._waiting[:EVENTS_PER_BATCH], self._waiting[EVENTS_PER_BATCH:]
            batch = EventBatch(
                self._ids.one(), NODE, time.time(), self._engine.events_dropped, part
            )
            self._publish(event.encode_batch(batch))
            summary.kept = (summary.kept or 0) + len(part)


def _batches(found: Iterable[LogEntry]) -> Iterator[list[LogEntry]]:
    """Yield entries within BATCH_S of each other, at most BATCH_MOST together."""
    batch: list[LogEntry] = []
    for entry in found:
        if batch and (entry.at > batch[0].at + BATCH_S or len(batch) == BATCH_MOST):
            yield batch
            batch = []
        batch.append(entry)
    if batch:
        yield batch


async def replay_through_gateway(
    paths: Sequence[Path],
    key: bytes,
    url: str,
    speed: float,
    form: str = AUTO,
    limit: int | None = None,
    span: LogSpan | None = None,
    advance: AdvanceBar | None = None,
    signer: Signer | None = None,
) -> ReplaySummary:
    """Send the logs' requests to a gateway, `speed` times as fast as they came. Return the counts.

    `signer`: makes the tokens that name the apps to a gateway that believes nothing else.

    Raises LogError for a log that cannot be read, ReplayError for one that holds no request or for
    a `speed` that is not positive, and ValueError for an address that is not a gateway's.
    """
    # Written as "not >", so that NaN is refused too.
    if not speed > 0:
        raise ReplayError(f"The speed must be positive, not {speed}.")
    client = GatewayClient(url, most=IN_FLIGHT_MOST, signer=signer)
    summary = ReplaySummary(ReadReport())
    span = span or survey_logs(paths, key, form, limit)
    began = time.perf_counter()
    entries = _shifted(paths, key, form, span, time.time(), summary.report)
    await _send_all(islice(entries, limit), client, speed, summary, advance)
    client.close()
    summary.wall_s = time.perf_counter() - began
    return summary


async def _send_all(
    entries: Iterable[LogEntry],
    client: GatewayClient,
    speed: float,
    summary: ReplaySummary,
    advance: AdvanceBar | None,
) -> None:
    """Send entries at their times, at most IN_FLIGHT_MOST at once; return when all are answered."""
    room, began = asyncio.Semaphore(IN_FLIGHT_MOST), time.perf_counter()
    # The loop holds tasks weakly; without this set one could be collected before it is done.
    tasks: set[asyncio.Task[None]] = set()

    async def send(entry: LogEntry) -> None:
        try:
            _account(entry, await client.send(_request(entry)), summary)
        except GatewayError as error:
            summary.answers[f"no answer: {error}"] += 1
        finally:
            room.release()
            if advance is not None:
                advance(1)

    left_out = 0.0
    for entry in entries:
        summary.first = summary.first or entry.at
        quiet = entry.at - (summary.last or entry.at)
        if quiet > LONGEST_QUIET_S:
            left_out += quiet - LONGEST_QUIET_S
            summary.report.noticed[
                "after a quiet time of over an hour, of which an hour was played"
            ] += 1
        summary.last, summary.requests = entry.at, summary.requests + 1
        # Each request waits for its time since the start, so that delays do not add up.
        due = (entry.at - summary.first - left_out) / speed
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - began)))
        await room.acquire()
        tasks.add(task := asyncio.create_task(send(entry)))
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


def _request(entry: LogEntry) -> CheckRequest:
    size = min(entry.bytes_in, LARGEST_BODY)
    return CheckRequest(entry.app, entry.method, entry.path, "", "", entry.request_id, size)


def _account(entry: LogEntry, answer: GatewayAnswer, summary: ReplaySummary) -> None:
    summary.answers[str(answer.status)] += 1
    # The gateway refuses with these three statuses. A service may answer them too, but rarely does.
    if answer.status in (403, 429, 503):
        wait = f", told to wait {answer.retry_after:.0f} s" if answer.retry_after else ""
        summary.note(entry.app, f"answered {answer.status}{wait}", answer.decision)


def describe_summary(summary: ReplaySummary) -> str:
    """Return the summary as a table for a terminal. It begins with a warning when so many lines
    were skipped that the rest may not hold.
    """
    report = summary.report
    rows = [
        *(("format", text) for text in _format_rows(report)),
        *_traffic_rows(summary),
        *(("skipped", text) for text in _skipped_rows(report)),
        *(("noticed", f"{_lines(n)}: {what}") for what, n in report.noticed.most_common() if n),
        *_sharing_rows(report),
    ]
    lines = [f"  {name:12} {text}" for name, text in rows]
    return "\n".join([*_warning(report), *lines, *_refused_lines(summary)])


def _warning(report: ReadReport) -> list[str]:
    if not report.doubtful:
        return []
    skipped = report.skipped.total()
    return [
        f"{skipped:,} of {report.lines:,} lines were skipped ({report.skipped_share:.1%}), so these"
        " figures may not hold for the whole log. The reasons are below."
    ]


def _format_rows(report: ReadReport) -> Iterator[str]:
    for log, choice in report.choices:
        name = choice.form.label if choice.form else "none that is known"
        yield f"{name}: {choice.fitted:,} of the first {choice.of:,} lines of {log} fit"


def _skipped_rows(report: ReadReport) -> Iterator[str]:
    for reason, n in report.skipped.most_common():
        log, line = report.first_skipped[reason]
        yield f"{_lines(n)}: {reason}, first line {line:,} of {log}"


def _lines(n: int) -> str:
    return f"{n:,} line{'s' if n > 1 else ''}"


def _traffic_rows(summary: ReplaySummary) -> Iterator[tuple[str, str]]:
    # A tiny replay may take no measurable time.
    pace = summary.requests / max(summary.wall_s, 1e-9)
    yield "requests", f"{summary.requests:,} in {summary.wall_s:.1f} s, {pace:,.0f} a second"
    span = summary.last - summary.first
    rate = (
        f"{rounded_span(span)}, {summary.requests / span:.2f} requests a second" if span > 0 else ""
    )
    yield "of the log", rate or "one moment"
    for answer, n in summary.answers.most_common():
        yield answer, f"{n:,} ({n / max(summary.requests, 1):.1%})"
    # Behind a gateway the deciders keep their own sample; the replay cannot know its size.
    if summary.kept is None:
        yield "kept", "the deciders' own sample"
    else:
        yield "kept", f"{summary.kept:,} decisions for the console"


def _sharing_rows(report: ReadReport) -> Iterator[tuple[str, str]]:
    """Yield warnings about addresses that stand for many clients: limits by address are unfair to
    them.
    """
    if report.via_cdn:
        share = report.via_cdn / max(report.read, 1)
        yield (
            "shared",
            f"{share:.0%} of the requests came from a CDN's addresses: many clients stand"
            " behind each",
        )
    if shared := report.shared():
        count = sum(report.requests[app] for app in shared)
        yield (
            "shared",
            f"{len(shared):,} addresses ({count:,} requests) show many user agents and may"
            " be shared",
        )


def _refused_lines(summary: ReplaySummary) -> list[str]:
    if not summary.refused:
        return []
    top = sorted(summary.refused.items(), key=lambda item: -item[1].count)[:REFUSED_SHOWN]
    return [
        "",
        "  Refused most",
        f"  {'app':20} {'refused':>8}  {'main reason':60}  decision",
        *(
            f"  {app:20.20} {r.count:>8,}  {r.reasons.most_common(1)[0][0]:60.60}  {r.decision}"
            for app, r in top
        ),
    ]
