"""The deciders as they report themselves: heartbeats, the config they run, and how far ingest is,
read from Valkey.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar, cast

import msgspec
import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from control.told import Disbelief, Reader
from decider.contracts import config as configs
from decider.contracts import store
from decider.contracts.vocabulary import MlState
from decisions.store.worker import waiting

log = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds that a page waits for Valkey before it shows the state as unknown.
TIMEOUT_S = 0.5
# Seconds. A decider that has been silent for longer counts as withdrawn, no longer as lost.
FORGET_LOST_S = 3_600.0
# Seconds of lag. Chosen: a healthy ingest is well below a few seconds, so five are worth a look.
INGEST_WARN_S = 5.0
# Seconds of lag. Chosen: from here on pages visibly miss what clients complain about.
INGEST_BAD_S = 30.0
# Seconds after which what a gateway told says nothing of now. Chosen: as long as a decider's
# heartbeat counts.
GATEWAY_SILENT_S = 15.0
# Milliseconds, share and count. Beyond them no gateway told the truth: none waits for a minute.
_MOST_MS, _MOST_COUNT = 60_000.0, 2**53
# Seconds. Behavioural features promise to use outcomes no older than this.
FEEDBACK_LATE_S = 60.0


class Unreachable(Exception):
    """Raised when Valkey did not answer in time or its answer could not be read."""


@dataclass(frozen=True)
class Lost:
    """A decider that has stopped reporting."""

    node: str
    seen_at: float
    """Unix seconds of its last report."""


@dataclass(frozen=True)
class ServiceLoad:
    """One service as all live deciders together see it."""

    name: str
    utilisation: float
    """Highest share of capacity that any decider reports; each decider measures its whole region.
    """
    price: float
    latency_ms: float
    error_share: float
    feedback_age_s: float
    """Age of the newest outcome that any decider has, seconds."""

    @property
    def late(self) -> bool:
        return self.feedback_age_s > FEEDBACK_LATE_S


@dataclass(frozen=True)
class Fleet:
    """One reading of everything the deciders report."""

    at: float
    """Unix seconds of the reading."""
    nodes: tuple[store.NodeStatus, ...]
    lost: tuple[Lost, ...]
    config: configs.Config | None
    """The newest published document; None when nothing was published or it cannot be used."""
    config_error: str
    ingest: store.IngestStatus | None
    waiting: int
    """Batches in the stream that are not stored yet."""
    agents: tuple[store.AgentStatus, ...] = ()
    """The agents of gateways that report."""
    lost_agents: tuple[Lost, ...] = ()
    gateways: tuple[store.GatewayStatus, ...] = ()
    """What the gateways tell of their questions to deciders, those that are silent left out."""
    doubts: tuple[Disbelief, ...] = ()
    """What lies in deciders' places and is not believed: heartbeats, and acks of the config."""

    @property
    def unasked(self) -> tuple[int, int]:
        """Requests of the last minute for which no decider answered in time, and all for which one
        was asked, over all gateways.
        """
        return (
            sum(each.recent_unasked for each in self.gateways),
            sum(each.recent_asked for each in self.gateways),
        )

    @property
    def unasked_share(self) -> float | None:
        """The share of them, 0 to 1; None when no gateway tells of any."""
        unasked, asked = self.unasked
        return unasked / asked if asked else None

    @property
    def added_p99_ms(self) -> float | None:
        """What asking adds to a request at the slowest gateway, 99th percentile of the last
        minute, milliseconds; None when no gateway tells of any.
        """
        # 0: the gateway does not say how long it asked
        busy = [each.recent_p99_ms for each in self.gateways if each.recent_p99_ms]
        return max(busy) if busy else None

    @property
    def timely(self) -> store.TimelyStatus:
        """How many checks the deciders had no time for, all together."""
        every = [node.timely for node in self.nodes]
        return store.TimelyStatus(
            sum(each.late for each in every),
            sum(each.undecided for each in every),
            sum(each.recent_checks for each in every),
            sum(each.recent_late for each in every),
            sum(each.recent_undecided for each in every),
        )

    @property
    def size(self) -> int:
        return len(self.nodes) + len(self.lost) + len(self.unbelieved)

    @property
    def unbelieved(self) -> tuple[str, ...]:
        """Names of the deciders whose heartbeats are not believed."""
        return tuple(doubt.node for doubt in self.doubts if doubt.what == "report")

    @property
    def in_sync(self) -> int:
        return sum(
            self.config is not None and node.config_version == self.config.version
            for node in self.nodes
        )

    @property
    def without_ml(self) -> tuple[store.NodeStatus, ...]:
        return tuple(node for node in self.nodes if node.ml_state != MlState.LIVE)

    @property
    def switches(self) -> tuple[configs.Switch, ...]:
        """Kill switches in force now; one past its end clears by itself on every decider."""
        return tuple(configs.in_force(self.config.switches, self.at)) if self.config else ()

    def engaged(self, name: configs.SwitchName) -> bool:
        """Return whether the kill switch `name` is in force now."""
        return self.config is not None and configs.engaged(self.config, name, self.at)

    @property
    def ingest_lag_s(self) -> float | None:
        """About how far storing is behind, seconds; None before anything was stored.

        When no batch waits, it is the lag of the last batch. When batches wait, it grows until a
        worker reports again.
        """
        if self.ingest is None:
            return None
        silent = max(0.0, self.at - self.ingest.at) if self.waiting else 0.0
        return max(self.ingest.lag_s, silent)

    @property
    def unknown_paths(self) -> tuple[int, float]:
        """The last minutes' requests with an unknown path over all deciders: their number, and
        their share of all, 0 to 1.
        """
        unknown = sum(node.routing.recent_unknown_paths for node in self.nodes)
        decisions = sum(node.routing.recent_decisions for node in self.nodes)
        return unknown, unknown / max(decisions, 1)

    @property
    def misrouted(self) -> store.RoutingStatus:
        """The routing of the decider that saw the most outcomes of another service than decided
        for, lately. Each decider reads all outcomes, so the counts are no sum.
        """
        every = (node.routing for node in self.nodes)
        return max(every, key=lambda r: r.recent_misrouted, default=store.RoutingStatus())

    @property
    def services(self) -> tuple[ServiceLoad, ...]:
        """The services, the one with the highest share of capacity in use first."""
        by_name: dict[str, list[store.ServiceStatus]] = {}
        for node in self.nodes:
            for service in node.services:
                by_name.setdefault(service.name, []).append(service)
        loads = [_together(name, reports) for name, reports in by_name.items()]
        return tuple(sorted(loads, key=lambda load: -load.utilisation))


