"""A tenant that asks for six times its fair share of a service, beside seven that ask for theirs.

All send by the clock and never wait, whatever Retry-After says, so what each asks for is known.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from decider.contracts.requests import CheckRequest
from learning.traffic import behaviour
from learning.traffic.client import GatewayClient, GatewayError
from learning.traffic.crowd import REFUSED_STATUSES

# Tenants in all. Chosen: few enough to read at a glance, and many enough that a share is small.
TENANTS = 8
# How many times its share the noisy one asks for.
NOISY = 6.0
# Requests on their way at once, of all tenants. Chosen: what a second of the noisiest demo sends; a
# gateway that hangs must not fill the memory.
MOST_WAITING = 512
# Requests that nobody answered, of the first ones, after which the gateway is taken to be away.
FEW = 20
# Seconds between two calls of `tell`.
TELL_EVERY_S = 5.0


@dataclass(slots=True)
class Sender:
    """One tenant's clients."""

    tenant: str
    apps: Sequence[str]
    pace: float
    """Requests a second."""
    path: str
    addresses: list[str] = field(default_factory=list)
    sent: int = 0
    decided: int = 0
    admitted: int = 0
    """Of those decided."""
    broken: int = 0
    """Requests that the gateway did not answer."""

    def next_request(self, rng: Random) -> CheckRequest:
        """Return the next request: each of the tenant's apps in turn."""
        turn = self.sent % len(self.apps)
        if not self.addresses:
            self.addresses = [behaviour.draw_address(rng) for _ in self.apps]
        self.sent += 1
        app = self.apps[turn]
        path, request_id = self.path, f"req_{rng.getrandbits(64):016x}"
        return CheckRequest(app, "GET", path, f"tok_{app}", self.addresses[turn], request_id)


def senders(
    apps: dict[str, list[str]], requests_per_s: float, path: str
) -> tuple[Sender, list[Sender]]:
    """Return the noisy tenant and the quiet ones. `apps`: of each tenant, the best known first.
    `requests_per_s`: what the service can do, of which each tenant's share is an equal part.

    Raise ValueError when there are too few tenants.
    """
    if len(apps) < TENANTS:
        raise ValueError(f"{TENANTS} tenants are needed, but only {len(apps)} are fit.")
    share = requests_per_s / TENANTS
    # the one with most apps: each then stays within its own plan
    noisy = max(apps, key=lambda tenant: len(apps[tenant]))
    quiet = [tenant for tenant in apps if tenant != noisy][: TENANTS - 1]
    return (
        Sender(noisy, apps[noisy], NOISY * share, path),
        [Sender(tenant, apps[tenant], share, path) for tenant in quiet],
    )


async def play(
    every: Sequence[Sender],
    client: GatewayClient,
    seconds: float,
    tell: Callable[[float], object],
) -> None:
    """Send all tenants' requests for `seconds`. `tell` is called every five seconds with the
    seconds that have passed.

    Raises GatewayError when the gateway answers none of the first FEW requests.
    """
    rng = Random(secrets.randbits(64))
    began, told, waiting = time.monotonic(), 0.0, set[asyncio.Task[None]]()
    try:
        while (elapsed := time.monotonic() - began) < seconds:
            for sender in every:
                while sender.sent < sender.pace * elapsed:
                    if len(waiting) >= MOST_WAITING:
                        sender.sent, sender.broken = sender.sent + 1, sender.broken + 1
                        continue
                    task = asyncio.create_task(_send(sender, client, sender.next_request(rng)))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
            broken = sum(sender.broken for sender in every)
            if FEW <= broken == sum(sender.sent for sender in every) - len(waiting):
                raise GatewayError("it answered none of the first requests")
            if elapsed - told >= TELL_EVERY_S:
                told = elapsed
                tell(elapsed)
            await asyncio.sleep(0.01)
    finally:
        await asyncio.gather(*waiting)


async def _send(sender: Sender, client: GatewayClient, request: CheckRequest) -> None:
    try:
        answer = await client.send(request, "q=shoes")
    except GatewayError:
        sender.broken += 1
        return
    # what no decider answered in time says nothing of fairness: the gateway's own limit took it
    if answer.decision:
        sender.decided += 1
        sender.admitted += answer.status not in REFUSED_STATUSES
