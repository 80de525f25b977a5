"""Names and wire formats of everything Sluice keeps in Valkey. All of it can be rebuilt.

All values are msgpack of the named struct. Keys do not name the installation: two installations
that share a server use two databases of it.

Which process reads and writes what stands in `decider.store_users.roles`: a new key needs a line.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from decider.contracts.config import Moment, Share
from decider.contracts.vocabulary import Tier

# Stream of `event.EventBatch`, field `b`; capped at EVENTS_MAXLEN entries and about EVENTS_BYTES.
EVENTS_STREAM = "sluice:events"
EVENTS_GROUP = "ingest"
# Chosen: each entry is a whole batch, so the stream holds the events of many minutes in which
# ingest stands still.
EVENTS_MAXLEN = 20_000
# Chosen: half of what the embedded store may hold. A full store refuses every write, also those of
# leases, so a stream that nobody reads must not fill it.
EVENTS_BYTES = 256 << 20

# Stream of lists of `requests.Outcome`, field `b`; every decider reads all of it, from "now".
OUTCOMES_STREAM = "sluice:outcomes"
# Chosen: half as many as events. A decider needs only recent outcomes: one that was away starts
# from "now".
OUTCOMES_MAXLEN = 10_000

# The newest signed config document (`config.Signed`).
CONFIG_KEY = "sluice:config"
# Pub/sub: the same bytes, the moment they are published.
CONFIG_CHANNEL = "sluice:config:push"

# Sealed `Profile` of one app (`sealed.profiles`), at PROFILE_PREFIX + app id.
PROFILE_PREFIX = "sluice:profile:"
# Pub/sub: a sealed `Profile` that changed.
PROFILES_CHANNEL = "sluice:profiles:push"

# Stream of the table of known apps, field `b`: one signed `known.Snapshot`, then the signed
# `known.Changes` after it. The id of an entry is its version and "-0".
KNOWN_STREAM = "sluice:known"
# A part of a snapshot, at KNOWN_PART_PREFIX + digest.
KNOWN_PART_PREFIX = "sluice:known:part:"
# Parts of an older snapshot stay for so long. Chosen: well above the seconds a decider needs to
# load them.
KNOWN_PART_TTL_S = 600

# Set to the mark of the key that profiles are sealed with (`sealed.profiles.mark`) once all of them
# are there. With another mark, or none as in an emptied store, all are sent again.
FILLED_KEY = "sluice:filled"

# Pub/sub: signed `node.commands.Command`s about one app. Nothing keeps them, so none can reach a
# decider that starts later.
COMMANDS_CHANNEL = "sluice:commands"
# List of `node.commands.Answer`, one per decider, at ANSWERS_PREFIX + the command's nonce; gone
# after ANSWERS_TTL_S.
ANSWERS_PREFIX = "sluice:answers:"
# Chosen: well above the few seconds for which a page waits for the answers.
ANSWERS_TTL_S = 30

# Model artifact (`artifact` bytes), at MODEL_PREFIX + digest.
MODEL_PREFIX = "sluice:model:"

# Hash of node -> `Ack`, at ACKS_PREFIX + config version; kept for ACKS_TTL_S.
ACKS_PREFIX = "sluice:acks:"
# A day: long enough to look into a version that a decider refused, short enough that old versions
# do not pile up.
ACKS_TTL_S = 86_400

# `NodeStatus` of one decider, at NODE_PREFIX + node; expires after NODE_TTL_S when the decider
# falls silent.
NODE_PREFIX = "sluice:node:"
# Fifteen missed heartbeats: a pause of the store or the network does not look like a dead decider.
NODE_TTL_S = 15
# Sorted set of node names by the unix time of their last status, so that a lost decider is still
# known.
NODES_KEY = "sluice:nodes"

# Sealed `engine.shared.report.Report` of one decider, at REPORT_PREFIX + node; gone after
# REPORT_TTL_S.
REPORT_PREFIX = "sluice:report:"
# Chosen: no decider listens to one that has been silent for so long.
REPORT_TTL_S = 5

# Hash: the head of the ledger of leases. It holds the ledger's id, the server on which it began,
# whether it is open, and which nodes are in it (`node.leasing`).
LEDGER_KEY = "sluice:ledger"
# Hashes of app -> requests leased, at LEASES_PREFIX + "<ledger's id>:<UTC day, YYYYMMDD>": to all
# deciders; with ":<node>" behind it, to one.
LEASES_PREFIX = "sluice:leases:"

# `AgentStatus` of one gateway's agent, at AGENT_PREFIX + its name; expires after NODE_TTL_S.
AGENT_PREFIX = "sluice:agent:"
# Sorted set of agents' names by the unix time of their last status, as NODES_KEY.
AGENTS_KEY = "sluice:agents"
# Hash of gateway -> `GatewayStatus`, rewritten once a second by the program that reads the
# gateway's access log.
GATEWAYS_KEY = "sluice:gateways"
# A day: a gateway that is gone leaves nothing behind for long.
GATEWAYS_TTL_S = 86_400

# `IngestStatus`, rewritten by each ingest worker after each batch.
INGEST_STATUS_KEY = "sluice:ingest"

# Counters of the REST API's calls, at THROTTLE_PREFIX + who calls + ":" + the window's number.
THROTTLE_PREFIX = "sluice:throttle:"
# Celery's queues and what belongs to them.
CELERY_PREFIX = "sluice:celery:"


# Ranges hold where a profile is read; the texts' lengths are those of the console's tables.
_Count = Annotated[int, Meta(ge=0, le=2**32)]


class Profile(msgspec.Struct, array_like=True, frozen=True):
    """What is known of an app apart from its behaviour. The default values are the cold start of an
    unknown app.
    """

    app: Annotated[str, Meta(min_length=1, max_length=128)]
    name: Annotated[str, Meta(max_length=200)] = ""
    tenant: Annotated[str, Meta(max_length=128)] = ""
    # a tier beyond the document's would reach past the end of compiled tables
    tier: Annotated[int, Meta(ge=0, le=int(max(Tier)))] = 0
    created_at: Moment = 0.0
    """Unix seconds the app was registered; 0 when unknown."""
    verified: bool = False
    # as `features.FEATURES`' default of the same name
    cohort_prior: Share = 0.05
    """Share of abusive apps in its cohort, 0 to 1."""
    abuse_history: _Count = 0
    """Confirmed abuse reports, matured."""
    chargeback_history: _Count = 0
    false_throttle_history: _Count = 0
    """Refusals that support or the label feed found wrong."""


class Ack(msgspec.Struct, array_like=True, frozen=True):
    """A decider's answer to a config version."""

    node: str
    region: str
    version: int
    ok: bool
    error: str
    """Why it was refused; empty when applied."""
    received_at: float
    applied_at: float
    took_ms: float
    """Time to verify, compile and swap in the document, milliseconds."""
    last_old_decision_at: float
    """Unix time of the last decision made under the version before; 0 when there was none."""
    source: str = "push"
    """How it came: push, poll, file or disk."""