def _together(name: str, reports: list[store.ServiceStatus]) -> ServiceLoad:
    freshest = min(reports, key=lambda r: r.feedback_age_s)
    return ServiceLoad(
        name=name,
        utilisation=max(r.utilisation for r in reports),
        price=max(r.price for r in reports),
        latency_ms=freshest.latency_ms,
        error_share=freshest.error_share,
        feedback_age_s=freshest.feedback_age_s,
    )


@lru_cache(maxsize=4)
def client(url: str) -> redis.Redis:
    """Return a client that gives up quickly: a page should show that it does not know rather than
    hang.
    """
    retry = Retry(NoBackoff(), 1)
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=retry
    )


def read_fleet(now: float | None = None) -> Fleet:
    """Return everything that the deciders report, as of `now` (unix seconds). Raise Unreachable."""
    now = time.time() if now is None else now
    valkey = client(settings.VALKEY_URL)
    try:
        # redis-py types this answer for clients that decode, too; this one gives bytes
        known = cast(
            "list[tuple[bytes, float]]",
            valkey.zrangebyscore(store.NODES_KEY, now - FORGET_LOST_S, "+inf", withscores=True),
        )
        reporting, silent = _read_agents(valkey, now)
        pipe = valkey.pipeline(transaction=False)
        for name, _ in known:
            pipe.get(store.NODE_PREFIX.encode() + name)
        pipe.get(store.CONFIG_KEY)
        pipe.get(store.INGEST_STATUS_KEY)
        pipe.exists(store.EVENTS_STREAM)
        pipe.hvals(store.GATEWAYS_KEY)
        *statuses, config, ingest, has_stream, gateways = pipe.execute()
        backlog = waiting(valkey) if has_stream else 0
        document, problem = _document(config)
        acks = _read_acks(valkey, document)
    except (redis.RedisError, OSError) as error:
        raise Unreachable(str(error)) from error
    reader = Reader()
    names = [(name.decode(errors="replace"), seen) for name, seen in known]
    nodes, lost = _deciders(names, statuses, reader, now)
    for name, data in acks.items():
        reader.ack(name.decode(errors="replace"), data, document.version if document else 0)
    return Fleet(
        now,
        nodes,
        lost,
        document,
        problem,
        _read(ingest, store.IngestStatus),
        backlog,
        reporting,
        silent,
        _gateways(gateways, now),
        tuple(reader.doubts),
    )


