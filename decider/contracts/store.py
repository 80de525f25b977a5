"""Names and wire formats of everything Sluice keeps in Valkey. All of it can be rebuilt.

All values are msgpack of the named struct. Keys do not name the installation: two installations
that share a server use two databases of it.

Which process reads and writes what stands in `decider.store_users.roles`: a new key needs a line.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from decider.contracts.config import MOST_SERVICES, Moment, Share
from decider.contracts.vocabulary import MlState, Tier

# Stream of `event.EventBatch`, field `b`; capped at EVENTS_MAXLEN entries and about EVENTS_BYTES.
EVENTS_STREAM = "sluice:events"
EVENTS_GROUP = "ingest"
# Chosen: each entry is a whole batch, so the stream holds the events of many minutes in which
# ingest stands still.
EVENTS_MAXLEN = 20_000
# Chosen: half of what the embedded store may hold. A full store refuses every write, also those of
# leases, so a stream that nobody reads must not fill it.
EVENTS_BYTES = 256 << 20

# Stream of lists of `requests.Outcome`, field `b`, with their seal in field `s`
# (`sealed.outcomes`); every decider reads all of it, from "now".
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
# List of sealed `node.commands.Answer` (`sealed.told`), one per decider, at ANSWERS_PREFIX + the
# command's nonce; gone after ANSWERS_TTL_S.
ANSWERS_PREFIX = "sluice:answers:"
# Chosen: well above the few seconds for which a page waits for the answers.
ANSWERS_TTL_S = 30

# Model artifact (`artifact` bytes), at MODEL_PREFIX + digest.
MODEL_PREFIX = "sluice:model:"

# Hash of node -> sealed `Ack` (`sealed.told`), at ACKS_PREFIX + config version; kept for
# ACKS_TTL_S.
ACKS_PREFIX = "sluice:acks:"
# A day: long enough to look into a version that a decider refused, short enough that old versions
# do not pile up.
ACKS_TTL_S = 86_400

# Sealed `NodeStatus` of one decider (`sealed.told`), at NODE_PREFIX + node; expires after
# NODE_TTL_S when the decider falls silent.
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


# Ranges hold where a message is read; the texts' lengths are those of the console's tables.
_Count = Annotated[int, Meta(ge=0, le=2**32)]
_Total = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # msgspec compares with 64 bits
NodeName = Annotated[str, Meta(min_length=1, max_length=128)]
_Name = Annotated[str, Meta(max_length=128)]
# Beyond any figure that is shown, and finite, so that pages may compute with it.
Figure = Annotated[float, Meta(ge=-1e15, le=1e15)]
# Characters of a sentence in a message. Chosen: several lines of a page; `cut` makes longer ones
# fit.
MOST_SAID = 1_000
Said = Annotated[str, Meta(max_length=MOST_SAID)]


def cut(text: str) -> str:
    """Return a sentence no longer than a message may hold."""
    return text if len(text) <= MOST_SAID else text[: MOST_SAID - 1] + "…"


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
    sealed_at: Moment = 0.0
    """Unix seconds, by the database's clock, at which the console read what it says; 0 from older
    consoles. Of two profiles of an app, the later one holds.
    """


class Ack(msgspec.Struct, array_like=True, frozen=True):
    """A decider's answer to a config version."""

    node: NodeName
    region: _Name
    version: _Total
    ok: bool
    error: Said
    """Why it was refused; empty when applied."""
    received_at: Moment
    applied_at: Moment
    took_ms: Figure
    """Time to verify, compile and swap in the document, milliseconds."""
    last_old_decision_at: Moment
    """Unix time of the last decision made under the version before; 0 when there was none."""
    source: _Name = "push"
    """How it came: push, poll, file or disk."""


class ServiceStatus(msgspec.Struct, array_like=True, frozen=True):
    """A service as one decider sees it."""

    name: _Name
    utilisation: Figure
    """Cost units served per second over capacity, region-wide, last 10 s."""
    price: Figure
    """Price per cost unit, 0 when there is room."""
    latency_ms: Figure
    """Mean latency, last 10 s."""
    error_share: Figure
    feedback_age_s: Figure
    """Seconds since the last outcome; large when the feed is late."""


class AgentStatus(msgspec.Struct, array_like=True, frozen=True):
    """Heartbeat of a gateway's agent, which writes the rules that the gateway itself holds to."""

    name: _Name
    at: Moment
    version: _Total = 0
    """Version of the document whose rules are written, 0 before the first."""
    held: _Total = 0
    """Apps, tenants and sources in the gateway's files."""
    left_out: _Total = 0
    """Those beyond what a gateway is given; only deciders know them."""
    error: Said = ""
    """Why the newest document or a file is not in use; "" when all is well."""


class RoutingStatus(msgspec.Struct, array_like=True, frozen=True):
    """How far one decider's idea of where requests go holds. Counts since its start, and of the
    last minutes (`routing_watch.RECENT_S`).
    """

    unknown_paths: _Total = 0
    """Requests whose path cannot be read, or is below no service's prefix while the gateway named
    none. They count for the fallback service.
    """
    unknown_services: _Total = 0
    """Requests for which the gateway named a service that the config document does not have."""
    misrouted: _Total = 0
    """Outcomes of another service than the one that the request was decided for."""
    recent_decisions: _Total = 0
    recent_unknown_paths: _Total = 0
    recent_misrouted: _Total = 0
    example: Said = ""
    """The last of the recent misrouted ones, as a clause."""


