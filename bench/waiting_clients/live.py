"""The waiting clients live: a crowd against Envoy with two deciders, under load.

Everything is as shipped: the starting config and the example configuration of Envoy. Only the
services are smaller, in proportion to the load. The machine reason of a refusal is read from its
receipt.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from msgspec import structs

from bench import row
from bench.waiting_clients import stack
from bench.waiting_clients.crowd import HARD, WaitingCrowd
from bench.waiting_clients.ledger import Answered
from bench.waiting_clients.rows import listed, not_tried_row, reason_rows, trial_row
from decider.contracts import artifact, defaults
from decider.contracts.config import ModelRef
from decider.http import ratelimit_fields
from decider.refusal import receipt
from learning.traffic import simulate
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.client import KEPT_STATUSES, GatewayAnswer, GatewayClient, GatewayError
from learning.traffic.crowd import Crowd

# Seed of the people and of who waits; apps, and first tries a second. Chosen: as much as two cores
# carry beside Envoy, the deciders and the services, and none of the seeds of training.
SEED, APPS, RATE = 7_005, 3_000, 90.0
# Seconds of a live run. Chosen: more than five hundred clients wait in it.
SECONDS = 290.0
# Seconds between two calls of the crowd's `due`. Small: otherwise requests would come in bursts.
STEP_S = 0.02
# Most requests under way at once. Further ones are given up, except those of waiting clients.
IN_FLIGHT_MOST = 1_000


@dataclass(slots=True)
class Seen:
    """Counts over all answers of a run."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Status, or another word such as "not answered" -> requests."""
    refusals: int = 0
    """Answers 429 and 503 of deciders."""
    broken: Counter[str] = field(default_factory=Counter)
    """Broken promise -> refusals that broke it."""
    waits: Counter[int] = field(default_factory=Counter)
    """Seconds of Retry-After -> refusals that named them."""
    late_s: float = 0.0
    """Longest delay of a step of the measuring program, seconds."""


def broken_promises(answer: GatewayAnswer) -> list[str]:
    """Return what is wrong with a 429 or 503 of a decider, in a few words for each promise."""
    found, wait = [], answer.fields.get("retry-after", "")
    if not wait.isdigit() or int(wait) < 1:
        return ["no Retry-After"]
    try:
        policies = ratelimit_fields.parse(answer.fields.get("ratelimit", ""))
    except ValueError:
        policies = {}
    if not any(
        p.get("r") == 0 and 0 <= int(p.get("t", -1)) <= int(wait) for p in policies.values()
    ):
        found.append("no used-up policy")
    try:
        body = json.loads(answer.body)
    except ValueError:
        return [*found, "no JSON body"]
    if not body.get("receipt") or body["receipt"] != answer.fields.get(receipt.HEADER):
        found.append("no receipt in the body")
    if body.get("retry_after") != int(wait):
        found.append("another wait in the body")
    return found