def _read_acks(valkey: redis.Redis, document: configs.Config | None) -> dict[bytes, bytes]:
    """Return the acks of the published document by node. Raise redis.RedisError."""
    if document is None:
        return {}
    return cast("dict[bytes, bytes]", valkey.hgetall(f"{store.ACKS_PREFIX}{document.version}"))


def _deciders(
    names: list[tuple[str, float]], statuses: list[bytes | None], reader: Reader, now: float
) -> tuple[tuple[store.NodeStatus, ...], tuple[Lost, ...]]:
    """Return the deciders that report at `now` and are believed, and those that have stopped."""
    told = list(zip(names, statuses, strict=True))
    found = [reader.heartbeat(name, raw, now) for (name, _), raw in told]
    nodes = sorted((status for status in found if status is not None), key=lambda n: n.node)
    return tuple(nodes), tuple(Lost(name, seen) for (name, seen), raw in told if not raw)


def _read(data: bytes | None, form: type[T]) -> T | None:
    """Return what one program told; None for nothing, and for what is none: it costs itself."""
    try:
        return msgspec.msgpack.decode(data, type=form) if data else None
    except configs.MALFORMED as error:
        log.warning("what a program told is no %s: %s", form.__name__, error)
        return None


def _read_agents(
    valkey: redis.Redis, now: float
) -> tuple[tuple[store.AgentStatus, ...], tuple[Lost, ...]]:
    """Return the agents of gateways that report and those that have stopped. Raise Unreachable."""
    known = cast(
        "list[tuple[bytes, float]]",
        valkey.zrangebyscore(store.AGENTS_KEY, now - FORGET_LOST_S, "+inf", withscores=True),
    )
    if not known:
        return (), ()
    keys = [store.AGENT_PREFIX.encode() + name for name, _ in known]
    told = cast("list[bytes | None]", valkey.mget(keys))
    found = [status for raw in told if (status := _read(raw, store.AgentStatus)) is not None]
    pairs = zip(known, told, strict=True)
    lost = [Lost(name.decode(errors="replace"), seen) for (name, seen), raw in pairs if not raw]
    return tuple(found), tuple(lost)


def _gateways(found: list[bytes], now: float) -> tuple[store.GatewayStatus, ...]:
    """Return what gateways tell of now. One that tells nonsense costs itself only."""
    told = []
    for raw in found:
        if (status := _read(raw, store.GatewayStatus)) is None:
            continue
        sane = (
            0 <= status.recent_unasked <= status.recent_asked <= _MOST_COUNT
            and 0 <= status.unasked <= status.asked <= _MOST_COUNT
            and 0.0 <= status.recent_p99_ms <= _MOST_MS
        )
        if sane and abs(now - status.at) <= GATEWAY_SILENT_S:
            told.append(status)
    return tuple(sorted(told, key=lambda status: status.gateway))


def _document(data: bytes | None) -> tuple[configs.Config | None, str]:
    if not data:
        return None, ""
    try:
        return configs.verify(
            data, configs.read_public_keys(settings.SLUICE_KEYS / "config.pub")
        ), ""
    except (configs.ConfigError, OSError, ValueError) as error:
        return None, str(error)
