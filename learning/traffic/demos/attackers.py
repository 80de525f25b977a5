"""Two attackers against a real gateway, to be watched on the pages: one that tries leaked
credentials at a sign-in, and one that takes a new app id whenever it is refused too often.

They send the requests of such attackers and never wait, whatever Retry-After says.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from decider.contracts.requests import CheckRequest
from learning.traffic import behaviour, services
from learning.traffic.client import GatewayAnswer, GatewayClient, GatewayError
from learning.traffic.crowd import REFUSED_STATUSES

# Requests a second: more sign-ins than a person makes, but too few to empty the bucket of any plan.
PACE = 4.0
# Share of the credentials that are right; leaked lists are mostly out of date.
RIGHT = 0.05
# Refusals after which the rotating attacker drops its app id. Chosen: at PACE they cost two
# seconds.
PATIENCE = 8
# A gateway that answers none of the first requests, this many, is taken to be away.
FEW = 8
# Addresses that an attacker sends from: a few rented machines.
ADDRESSES = 3


@dataclass(slots=True)
class Report:
    """Counts of an attack so far."""

    seconds: float = 0.0
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    """Requests that the gateway did not answer."""
    apps: list[str] = field(default_factory=list)
    """App ids used so far, the present one last."""
    decision: str = ""
    """Id of the latest refusal's decision, empty before the first."""

    @property
    def passed(self) -> int:
        """Requests that were not refused."""
        return sum(n for status, n in self.statuses.items() if status not in REFUSED_STATUSES)

    def describe(self) -> str:
        """Return the counts as one line of text."""
        share = self.passed / self.sent if self.sent else 0.0
        ids = f", {len(self.apps)} app ids" if len(self.apps) > 1 else ""
        unanswered = f", {self.broken} not answered" if self.broken else ""
        return (
            f"{self.seconds:5.0f} s  sent {self.sent:,}, got through {self.passed:,} ({share:.0%}),"
            f" refused {self.sent - self.passed - self.broken:,}{ids}{unanswered}"
        )


class Attacker:
    """One attacker: what it sends next, and what it does about an answer."""

    def __init__(self, seed: int | None = None) -> None:
        # another seed each time, unless one is given: deciders remember ids that attacked before
        self._rng = Random(secrets.randbits(64) if seed is None else seed)
        self._addresses = [behaviour.draw_address(self._rng) for _ in range(ADDRESSES)]
        self.report = Report(apps=[self._new_id()])

    def _new_id(self) -> str:
        return f"app_demo_{self._rng.getrandbits(32):08x}"

    def next_request(self) -> CheckRequest:
        """Return the next request: a sign-in with a credential that was not tried before."""
        rng, call = self._rng, behaviour.SIGN_IN
        start = "tok_" if rng.random() < RIGHT else services.EXPIRED_PREFIX
        return CheckRequest(
            self.report.apps[-1],
            call.method,
            call.path,
            f"{start}{rng.getrandbits(64):016x}",
            rng.choice(self._addresses),
            f"req_{rng.getrandbits(64):016x}",
            rng.randint(call.least, call.most),
        )

    def react(self, answer: GatewayAnswer) -> None:
        """Count an answer."""
        self.report.statuses[answer.status] += 1
        if answer.status in REFUSED_STATUSES:
            self.report.decision = answer.decision


class RotatingAttacker(Attacker):
    """An attacker that goes on under a new app id after PATIENCE refusals."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self._refused = 0

    def react(self, answer: GatewayAnswer) -> None:
        """Count an answer, and drop the app id when it was refused too often."""
        super().react(answer)
        self._refused += answer.status in REFUSED_STATUSES
        if self._refused >= PATIENCE:
            self._refused = 0
            self.report.apps.append(self._new_id())


ATTACKERS: dict[str, type[Attacker]] = {"stuffing": Attacker, "rotation": RotatingAttacker}


async def attack(
    attacker: Attacker, client: GatewayClient, seconds: float, tell: Callable[[Report], object]
) -> Report:
    """Send an attacker's requests at PACE for `seconds` and return the counts. `tell` is called
    with them every five seconds.

    Raises GatewayError when the gateway answers none of the first FEW requests.
    """
    report, began, told = attacker.report, time.monotonic(), 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        report.seconds = elapsed
        if elapsed - told >= 5.0:
            told = elapsed
            tell(report)
        report.sent += 1
        try:
            attacker.react(await client.send(attacker.next_request(), ""))
        except GatewayError:
            report.broken += 1
            if report.broken == report.sent >= FEW:
                raise
        # sent by the clock, so that a slow gateway does not slow the attack
        await asyncio.sleep(max(0.0, began + report.sent / PACE - time.monotonic()))
    report.seconds = seconds
    return report
