"""What one engine shares with all its apps and with the other deciders: its services and tenants,
their controllers, and the reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from decider import policy
from decider.contracts.config import Config
from decider.contracts.store import ServiceStatus
from decider.engine.shared import service_control, tables
from decider.engine.shared.peers import Peers
from decider.engine.shared.state import FIRST_OWN_ROW, SHARED_ROWS, Region, describe
from decider.engine.shared.tenants import MAX_TENANTS

if TYPE_CHECKING:
    from decider.engine.address_table import Arena

# Longest step of the controllers, seconds. After a long pause, a step of the whole pause would
# throw the price far off.
LONGEST_STEP_S = 5.0


class Sharing:
    """The services and tenants of one engine. Times are engine time."""

    region: Region

    def __init__(self, arena: Arena, peers: Peers) -> None:
        self._arena, self.peers = arena, peers
        self.names: list[str] = []
        self.index: Mapping[str, int] = {}
        self._deciders = 1
        self._ticked_at = self._rotated_at = 0.0

    def apply(self, config: Config, rules: policy.Rules, index: Mapping[str, int]) -> None:
        """Take over services, tiers and weights of a document. `index`: rows by service name."""
        old = getattr(self, "region", None)
        region = tables.carry_over(old, self.index, config.services, MAX_TENANTS)
        region.tier[0] = config.unknown_tier
        by_tier = slice(SHARED_ROWS, FIRST_OWN_ROW)
        region.tier[by_tier] = range(len(rules.tiers))
        region.weight[by_tier] = rules.tiers[:, policy.T_WEIGHT]
        self.names, self.index = [s.name for s in config.services], index
        # reports heard before this document name its services in other rows
        self.peers.follow(index)
        self._deciders = config.nodes
        self._hold(region)

    def _hold(self, region: Region) -> None:
        self.region = region
        self._arena.hold(region=region)

    def tick_in_parts(self, now: float) -> Iterator[None]:
        """Do one step of the controllers in parts of about 1 ms, between which requests may be
        decided.
        """
        seconds = now - self._ticked_at
        if self._ticked_at and seconds <= 0.0:
            return
        if self._ticked_at:
            # the one at the start: a document that is applied between two parts may have fewer
            # services, and compiled code does not check its bounds
            region = self.region
            self.peers.merge(region, self._deciders, now)
            service_control.control(region, min(seconds, LONGEST_STEP_S), now)
            for service in range(len(region.service)):
                yield
                service_control.share_out(region, service, now)
        self._ticked_at = now
        if tables.wants_rotation(self.region, now - self._rotated_at):
            self._hold(tables.rotate(self.region))
            self._rotated_at = now

    def speak(self, now: float) -> bytes:
        """Return this decider's report to the others."""
        return self.peers.speak(self.region, self.names, now)

    def hear(self, heard: Sequence[bytes | None], now: float) -> None:
        """Take in the reports of the others, which count from the next tick on."""
        self.peers.hear(heard, self.index, now)

    def describe(self, now: float) -> list[ServiceStatus]:
        """Return how each service stands."""
        return describe(self.region, self.names, now)