class ServiceStatus(msgspec.Struct, array_like=True, frozen=True):
    """A service as one decider sees it."""

    name: str
    utilisation: float
    """Cost units served per second over capacity, region-wide, last 10 s."""
    price: float
    """Price per cost unit, 0 when there is room."""
    latency_ms: float
    """Mean latency, last 10 s."""
    error_share: float
    feedback_age_s: float
    """Seconds since the last outcome; large when the feed is late."""


class AgentStatus(msgspec.Struct, array_like=True, frozen=True):
    """Heartbeat of a gateway's agent, which writes the rules that the gateway itself holds to."""

    name: str
    at: float
    version: int = 0
    """Version of the document whose rules are written, 0 before the first."""
    held: int = 0
    """Apps, tenants and sources in the gateway's files."""
    left_out: int = 0
    """Those beyond what a gateway is given; only deciders know them."""
    error: str = ""
    """Why the newest document or a file is not in use; "" when all is well."""


class RoutingStatus(msgspec.Struct, array_like=True, frozen=True):
    """How far one decider's idea of where requests go holds. Counts since its start, and of the
    last minutes (`routing_watch.RECENT_S`).
    """

    unknown_paths: int = 0
    """Requests whose path cannot be read, or is below no service's prefix while the gateway named
    none. They count for the fallback service.
    """
    unknown_services: int = 0
    """Requests for which the gateway named a service that the config document does not have."""
    misrouted: int = 0
    """Outcomes of another service than the one that the request was decided for."""
    recent_decisions: int = 0
    recent_unknown_paths: int = 0
    recent_misrouted: int = 0
    example: str = ""
    """The last of the recent misrouted ones, as a clause."""


