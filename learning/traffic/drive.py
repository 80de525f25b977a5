"""Driver of the simulated crowd against a real gateway: `python -m learning.traffic.drive --gateway
http://127.0.0.1:8080`.

Clients react to real answers. Every 75 seconds there is an incident: a retry storm, a wave of
scrapers, a run on the sign-in, card testing. SIGTERM and SIGINT end it cleanly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from learning.traffic import world
from learning.traffic.behaviour import PlannedRequest
from learning.traffic.client import GatewayClient, GatewayError, GatewayUnreachable
from learning.traffic.crowd import Crowd
from learning.traffic.tokens import Signer
from learning.traffic.world import AppKind

# Seconds between two calls of `Crowd.due`. Small: otherwise requests would come in visible bursts.
STEP_S = 0.04
# Seconds between two lines that report the counts.
REPORT_S = 60.0
# Most requests under way at once. More would use up the sockets, so they are counted as given up.
IN_FLIGHT_MOST = 1_500
# Seconds of pause after the gateway could not be reached, so that it is not flooded while it
# starts.
SILENCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Incident:
    """A planned disturbance: `apps` apps of `kind` become active for `lasts` seconds."""

    kind: AppKind
    apps: int
    lasts: float
    words: str


INCIDENTS = (
    Incident(AppKind.SCRAPER, 6, 45, "a wave of scrapers"),
    Incident(AppKind.STORM, 6, 40, "a retry storm"),
    Incident(AppKind.STUFFER, 4, 50, "a run on the sign-in with leaked credentials"),
    Incident(AppKind.CARD_TESTER, 6, 60, "card testing"),
)
# Seconds. The first comes soon, so that whoever has just started the demo sees one; the longest
# lasts 60 s, so there is calm between two.
FIRST_INCIDENT_S, BETWEEN_INCIDENTS_S = 8.0, 75.0


@dataclass(slots=True)
class Tally:
    """Counts of answers, failures and requests given up since the last report."""

    statuses: Counter[int] = field(default_factory=Counter)
    unreachable: int = 0
    broken: int = 0
    given_up: int = 0

    def describe(self, seconds: float) -> str:
        """Return the counts of the last `seconds` as one line."""
        total = sum(self.statuses.values())
        parts = [f"{status}: {n:,}" for status, n in sorted(self.statuses.items())]
        lost = f"unreachable {self.unreachable}, broken off {self.broken}, given up {self.given_up}"
        return f"{total / seconds:.0f} requests/s; {', '.join(parts)}; {lost}"


class Driver:
    """Sends the crowd's requests to a gateway at their times, and starts incidents."""

    def __init__(self, crowd: Crowd, client: GatewayClient) -> None:
        self._crowd, self._client = crowd, client
        self._tally = Tally()
        self._under_way: set[asyncio.Task[None]] = set()
        self._silent_until = 0.0
        self._told = False

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests and start incidents until `stop` is set."""
        began = reported = time.time()
        incidents = 0
        while not stop.is_set():
            now = time.time()
            for planned in self._crowd.due(now):
                self._start(planned)
            if now >= began + FIRST_INCIDENT_S + incidents * BETWEEN_INCIDENTS_S:
                incident = INCIDENTS[incidents % len(INCIDENTS)]
                chosen = self._crowd.incident(incident.kind, incident.apps, now, incident.lasts)
                _say(f"{incident.words}: {len(chosen)} apps for {incident.lasts:.0f} s")
                incidents += 1
            if now >= reported + REPORT_S:
                _say(self._tally.describe(now - reported))
                self._tally, reported = Tally(), now
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), STEP_S)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._client.close()

    def _start(self, planned: PlannedRequest) -> None:
        if len(self._under_way) >= IN_FLIGHT_MOST or planned.at < self._silent_until:
            self._tally.given_up += 1
            return
        task = asyncio.get_running_loop().create_task(self._send(planned))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, planned: PlannedRequest) -> None:
        try:
            answer = await self._client.send(planned.request, planned.query)
        except GatewayUnreachable as error:
            self._tally.unreachable += 1
            self._silent_until = time.time() + SILENCE_S
            # Once is enough: a thousand requests may fail while the gateway starts.
            if not self._told:
                _say(f"waiting for the gateway: {error}")
            self._told = True
            return
        except GatewayError:
            self._tally.broken += 1
            return
        if self._told:
            _say("the gateway answers again")
            self._told = False
        self._tally.statuses[answer.status] += 1
        self._crowd.react(planned, answer.status, answer.retry_after, time.time())


def _say(words: str) -> None:
    print(f"traffic: {words}", flush=True)


async def drive(url: str, rate: float, seed: int, apps: int, signer: Signer | None = None) -> None:
    """Drive traffic until SIGTERM or SIGINT. Raises ValueError for a bad address or rate."""
    client = GatewayClient(url, signer=signer)
    crowd = Crowd(world.draw_population(seed, apps), seed, time.time(), rate)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _say(f"{apps:,} apps, about {rate:.0f} requests a second, to {url}")
    await Driver(crowd, client).run(stop)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m learning.traffic.drive",
        description="Simulated clients against a real gateway.",
    )
    parser.add_argument("--gateway", default="http://127.0.0.1:8080", metavar="URL")
    parser.add_argument("--rate", type=float, default=150.0, help="first tries a second")
    parser.add_argument("--seed", type=int, default=7, help="seed of the apps (demo: 7)")
    parser.add_argument("--apps", type=int, default=3000)
    parser.add_argument(
        "--client-key",
        type=Path,
        metavar="FILE",
        help="sign the clients' tokens with this key; without it they only claim who they are",
    )
    asked = parser.parse_args()
    try:
        signer = Signer(asked.client_key) if asked.client_key else None
        uvloop.run(drive(asked.gateway, asked.rate, asked.seed, asked.apps, signer))
    except (ValueError, OSError) as error:
        print(f"learning.traffic.drive: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
