"""How many deciders have applied a config version, and when the last decision under the old state
was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import cast

from control.deciders.valkey import answering
from control.models import ConfigVersion
from control.told import Disbelief, Reader
from decider.contracts.store import ACKS_PREFIX, NODE_PREFIX, NODES_KEY, Ack, NodeStatus

# Seconds. A decider silent for longer is no longer waited for. Chosen: an hour outlasts a restart
# and a short outage, and a node that was withdrawn does not hold up a change for ever.
FORGET_S = 3600.0


class NodeState(Enum):
    """Where a decider stands with a version."""

    ACKED = "acked"
    WAITING = "waiting"
    """It answers, but has not acknowledged."""
    REFUSED = "refused"
    UNBELIEVED = "unbelieved"
    """What it reports or acks is not sealed, or not by this installation's key."""
    SILENT = "silent"
    """It has sent no heartbeat for a while."""


@dataclass(frozen=True)
class Node:
    """Where one decider stands with one config version."""

    name: str
    region: str
    state: NodeState
    version: int | None
    """Version it runs by its last heartbeat; None when it is silent."""
    ms: float | None
    """Milliseconds from the change to its last decision under the old state; None when it has not
    acked or started after the change.
    """
    error: str
    """Why it refused this version; for a decider that acked it, why it refused another document
    since.
    """
    doubt: str
    """What it wrote that is not believed, and why, as a clause; "" when all is."""
    source: str
    """How the version came to it: push, poll, file or disk."""
    seen_at: float
    """Unix time of its last heartbeat."""
    started_later: bool
    """It started after the change, so it never ran the old state."""

    @property
    def acked(self) -> bool:
        return self.state is NodeState.ACKED


@dataclass(frozen=True)
class Region:
    """The deciders of one region."""

    name: str
    nodes: tuple[Node, ...]

    @property
    def acked(self) -> int:
        return sum(node.acked for node in self.nodes)