class IdentityStatus(msgspec.Struct, array_like=True, frozen=True):
    """How one decider reads the apps of credentials. Counts since its start."""

    error: Said = ""
    """Why the newest files of keys or apps are not in use; "" when they are."""
    refused: _Total = 0
    """Requests refused for their credential."""
    unread: _Total = 0
    """Requests decided by their address, as there was no room to verify their credential."""
    recent_unread: _Total = 0
    """Those of the last minute."""


class TimelyStatus(msgspec.Struct, array_like=True, frozen=True):
    """How many checks one decider had no time for, since its start and in the last minute."""

    late: _Total = 0
    """Checks that the fallback limiter decided, as there was no time to ask the model."""
    undecided: _Total = 0
    """Checks that came too late for any decision."""
    recent_checks: _Total = 0
    """All checks of the last minute, those without a decision included."""
    recent_late: _Total = 0
    recent_undecided: _Total = 0


class GatewayStatus(msgspec.Struct, array_like=True, frozen=True):
    """What one gateway's access log says of the questions to deciders, once a second."""

    gateway: _Name
    at: Moment
    asked: _Total = 0
    """Requests for which a decider was asked since its reader started."""
    unasked: _Total = 0
    """Of these, the ones without an answer in time, whatever became of them then."""
    recent_asked: _Total = 0
    """Of the last minute."""
    recent_unasked: _Total = 0
    recent_p99_ms: Figure = 0.0
    """What asking added to a request, 99th percentile of the last minute, milliseconds. Without an
    answer, it is at least the time that the gateway waits. 0: no request, or the gateway does not
    say.
    """
    given_up: _Total = 0
    """Lines of its log that were given up unread since its reader started, as they were too many
    while Valkey was away.
    """


class OutcomesStatus(msgspec.Struct, array_like=True, frozen=True):
    """How far one decider believes the outcomes in their stream. Counts since its start."""

    refused: _Total = 0
    """Entries that it did not believe: without a seal, with a wrong one, or sent before."""
    recent_refused: _Total = 0
    """Those of the last minute."""
    unsealed: _Total = 0
    """Entries without a seal that it took, as `--unsealed-outcomes` says."""
    recent_unsealed: _Total = 0
    why: Said = ""
    """Why it did not believe the last one, as a clause."""


class NodeStatus(msgspec.Struct, array_like=True, frozen=True):
    """Heartbeat of a decider, once a second."""

    node: NodeName
    region: _Name
    at: Moment
    started_at: Moment
    config_version: _Total
    model: _Name
    ml_state: Annotated[int, Meta(ge=0, le=int(max(MlState)))]
    decisions: _Total
    """Since start, exact (not sampled)."""
    by_action: Annotated[list[_Total], Meta(max_length=64)]
    """Since start, exact, in `Action` order."""
    events_sent: _Total
    events_dropped: _Total
    apps: _Total
    latency_p99_us: Figure
    """Decision time over its last 1,024 batches, microseconds."""
    services: Annotated[list[ServiceStatus], Meta(max_length=MOST_SERVICES)]
    last_error: Said = ""
    config_format: _Total = 1
    """Newest format of config documents that it reads (`config.FORMAT`); it reads older ones."""
    clock_steps: _Total = 0
    """Steps of its machine's wall clock since it started."""
    known_apps: _Total = 0
    """Apps in the table of known apps that it holds."""
    known_version: _Total = 0
    """Version of that table, 0 without one."""
    known_rejected: _Total = 0
    """Messages about that table that it ignored since it started: not signed, damaged, or not
    following on what it holds.
    """
    routing: RoutingStatus = RoutingStatus()
    peers: _Total = 0
    """Other deciders of the region whose reports it has."""
    alone: bool = False
    """Whether the store no longer passes reports on, so that it decides by its part of the region.
    """
    reports_rejected: _Total = 0
    """Reports that it ignored since it started: not authentic, damaged or out of range."""
    leases_wait: Said = ""
    """What new leases of daily quotas wait for while their ledger is rebuilt; "" when they do not.
    """
    leases_refused: _Total = 0
    """Answers of the store to calls for leases that it cut or refused since it started: more than
    the config document allows, or no number of requests.
    """
    identity: IdentityStatus = IdentityStatus()
    timely: TimelyStatus = TimelyStatus()
    messages_rejected: _Total = 0
    """Profiles and outcomes that it ignored since it started: not of this fleet, older than what it
    has, unreadable or out of range.
    """
    outcomes: OutcomesStatus = OutcomesStatus()


class IngestStatus(msgspec.Struct, array_like=True, frozen=True):
    """The progress of one ingest worker."""

    at: Moment
    lag_s: Figure
    """Age of the newest event when its batch was committed, seconds."""
    rows: _Total
    """Rows stored since this worker started."""
    pending: _Total
    """Batches in the stream not yet stored."""