class LiveRun:
    """One run against a gateway."""

    def __init__(self, crowd: WaitingCrowd, client: GatewayClient, token_key: bytes) -> None:
        self.crowd, self._client, self.seen = crowd, client, Seen()
        self._keys = receipt.keys_of([token_key])
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Send the crowd's requests for `seconds`."""
        end = self.crowd.crowd.start + seconds
        while (now := time.time()) < end:
            for planned in self.crowd.due(now):
                if self.crowd.may_send(planned, now):
                    self._start(planned)
            await asyncio.sleep(STEP_S)
            self.seen.late_s = max(self.seen.late_s, time.time() - now - STEP_S)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._client.close()

    def _start(self, planned: PlannedRequest) -> None:
        waits = planned.app in self.crowd.clients
        if not waits and len(self._under_way) >= IN_FLIGHT_MOST:
            self.seen.statuses["given up"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._send(planned))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, planned: PlannedRequest) -> None:
        try:
            answer = await self._client.send(planned.request, planned.query)
        except GatewayError:
            self.seen.statuses["not answered"] += 1
            if planned.app in self.crowd.clients:
                self.crowd.clients.read(planned, Answered(0, decided=False), time.time())
            return
        read = self._read(answer)
        if planned.app in self.crowd.clients:
            self.crowd.clients.read(planned, read, time.time())
        else:
            self.crowd.crowd.react(planned, answer.status, answer.retry_after, time.time())

    def _read(self, answer: GatewayAnswer) -> Answered:
        """Count an answer and return it as its client understands it."""
        if not answer.decision:
            kind = "429 of the gateway" if answer.status == 429 else "undecided"
            self.seen.statuses[kind] += 1
            return Answered(answer.status, decided=False)
        if answer.status == 403:
            self.seen.statuses["403"] += 1
            return Answered(403, "block", refused=True)
        if answer.fields.get("sluice-action", "admit") == "admit":
            own = " of the service" if answer.status in KEPT_STATUSES else ""
            self.seen.statuses[f"{answer.status}{own}"] += 1
            return Answered(answer.status)
        self.seen.statuses[str(answer.status)] += 1
        self.seen.refusals += 1
        self.seen.broken.update(broken_promises(answer))
        self.seen.waits[int(answer.retry_after)] += 1
        return Answered(answer.status, self._reason(answer), int(answer.retry_after), refused=True)

    def _reason(self, answer: GatewayAnswer) -> str:
        try:
            told = receipt.open_sealed(answer.fields.get(receipt.HEADER, ""), self._keys)
        except receipt.ReceiptError:
            self.seen.broken["no receipt that opens"] += 1
            return "unknown"
        return told.reason.name.lower()


def measure(model: bytes) -> list[dict[str, object]]:
    """Return the rows of a run with this model, an encoded artifact."""
    return live_rows(*play(model))


def play(model: bytes, seconds: float = SECONDS) -> tuple[LiveRun, float]:
    """Return a finished run against a gateway whose deciders use this model, and the machine's load
    average over its last five minutes.
    """
    scenario = simulate.Scenario(SEED, time.time(), apps=APPS, rate=RATE)
    people = simulate.draw_people(scenario)
    draw = Random(SEED)
    registered = [p for p in people.profiles() if draw.random() >= simulate.UNKNOWN_SHARE]
    document = structs.replace(
        simulate.starting_config(scenario),
        model=ModelRef("risk", 1, artifact.digest_of(model)),
        sampling=defaults.config().sampling,
    )
    known = stack.Installation(people.profiles(), registered)
    with stack.running(document, model, known, HARD.slowdowns) as parts:
        crowd = Crowd(people, SEED, time.time(), RATE, HARD.conduct)
        waiting = WaitingCrowd(crowd, people, HARD, SEED)
        run = LiveRun(
            waiting, GatewayClient(parts.url, most=512, signer=parts.signer), parts.token_key
        )
        asyncio.run(run.run(seconds))
        return run, os.getloadavg()[1]


def live_rows(run: LiveRun, load: float) -> list[dict[str, object]]:
    """Return the rows of a live run."""
    clients, seen = run.crowd.clients, run.seen
    tried = [t for t in clients.trials if t.tried]
    first = [t for t in tried if t.earlier == 0]
    said = (
        f"{SECONDS:.0f} s through Envoy, two deciders with the model of a first start, {APPS:,}"
        f" apps, {RATE:.0f} first tries/s and twice that for 90 s, two services slow, load average"
        f" {load:.1f}; answers: {listed(seen.statuses)}; Retry-After from"
        f" {min(seen.waits, default=0)} to {max(seen.waits, default=0)} s"
    )
    rows = [
        trial_row("waiting clients: first repeat of each client admitted, live", first, said, True),
        trial_row("waiting clients: all repeats admitted, live", tried, said, True),
    ]
    rows += reason_rows("live", tried)
    rows.append(not_tried_row("live", clients.not_tried()))
    undecided = len(clients.trials) - len(tried)
    rows.append(
        row(
            "waiting clients: repeats no decider decided, live",
            undecided,
            "repeats",
            None,
            None,
            "the gateway let them through when no decider answered in time; not counted above",
        )
    )
    broken = sum(seen.broken.values())
    rows.append(
        row(
            "waiting clients: refusals without used-up policy or receipt, live",
            broken,
            "refusals",
            0,
            broken == 0 and seen.refusals > 0,
            f"of {seen.refusals:,} 429 and 503 of deciders; {listed(seen.broken) or 'none'}",
        )
    )
    return rows
