"""Answers in time: how many checks a decider answers within 10 ms when it has too much to do.

Beside it runs the same decider that leaves no check without the model's opinion.

The load is an open loop. The peer is told that gateways wait for a minute, so it does what a
decider did before there was a limit.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import apps, load, processes
from bench.http_decision import Decider, Server, alone
from bench.late import gateway, open_loop
from bench.late.open_loop import OpenResult

# Apps that ask. Chosen: enough that checks differ, and few enough to introduce in seconds.
APPS = 5_000
# Connections: a check that is answered within 15 ms leaves one free for the next, up to 68,000
# checks a second and more.
CONNECTIONS = 1_024
# Milliseconds within which checks are promised an answer, and the share that must get one.
WITHIN_MS, TARGET = 10.0, 0.99
# Seconds of one run, and runs whose median counts.
SECONDS, RUNS = 3.0, 3
# The search for the peer's limit: the first rate, checks a second, and the step between two rates.
FIRST_RATE, STEP = 15_000.0, 1.12
# How much slower the slow model scores: it has so many times the trees.
SLOW = 10
# Seconds that a gateway of the peer waits: it never hurries.
PATIENT_S = 60.0
_TEXT = (
    "GET /v1/check/v2/orders/{0} HTTP/1.1\r\nHost: bench\r\nx-sluice-app: {1}\r\nauthorization:"
    " Bearer t{0}\r\nx-sluice-secret: " + load.SECRET + "\r\n\r\n"
)


class Pair:
    """A decider that answers in time and its peer, with one model."""

    def __init__(self, stack: ExitStack, model: bytes) -> None:
        core, other = processes.cores()
        # the sender is this process
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {other})
        if os.geteuid() == 0:  # ahead of other work, like what it measures
            stack.callback(os.setpriority, os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))
            os.setpriority(os.PRIO_PROCESS, 0, processes.NICE)
        self._servers: dict[str, Server] = {}
        for name, waits_s in (("own", 0.015), ("peer", PATIENT_S)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
            made = Decider(stack, folder, model, core, other, count=APPS, waits_s=waits_s)
            self._servers[name] = made.server(rank_all=True)
            self._servers[name].before()
        self._texts = [_TEXT.format(k, apps.profile(k).app).encode() for k in range(APPS)]

    def run(self, name: str, rate: float, seconds: float = SECONDS) -> OpenResult:
        server = self._servers[name]
        with alone(server, self._servers):
            return open_loop.run(server.port, rate, seconds, self._texts, CONNECTIONS, WITHIN_MS)

    def limit(self) -> float:
        """Return the first rate of the search at which the peer's p99 passes WITHIN_MS."""
        rate = FIRST_RATE
        self.run("peer", rate)
        # once more at each rate: a single run may meet another program
        while min(self.run("peer", rate).p99_ms for _ in range(2)) <= WITHIN_MS:
            rate *= STEP
        return rate

    def compare(self, rate: float) -> dict[str, list[OpenResult]]:
        """Return RUNS runs of each, in turns."""
        runs: dict[str, list[OpenResult]] = {name: [] for name in self._servers}
        for _ in range(RUNS):
            for name, found in runs.items():
                found.append(self.run(name, rate))
        return runs


def measure() -> list[dict[str, object]]:
    """Return the rows: too many checks, a model that is too slow, and what the gateway sees."""
    with ExitStack() as stack:
        usual = Pair(stack, apps.model_data())
        limit = usual.limit()
        busy = usual.compare(1.2 * limit)
    with ExitStack() as stack:
        slow = Pair(stack, apps.model_data(SLOW)).compare(limit / 2)
    return [
        _row(f"late: 1.2 times {limit:,.0f} checks/s", busy),
        _row(f"late: half of it, a model {SLOW} times slower", slow),
        *gateway.measure(),
    ]


def _row(name: str, runs: dict[str, list[OpenResult]]) -> dict[str, object]:
    own, peer = (statistics.median(r.within for r in runs[k]) for k in ("own", "peer"))
    return {
        "name": name,
        "figure": round(100 * own, 2),
        "unit": f"% answered in {WITHIN_MS:.0f} ms",
        "peer": "the same, never in a hurry",
        "peer_figure": round(100 * peer, 2),
        "ratio": round(own / peer, 2) if peer else None,
        "target": f"{TARGET:.0%}",
        "met": own >= TARGET,
        "conditions": f"open loop, {CONNECTIONS} connections, all ranked, {RUNS} runs of"
        f" {SECONDS:.0f} s in turns; own: {_said(runs['own'])}; peer: {_said(runs['peer'])}",
    }


def _said(runs: list[OpenResult]) -> str:
    def middle(name: str) -> float:
        found: float = statistics.median(getattr(run, name) for run in runs)
        return found

    return (
        f"p99 {middle('p99_ms'):.1f} ms, {middle('late'):.1%} late, {middle('undecided'):.2%} not"
        f" decided, {max(run.unanswered for run in runs):,} unanswered at most; sent"
        f" {max(run.late_sends_ms for run in runs):.1f} ms after its time at most"
    )
