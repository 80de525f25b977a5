"""Who may do what with each kind of key in the store. Every name in `contracts.store` has a line
here; a test fails for one that has none.

Write access to the store must not be more than it looks: who takes over a decider can then write
what deciders write, and neither Celery's tasks nor the config document.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from decider.contracts import store


class Role(StrEnum):
    """A kind of process that uses the store, and the end of its user's name."""

    CONSOLE = "console"
    WORKER = "worker"
    DECIDER = "decider"
    INGEST = "ingest"
    FEEDBACK = "feedback"
    GATEWAY = "gateway"
    OPERATOR = "operator"
    """Commands that people run at a shell, such as `manage.py switch` and `manage.py replay`."""


Roles = frozenset[Role]
_NOBODY: Final[Roles] = frozenset()
_CONSOLE = frozenset({Role.CONSOLE})
_WORKER = frozenset({Role.WORKER})
_DECIDER = frozenset({Role.DECIDER})
_INGEST = frozenset({Role.INGEST})
_FEEDBACK = frozenset({Role.FEEDBACK})
_GATEWAY = frozenset({Role.GATEWAY})
_PUBLISHERS = _CONSOLE | _WORKER


@dataclass(frozen=True)
class Keys:
    """One kind of key, and the roles that read and write it."""

    pattern: str
    reads: Roles
    writes: Roles = _NOBODY


# The operator, who may read and write all of these, is in no line.
KEYS: Final = (
    Keys(store.EVENTS_STREAM, reads=_INGEST | _CONSOLE, writes=_DECIDER | _INGEST),
    Keys(store.INGEST_STATUS_KEY, reads=_CONSOLE, writes=_INGEST),
    Keys(store.OUTCOMES_STREAM, reads=_DECIDER, writes=_FEEDBACK),
    Keys(store.CONFIG_KEY, reads=_PUBLISHERS | _DECIDER | _GATEWAY, writes=_PUBLISHERS),
    Keys(store.MODEL_PREFIX + "*", reads=_PUBLISHERS | _DECIDER, writes=_PUBLISHERS),
    Keys(store.PROFILE_PREFIX + "*", reads=_DECIDER, writes=_WORKER),
    Keys(store.KNOWN_STREAM, reads=_WORKER | _DECIDER, writes=_WORKER),
    Keys(store.KNOWN_PART_PREFIX + "*", reads=_WORKER | _DECIDER, writes=_WORKER),
    Keys(store.FILLED_KEY, reads=_WORKER, writes=_WORKER),
    # whoever asks takes the answers out of their list
    Keys(store.ANSWERS_PREFIX + "*", reads=_CONSOLE, writes=_CONSOLE | _DECIDER),
    Keys(store.ACKS_PREFIX + "*", reads=_CONSOLE, writes=_DECIDER),
    Keys(store.NODE_PREFIX + "*", reads=_PUBLISHERS | _DECIDER, writes=_DECIDER),
    Keys(store.NODES_KEY, reads=_PUBLISHERS | _DECIDER, writes=_DECIDER),
    Keys(store.REPORT_PREFIX + "*", reads=_CONSOLE | _DECIDER, writes=_DECIDER),
    Keys(store.LEDGER_KEY, reads=_DECIDER, writes=_DECIDER),
    Keys(store.LEASES_PREFIX + "*", reads=_DECIDER, writes=_DECIDER),
    Keys(store.AGENT_PREFIX + "*", reads=_CONSOLE, writes=_GATEWAY),
    Keys(store.AGENTS_KEY, reads=_CONSOLE, writes=_GATEWAY),
    Keys(store.GATEWAYS_KEY, reads=_CONSOLE, writes=_FEEDBACK),
    Keys(store.THROTTLE_PREFIX + "*", reads=_CONSOLE, writes=_CONSOLE),
    Keys(store.CELERY_PREFIX + "*", reads=_WORKER, writes=_WORKER),
    # the console puts tasks into the queue, one list for each priority, and takes none out
    Keys(store.CELERY_PREFIX + "celery*", reads=_WORKER, writes=_PUBLISHERS),
    Keys(store.CELERY_PREFIX + "_kombu.binding*", reads=_PUBLISHERS, writes=_PUBLISHERS),
)

# Pub/sub channels and the roles that may use them. Which of them publish and which listen follows
# from their commands: a decider has no PUBLISH.
CHANNELS: Final = (
    (store.CONFIG_CHANNEL, _PUBLISHERS | _DECIDER),
    (store.PROFILES_CHANNEL, _WORKER | _DECIDER),
    (store.COMMANDS_CHANNEL, _CONSOLE | _DECIDER),
    (store.CELERY_PREFIX + "*", _WORKER),
)

# Every client: it says who it is, and asks whether the server lives.
_SESSION: Final = "ping select client|setinfo client|id acl|whoami"
_PUBLISH: Final = "get set exists expire del mget zrangebyscore evalsha script|load publish"

COMMANDS: Final[dict[Role, str]] = {
    Role.CONSOLE: (
        # publishing, acks, answers of deciders
        f"{_PUBLISH} hget hgetall blpop xinfo|groups hvals"
        # the throttles of the API, and tasks for the worker
        " incrby decrby lpush sadd smembers llen multi exec"
    ),
    Role.WORKER: (
        f"{_PUBLISH} eval xrange xrevrange xadd scan"
        # what Celery's broker needs
        " lpush rpush brpop rpop llen sadd srem smembers hset hget hdel hlen zadd zrem zrange"
        " pexpire pttl multi exec watch unwatch discard subscribe unsubscribe psubscribe"
        " punsubscribe"
    ),
    Role.DECIDER: (
        "get mget set exists expire hset xadd xread xrange xrevrange rpush zadd zrangebyscore"
        " subscribe unsubscribe multi exec"
        # leases, also what their scripts call
        " eval hget hscan zscore info time type del hdel hkeys hgetall hmget hincrby"
    ),
    Role.INGEST: (
        "xgroup|create xgroup|delconsumer xinfo|groups xreadgroup xautoclaim xpending xack set"
    ),
    Role.FEEDBACK: "xadd hset expire multi exec",
    Role.GATEWAY: "get set zadd",
    # everything with data, and nothing with the server
    Role.OPERATOR: "@read @write @pubsub @transaction eval evalsha script|load",
}
# What the operator's categories hold and no command of ours needs: it empties or moves databases,
# or leaves code in the server.
NOT_THE_OPERATORS: Final = "@admin @dangerous function"


def commands_of(role: Role) -> list[str]:
    """Return the commands of a role, as the server names them; categories begin with "@"."""
    return f"{_SESSION} {COMMANDS[role]}".split()
