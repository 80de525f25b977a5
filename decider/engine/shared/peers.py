"""The other deciders of the region: what they say of their traffic, and this one's report to them.

Protection and fairness are the region's, not a decider's (`service_control`, `tenant_use`). While
the store passes reports on, each decider adds the others' figures to its own. While it does not,
each takes its part of the region to be 1 / deciders, so that together they give a service no more
than its room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decider.engine.shared import report as reports
from decider.engine.shared import tenant_use
from decider.engine.shared.report import NAMED, Report, ReportError
from decider.engine.shared.state import (
    ADMIT_NOW,
    ASKED_NOW,
    MERGE,
    N_TIERS,
    OTHERS_ADMIT,
    OTHERS_ASKED,
    OTHERS_PRICE,
    PRICE,
    UTILISATION,
    Region,
)

# Seconds between two reports. Chosen: deciders agree within half a second, at four messages a
# second from each.
REPORT_S = 0.25
# Seconds after which a decider that sends nothing new no longer counts. Chosen: six reports, so
# that a pause of one or two moves nothing.
STALE_S = 1.5
# Seconds without an answer of the store after which it counts as silent. Chosen as STALE_S.
SILENT_S = 1.5
# Seconds for which a decider that fell silent still counts when the region is divided. Chosen: one
# that was just started again, or hangs, comes back.
REMEMBERED_S = 30.0
# Most deciders of a region that are listened to. Chosen: more than a region of 450,000 requests/s
# needs.
MOST_PEERS = 256
# Utilisation from which a service's tenants are named. Chosen: at half load a service is a surge
# of a few seconds away from being short of room.
NAMED_FROM = 0.5
# Most tenants that are named for one service. Chosen: those that ask for most decide the fair
# level; the rest are told as one sum.
NAMED_EACH = 64


@dataclass(slots=True)
class Peer:
    """One other decider, as it was last heard of."""

    report: Report
    heard_at: float
    """Engine time."""
    rows: np.ndarray
    """int64 (services of the report,): their rows here, -1 for none."""


class Peers:
    """The other deciders, and this one's voice among them."""

    def __init__(self, node: str, token_key: bytes) -> None:
        self.node, self.started_at = node, 0.0
        self.key = reports.derive_key(token_key)
        self.in_fleet = False
        """Whether this decider exchanges reports at all; a replay or a test does not."""
        self.rejected = 0
        """Reports that were not authentic or out of range."""
        self._peers: dict[str, Peer] = {}
        self._number = 0
        self._answered_at = -np.inf
        self._index: Mapping[str, int] = {}

    def join(self, started_at: float) -> None:
        """Exchange reports from now on. `started_at`: start of the process, unix seconds."""
        self.in_fleet, self.started_at = True, started_at

    # ---- speaking

    def speak(self, region: Region, names: Sequence[str], now: float) -> bytes:
        """Return this decider's next report. `names`: the services in the order of their rows."""
        figures, named = describe(region, now)
        self._number += 1
        report = Report(
            self.node, self.started_at, self._number, list(names), figures.tobytes(), named
        )
        return reports.seal(report, self.key)

    # ---- listening

    def hear(self, heard: Sequence[bytes | None], index: Mapping[str, int], now: float) -> None:
        """Take in the reports that the store holds; count those that are no reports. `index`: the
        services' rows by name.
        """
        self._answered_at = now
        self.follow(index)
        for data in heard:
            if data is None:
                continue
            try:
                self._take(reports.unseal(data, self.key), now)
            except ReportError:
                self.rejected += 1
        for node in [n for n, p in self._peers.items() if now - p.heard_at > REMEMBERED_S]:
            del self._peers[node]

    def _take(self, report: Report, now: float) -> None:
        """Remember a report that is newer than the one before."""
        before = self._peers.get(report.node)
        if report.node == self.node or (before is None and len(self._peers) >= MOST_PEERS):
            return
        if before is not None:
            was = before.report
            if (report.started_at, report.number) <= (was.started_at, was.number):
                return
        self._peers[report.node] = Peer(report, now, self._rows_of(report))

    def follow(self, index: Mapping[str, int]) -> None:
        """Use these rows, by name, for services from now on."""
        # the same object, unless a document was applied since
        if index is not self._index:
            self._index = index
            for peer in self._peers.values():
                peer.rows = self._rows_of(peer.report)

    def _rows_of(self, report: Report) -> np.ndarray:
        return np.array([self._index.get(name, -1) for name in report.services], np.int64)

    def alive(self, now: float) -> list[str]:
        """Return the other deciders that were heard of lately, by name."""
        return sorted(n for n, p in self._peers.items() if now - p.heard_at <= STALE_S)

    def silent(self, now: float) -> bool:
        """Return whether the store no longer passes reports on."""
        return self.in_fleet and now - self._answered_at > SILENT_S

    # ---- adding up

    def merge(self, region: Region, deciders: int, now: float) -> None:
        """Write what the other deciders say into the region. `deciders`: how many the region is
        said to have, for a decider that has heard of none yet.
        """
        region.pairs_of[MERGE] += 1
        region.rest[:] = 0.0
        region.service[:, OTHERS_ASKED] = region.service[:, OTHERS_ADMIT] = 0.0
        region.service[:, OTHERS_PRICE] = -1.0
        region.part[0] = 1.0
        if not self.in_fleet:
            return
        if self.silent(now):
            never = self._answered_at == -np.inf
            region.part[0] = 1.0 / max(1, deciders if never else 1 + len(self._peers))
            return
        fresh = [p for p in self._peers.values() if now - p.heard_at <= STALE_S]
        prices = np.zeros((len(region.service), 2))
        for peer in fresh:
            _add(region, peer, prices)
        heard = prices[:, 1] > 0.0
        region.service[heard, OTHERS_PRICE] = prices[heard, 0] / prices[heard, 1]