class IdentityStatus(msgspec.Struct, array_like=True, frozen=True):
    """How one decider reads the apps of credentials. Counts since its start."""

    error: str = ""
    """Why the newest files of keys or apps are not in use; "" when they are."""
    refused: int = 0
    """Requests refused for their credential."""
    unread: int = 0
    """Requests decided by their address, as there was no room to verify their credential."""
    recent_unread: int = 0
    """Those of the last minute."""


class TimelyStatus(msgspec.Struct, array_like=True, frozen=True):
    """How many checks one decider had no time for, since its start and in the last minute."""

    late: int = 0
    """Checks that the fallback limiter decided, as there was no time to ask the model."""
    undecided: int = 0
    """Checks that came too late for any decision."""
    recent_checks: int = 0
    """All checks of the last minute, those without a decision included."""
    recent_late: int = 0
    recent_undecided: int = 0


class GatewayStatus(msgspec.Struct, array_like=True, frozen=True):
    """What one gateway's access log says of the questions to deciders, once a second."""

    gateway: str
    at: float
    asked: int = 0
    """Requests for which a decider was asked since its reader started."""
    unasked: int = 0
    """Of these, the ones without an answer in time, whatever became of them then."""
    recent_asked: int = 0
    """Of the last minute."""
    recent_unasked: int = 0
    recent_p99_ms: float = 0.0
    """What asking added to a request, 99th percentile of the last minute, milliseconds. Without an
    answer, it is at least the time that the gateway waits. 0: no request, or the gateway does not
    say.
    """
    given_up: int = 0
    """Lines of its log that were given up unread since its reader started, as they were too many
    while Valkey was away.
    """


class NodeStatus(msgspec.Struct, array_like=True, frozen=True):
    """Heartbeat of a decider, once a second."""

    node: str
    region: str
    at: float
    started_at: float
    config_version: int
    model: str
    ml_state: int
    decisions: int
    """Since start, exact (not sampled)."""
    by_action: list[int]
    """Since start, exact, in `Action` order."""
    events_sent: int
    events_dropped: int
    apps: int
    latency_p99_us: float
    """Decision time over its last 1,024 batches, microseconds."""
    services: list[ServiceStatus]
    last_error: str = ""
    config_format: int = 1
    """Newest format of config documents that it reads (`config.FORMAT`); it reads older ones."""
    clock_steps: int = 0
    """Steps of its machine's wall clock since it started."""
    known_apps: int = 0
    """Apps in the table of known apps that it holds."""
    known_version: int = 0
    """Version of that table, 0 without one."""
    known_rejected: int = 0
    """Messages about that table that it ignored since it started: not signed, damaged, or not
    following on what it holds.
    """
    routing: RoutingStatus = RoutingStatus()
    peers: int = 0
    """Other deciders of the region whose reports it has."""
    alone: bool = False
    """Whether the store no longer passes reports on, so that it decides by its part of the region.
    """
    reports_rejected: int = 0
    """Reports that it ignored since it started: not authentic, damaged or out of range."""
    leases_wait: str = ""
    """What new leases of daily quotas wait for while their ledger is rebuilt; "" when they do not.
    """
    leases_refused: int = 0
    """Answers of the store to calls for leases that it cut or refused since it started: more than
    the config document allows, or no number of requests.
    """
    identity: IdentityStatus = IdentityStatus()
    timely: TimelyStatus = TimelyStatus()
    messages_rejected: int = 0
    """Profiles and outcomes that it ignored since it started: not of this fleet, unreadable or out
    of range.
    """


class IngestStatus(msgspec.Struct, array_like=True, frozen=True):
    """The progress of one ingest worker."""

    at: float
    lag_s: float
    """Age of the newest event when its batch was committed, seconds."""
    rows: int
    """Rows stored since this worker started."""
    pending: int
    """Batches in the stream not yet stored."""
