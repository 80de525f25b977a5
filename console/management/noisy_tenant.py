"""`manage.py demo noisy-tenant`: what it sends, what deciders say of it, and both as a table."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from django.core.management.base import CommandError

from console.local.clients import clients_signer
from control.directory import apps as directory
from decider.contracts.config import Service
from decider.contracts.vocabulary import Tier
from learning.traffic.client import GatewayClient
from learning.traffic.demos import noisy_tenant
from learning.traffic.demos.noisy_tenant import Sender
from monitoring import fleet, shares

# The demo service that is made short of room, and what is asked of it. Chosen: its share is a dozen
# requests a second, which a laptop sends beside everything else.
SERVICE, PATH = "search", "/v2/search"
# Tier of the tenants. Chosen: its plan allows more than six shares, so that fairness alone decides.
TIER = Tier.PREMIUM
# Seconds before the figures are kept. Chosen: deciders need two to see a surge, and their rates
# have time constants of up to five seconds.
SETTLE_S = 12.0
# Share of undecided requests beyond which the table proves nothing. Chosen: with a fifth undecided,
# the deciders' figures still describe what they decided; with a third, the service's load is
# another one than they know.
MOST_UNDECIDED = 0.25
# Seconds between two readings of what deciders report.
READ_EVERY_S = 1.0


@dataclass
class Readings:
    """What the deciders reported of each tenant while it lasted: asked for, due and given."""

    by_tenant: dict[str, list[tuple[float, float, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    short: int = 0
    taken: int = 0
    deciders: int = 0

    def take(self, names: dict[int, str]) -> None:
        """Read once what the deciders report. `names`: tenants by their hash."""
        found = shares.read_shares(SERVICE)
        self.taken += 1
        self.short += any(region.short for region in found)
        self.deciders = max([self.deciders, *(region.deciders for region in found)])
        for region in found:
            for tenant in region.tenants:
                if region.short and tenant.key in names:
                    self.by_tenant[names[tenant.key]].append((tenant.asks, tenant.due, tenant.gets))

    def mean(self, tenant: str) -> tuple[float, float, float]:
        """Return the means of a tenant's figures, cost units a second."""
        asks, due, gets = zip(*self.by_tenant[tenant], strict=True)
        return statistics.fmean(asks), statistics.fmean(due), statistics.fmean(gets)


@dataclass
class Run:
    """A run of the demo."""

    noisy: Sender
    quiet: list[Sender]
    names: dict[int, str]
    """Tenants' ids by the hash under which deciders name them."""
    readings: Readings = field(default_factory=Readings)

    @property
    def everyone(self) -> list[Sender]:
        return [self.noisy, *self.quiet]

    async def play(self, gateway: str, seconds: float, say: Callable[[str], object]) -> None:
        """Send everything, and read meanwhile what the deciders report."""
        client = GatewayClient(gateway, signer=clients_signer())

        def tell(elapsed: float) -> None:
            quiet = [one.admitted / max(1, one.decided) for one in self.quiet]
            say(
                f"{elapsed:5.0f} s  {self.noisy.tenant}: {self.noisy.admitted:,} of"
                f" {self.noisy.decided:,} admitted; the quiet ones: {min(quiet):.0%} to"
                f" {max(quiet):.0%} of theirs"
            )

        watching = asyncio.create_task(self._watch())
        try:
            await noisy_tenant.play(self.everyone, client, seconds, tell)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            client.close()

    async def _watch(self) -> None:
        await asyncio.sleep(SETTLE_S)
        while True:
            with suppress(fleet.Unreachable):
                await asyncio.to_thread(self.readings.take, self.names)
            await asyncio.sleep(READ_EVERY_S)

    def table(self) -> list[str]:
        """Return what was measured, a line for each tenant, and what it means."""
        read = self.readings
        if any(not read.by_tenant[one.tenant] for one in self.everyone):
            return [
                f"{SERVICE} was short of room in {read.short} of {read.taken} readings, too few to"
                " judge. Let it run for longer (--seconds).",
                *self._undecided(),
            ]
        lines = [
            f"Means of {read.short} readings of {read.deciders} deciders' reports, cost units a"
            " second; the last column is what clients got.",
            f"{'tenant':32} {'asked':>7} {'due':>7} {'given':>7} {'of due':>7}  admitted",
        ]
        parts: dict[str, float] = {}
        for one in self.everyone:
            asks, due, gets = read.mean(one.tenant)
            parts[one.tenant] = gets / due if due else 0.0
            lines.append(
                f"{one.tenant[:32]:32} {asks:7.1f} {due:7.1f} {gets:7.1f} {parts[one.tenant]:7.0%}"
                f"  {one.admitted:,} of {one.decided:,}"
            )
        quiet = [parts[one.tenant] for one in self.quiet]
        lines.append(
            f"{self.noisy.tenant} got {self.noisy.admitted:,} of {self.noisy.decided:,} requests,"
            f" {parts[self.noisy.tenant]:.0%} of its due; the quiet tenants {min(quiet):.0%} to"
            f" {max(quiet):.0%} of theirs."
        )
        return [*lines, *self._undecided()]

    def _undecided(self) -> list[str]:
        """Return a line about requests that no decider answered in time; none without any."""
        sent = sum(one.sent for one in self.everyone)
        missing = sent - sum(one.decided for one in self.everyone)
        if not missing:
            return []
        lines = [
            f"{missing:,} of {sent:,} requests were not decided: no decider answered within 15 ms,"
            " so the gateway's own limit took them, and they count neither as asked nor as given."
        ]
        if missing > MOST_UNDECIDED * sent:
            lines.append("That is too many to say who pays: the machine is too busy. Try again.")
        return lines


def prepared(names: Callable[[], dict[int, tuple[str, str]]]) -> Run:
    """Return a run with tenants of this installation. `names`: id and name of tenants by hash.

    Raise CommandError when the document lacks the service, or too few tenants are registered.
    """
    try:
        document = fleet.read_fleet().config
    except fleet.Unreachable as error:
        raise CommandError(
            f"Valkey does not answer: {error}. Start all with `make run`."
        ) from error
    service = next((s for s in document.services if s.name == SERVICE), None) if document else None
    if service is None:
        raise CommandError(f"The config document has no service {SERVICE}, which this demo needs.")
    try:
        apps = directory.trusted_tenants(TIER)
        noisy, quiet = noisy_tenant.senders(apps, _requests_per_s(service), PATH)
    except ValueError as error:
        raise CommandError(f"{error} `manage.py seed` registers the demo's.") from error
    ids = {one.tenant for one in (noisy, *quiet)}
    return Run(noisy, quiet, {key: one for key, (one, _) in names().items() if one in ids})


def _requests_per_s(service: Service) -> float:
    """Return the requests a second for which a service has room while it is short of it."""
    cost = next((e.cost for e in service.endpoints if e.template == PATH), 1.0)
    return service.capacity * service.target / cost