def _add(region: Region, peer: Peer, prices: np.ndarray) -> None:
    """Add one peer's figures. `prices`: float64 (services, 2), sum and number of the prices."""
    known = (peer.rows >= 0) & (peer.rows < len(region.service))
    rows, figures = peer.rows[known], peer.report.read_figures()[known].astype(np.float64)
    # a report may name a service twice
    np.add.at(region.service[:, OTHERS_ASKED], rows, figures[:, reports.ASKED])
    np.add.at(region.service[:, OTHERS_ADMIT], rows, figures[:, reports.ADMITTED])
    np.add.at(prices[:, 0], rows, figures[:, reports.PRICE])
    np.add.at(prices[:, 1], rows, 1.0)
    np.add.at(region.rest, rows, figures[:, reports.REST :])
    named = peer.report.read_named()
    if len(named):
        services = np.where(known, peer.rows, -1)[named["service"]]
        tenant_use.take_others(region, services, named)


def describe(region: Region, now: float) -> tuple[np.ndarray, bytes]:
    """Return a report's figures, float32 (services, N_FIGURES), and its named tenants."""
    service = region.service
    figures = np.zeros((len(service), reports.N_FIGURES), np.float32)
    figures[:, reports.ASKED] = service[:, ASKED_NOW]
    figures[:, reports.ADMITTED] = service[:, ADMIT_NOW]
    figures[:, reports.PRICE] = service[:, PRICE]
    # the services that are closest to being short of room come first
    pressed = np.flatnonzero((service[:, PRICE] > 0.0) | (service[:, UTILISATION] >= NAMED_FROM))
    pressed = pressed[np.argsort(-service[pressed, PRICE] - service[pressed, UTILISATION])]
    parts, room = [], reports.MOST_NAMED
    for row in pressed:
        own = tenant_use.own_pairs(region, int(row), now)
        most = min(room, NAMED_EACH)
        if len(own) > most:
            order = np.argsort(-own["demand"] / own["weight"])
            _sum_up(own[order[most:]], figures[row, reports.REST :])
            own = own[order[:most]]
        room -= len(own)
        parts.append(own)
    named = np.concatenate(parts) if parts else np.empty(0, NAMED)
    return np.minimum(figures, reports.MOST_UNITS), named.tobytes()


def _sum_up(unnamed: np.ndarray, rest: np.ndarray) -> None:
    """Add demand and weight of tenants that are not named to `rest`, float32 (2 * N_TIERS,)."""
    for tier in range(N_TIERS):
        mine = unnamed["tier"] == tier
        rest[2 * tier] += unnamed["demand"][mine].sum()
        rest[2 * tier + 1] += unnamed["weight"][mine].sum()