@dataclass(frozen=True)
class Propagation:
    """How far one version has reached."""

    version: int
    made_at: float
    """Unix seconds."""
    published: bool
    regions: tuple[Region, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(node for region in self.regions for node in region.nodes)

    @property
    def total(self) -> int:
        return len(self.nodes)

    @property
    def acked(self) -> int:
        return sum(node.acked for node in self.nodes)

    @property
    def late(self) -> tuple[Node, ...]:
        """The deciders that have not acked: those that wait, have refused, are silent or not
        believed.
        """
        return tuple(node for node in self.nodes if not node.acked)

    @property
    def complete(self) -> bool:
        return self.total > 0 and self.acked == self.total

    @property
    def scale(self) -> float:
        """Milliseconds at which a node's bar is full; at least 1."""
        return max(1.0, self.ms or 0.0)

    @property
    def ms(self) -> float | None:
        """Milliseconds from the change to the last decision under the old state on any node that
        acked; None when no such node ran before the change.
        """
        return max((node.ms for node in self.nodes if node.ms is not None), default=None)


def heartbeats(
    now: float, reader: Reader | None = None
) -> dict[str, tuple[float, NodeStatus | None]]:
    """Return, by name, every decider that sent a status within FORGET_S: the unix time of that
    status, and the status itself, None once it has expired and for one that is not believed, which
    `reader` then tells. Raise StoreUnavailable.
    """
    reader = reader or Reader()
    with answering() as valkey:
        # redis-py types these answers for clients that decode, too; this one gives bytes
        seen = cast(
            "list[tuple[bytes, float]]",
            valkey.zrangebyscore(NODES_KEY, now - FORGET_S, "+inf", withscores=True),
        )
        keys = [NODE_PREFIX.encode() + name for name, _ in seen]
        found = valkey.mget(keys) if keys else []
    raw = cast("list[bytes | None]", found)
    return {
        (node := name.decode(errors="replace")): (at, reader.heartbeat(node, data, now))
        for (name, at), data in zip(seen, raw, strict=True)
    }


def acks(version: int, reader: Reader | None = None) -> dict[str, Ack]:
    """Return the acks of a version by node, without those that are not believed, which `reader`
    then tells. Raise StoreUnavailable.
    """
    reader = reader or Reader()
    with answering() as valkey:
        raw = cast("dict[bytes, bytes]", valkey.hgetall(ACKS_PREFIX + str(version)))
    found = {}
    for name, data in raw.items():
        node = name.decode(errors="replace")
        if (ack := reader.ack(node, data, version)) is not None:
            found[node] = ack
    return found


def propagation(row: ConfigVersion, now: float) -> Propagation:
    """Return how far a committed version has reached at `now` (unix seconds). Raise
    StoreUnavailable.
    """
    return reach(row.version, row.made_at.timestamp(), row.published_at is not None, now)


def reach(version: int, made_at: float, published: bool, now: float) -> Propagation:
    """Return how far a version has reached, also one that is not in PostgreSQL yet. `made_at` and
    `now` are unix seconds. Raise StoreUnavailable.
    """
    reader = Reader()
    answers, beats = acks(version, reader), heartbeats(now, reader)
    refusals = _refusals(
        {name: status.config_version for name, (_, status) in beats.items() if status is not None},
        made_at,
        reader,
    )
    doubts = {doubt.node: doubt for doubt in reader.doubts}
    nodes = []
    for name, (seen, status) in beats.items():
        about = _About(version, made_at, refusals.get(name, ""), doubts.get(name))
        nodes.append(_node(name, seen, status, answers.get(name), about))
    nodes.sort(key=lambda node: (node.region, node.name))
    regions = tuple(
        Region(name, tuple(group)) for name, group in groupby(nodes, key=lambda node: node.region)
    )
    return Propagation(version, made_at, published, regions)


def old_state_ms(ack: Ack, status: NodeStatus | None, made_at: float) -> float | None:
    """Return the milliseconds from the change to the node's last decision under the old state.

    When the node made no decision between the change and applying the new version, the time of
    applying counts. Return None for a node that started after the change: it never ran the old
    state.
    """
    if status is not None and status.started_at > made_at:
        return None
    # the latest possible moment: the answer may be too long, never too short
    last = ack.last_old_decision_at if ack.last_old_decision_at >= made_at else ack.applied_at
    return max(0.0, (last - made_at) * 1000)


def _refusals(running: dict[str, int], made_at: float, reader: Reader) -> dict[str, str]:
    """Return why nodes refused a document since `made_at` (unix seconds). A node cannot trust the
    version in a document that it refuses, so it acks the refusal under the version it runs.
    """
    # no node to look up, so Valkey need not answer
    if not running:
        return {}
    with answering() as valkey, valkey.pipeline(transaction=False) as pipe:
        for name, version in running.items():
            pipe.hget(ACKS_PREFIX + str(version), name)
        raw = pipe.execute()
    found = {
        name: reader.ack(name, data, version)
        for (name, version), data in zip(running.items(), raw, strict=True)
    }
    return {
        name: ack.error
        for name, ack in found.items()
        if ack is not None and not ack.ok and ack.received_at >= made_at
    }


@dataclass(frozen=True)
class _About:
    """What tells a node's standing, besides its heartbeat and its ack."""

    version: int
    made_at: float
    """Unix seconds."""
    refusal: str
    """Why it refused a document since then; "" when it did not."""
    doubt: Disbelief | None
    """What it wrote that is not believed."""


def _state(status: NodeStatus | None, ack: Ack | None, about: _About) -> NodeState:
    if ack is not None and ack.ok:
        return NodeState.ACKED
    running = 0 if status is None else status.config_version
    # Acks expire, so a heartbeat under this version counts as one; so does one under a later
    # version, unless the node said that it does not go back.
    if running == about.version or (running > about.version and ack is None):
        return NodeState.ACKED
    if about.refusal or ack is not None:
        return NodeState.REFUSED
    if about.doubt is not None:
        return NodeState.UNBELIEVED
    return NodeState.SILENT if status is None else NodeState.WAITING


def _node(
    name: str, seen: float, status: NodeStatus | None, ack: Ack | None, about: _About
) -> Node:
    """Return one decider's standing from its last heartbeat and its ack of the version."""
    known = ack or status
    doubt = f"its {about.doubt.what} is not believed: {about.doubt.why}" if about.doubt else ""
    return Node(
        name=name,
        region=known.region if known is not None else "unknown region",
        state=_state(status, ack, about),
        version=status.config_version if status is not None else None,
        ms=old_state_ms(ack, status, about.made_at) if ack is not None and ack.ok else None,
        error=about.refusal or (ack.error if ack is not None else ""),
        doubt=doubt,
        source=ack.source if ack is not None else "",
        seen_at=seen,
        started_later=status is not None and status.started_at > about.made_at,
    )
