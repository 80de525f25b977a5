"""Clients that wait in silence until Retry-After has passed and then repeat the request, and the
record of how the repeats were answered. This module uses no clock, network or engine.

An app sends one request at a time, as a client that waits for each answer. When one is refused with
a Retry-After it gives up all else that it wanted to send, sends nothing until that has passed, and
then sends the very same request. That is a trial. Who waits is settled before the first request.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

from msgspec import structs

from learning.traffic.behaviour import PlannedRequest

# Requests that a client keeps while it waits for an answer. Chosen: as many as the crowd's obeying
# clients keep; the rest are given up.
KEPT_MOST = 20
# Normal quantile of a two-sided interval of 95%.
Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer to a client, and the rule behind it."""

    status: int
    reason: str = ""
    """Machine reason of the decision, in lower case; empty where it is not known."""
    wait: int = 0
    """Whole seconds of Retry-After, 0 for none."""
    refused: bool = False
    """Whether the limiter refused the request; False when the service behind it did."""
    decided: bool = True
    """Whether a decider decided; False when the gateway did by itself, or nobody answered."""

    @property
    def name(self) -> str:
        """The status and the machine reason, for a table."""
        return f"{self.status} {self.reason}".strip()


@dataclass(frozen=True, slots=True)
class Trial:
    """A refusal, and the answer to its repeat."""

    app: int
    at: float
    """Seconds, when the client read the refusal."""
    refusal: Answered
    earlier: int
    """Trials of this app before this one."""
    in_row: int
    """Refusals of this very request before this one."""
    answer: Answered | None = None
    """Answer to the repeat; None when the measurement ended before it came."""

    @property
    def admitted(self) -> bool:
        return self.answer is not None and not self.answer.refused

    @property
    def tried(self) -> bool:
        """Whether a decider decided the repeat."""
        return self.answer is not None and self.answer.decided


@dataclass(slots=True)
class _Client:
    busy: PlannedRequest | None = None
    """The request under way."""
    trial: Trial | None = None
    """The refusal whose repeat is due or under way."""
    trials: int = 0


class WaitingClients:
    """The clients that wait, by the index of their app. Times are seconds of any one clock."""

    def __init__(self, apps: Iterable[int]) -> None:
        self._clients = {app: _Client() for app in apps}
        self._kept: dict[int, deque[PlannedRequest]] = {app: deque() for app in self._clients}
        self._due: list[tuple[float, int, PlannedRequest]] = []
        self._ticket = count()
        self.trials: list[Trial] = []
        """Trials whose repeat was answered."""

    def __contains__(self, app: int) -> bool:
        return app in self._clients

    def may_send(self, planned: PlannedRequest, now: float) -> bool:
        """Return whether a client sends this request now. If so, the request is under way until
        `read`. A silent client gives it up; a client with another one under way keeps up to
        KEPT_MOST.
        """
        client = self._clients[planned.app]
        if client.busy is planned:
            return True
        if client.trial is not None:
            return False
        if client.busy is not None:
            if len(self._kept[planned.app]) < KEPT_MOST:
                self._kept[planned.app].append(planned)
            return False
        client.busy = planned
        return True

    def due(self, now: float) -> list[PlannedRequest]:
        """Return the requests to be sent by `now`: repeats whose wait has passed, and requests that
        were kept. They are under way from then on.
        """
        found = []
        while self._due and self._due[0][0] <= now:
            at, _, planned = heapq.heappop(self._due)
            self._clients[planned.app].busy = planned
            planned.at = max(at, planned.at)
            found.append(planned)
        return found

    def read(self, sent: PlannedRequest, answer: Answered, now: float) -> None:
        """Let the client of `sent` read its answer at `now`. Raises ValueError when `sent` is not
        under way, because then the client did not wait for this answer.
        """
        client = self._clients[sent.app]
        if client.busy is not sent:
            raise ValueError(
                f"app {sent.app} sent another request before it read the answer to this one"
            )
        client.busy, before = None, client.trial
        client.trial = None
        if before is not None:
            self.trials.append(replace(before, answer=answer))
        if answer.refused and answer.wait > 0:
            self._fall_silent(client, sent, answer, now, before.in_row + 1 if before else 0)
        elif self._kept[sent.app]:
            following = self._kept[sent.app].popleft()
            client.busy = following
            heapq.heappush(self._due, (now, next(self._ticket), following))

    def _fall_silent(
        self, client: _Client, sent: PlannedRequest, answer: Answered, now: float, in_row: int
    ) -> None:
        self._kept[sent.app].clear()
        client.trial = Trial(sent.app, now, answer, client.trials, in_row)
        client.trials += 1
        # the gateway tells requests apart by their ids, so a repeat gets a new one
        number = next(self._ticket)
        request = structs.replace(sent.request, request_id=f"req_again_{number:06x}")
        again = replace(sent, at=now + answer.wait, request=request, tried=sent.tried + 1)
        heapq.heappush(self._due, (again.at, number, again))

    def not_tried(self) -> list[Trial]:
        """Return the refusals whose repeat was not sent or not answered until now."""
        return [client.trial for client in self._clients.values() if client.trial is not None]


def wilson(good: int, of: int) -> tuple[float, float]:
    """Return the two-sided 95% interval of a share, 0 to 1 (Wilson, 1927, "Probable inference, the
    law of succession, and statistical inference").
    """
    if not of:
        return 0.0, 1.0
    share, z = good / of, Z95
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def by_reason(trials: Iterable[Trial]) -> dict[str, tuple[int, int]]:
    """Return (repeats admitted, repeats) by the status and machine reason of the refusal before,
    the most frequent first.
    """
    of, good = Counter[str](), Counter[str]()
    for trial in trials:
        of[trial.refusal.name] += 1
        good[trial.refusal.name] += trial.admitted
    return {name: (good[name], number) for name, number in of.most_common()}
