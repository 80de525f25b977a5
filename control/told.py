"""What deciders tell the console, believed only when it is sealed with a key of this installation.

What is not believed is named: in the log, once per node and minute, and to the caller.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from django.conf import settings

from control.deciders import keys
from control.errors import KeysError
from decider.contracts.sealed import told
from decider.contracts.sealed.codes import SealError
from decider.contracts.sealed.told import Kind, Unsealed
from decider.contracts.store import Ack, NodeStatus
from decider.node import commands
from decider.node.commands import Answer

log = logging.getLogger(__name__)
T = TypeVar("T", bound=msgspec.Struct)

# Seconds between two log lines about one node. Chosen: pages read heartbeats every few seconds.
LOG_EVERY_S = 60.0
# Nodes whose last line is remembered. Chosen: far above those of a fleet; somebody who makes up
# names must not fill the memory.
MOST_LOGGED = 1_024
# Messages that are named to the caller. Chosen: as many; whoever writes more shows no more.
MOST_DOUBTS = 1_024
# Characters of a node's name that are shown. Longer ones are nobody's.
MOST_NAME = 128

_logged: dict[str, float] = {}


@dataclass(frozen=True)
class Disbelief:
    """Something in a decider's place that is not believed."""

    node: str
    what: str
    """What it would be: "report", "ack", "answer"."""
    why: str
    """A clause about it, which begins with "it" or "its"."""
    claim: NodeStatus | None = None
    """What a heartbeat without a seal says. Nobody vouches for it: use it to refuse something,
    never to allow it.
    """


@dataclass
class Reader:
    """The reader of one look at what deciders wrote; it reads the installation's keys once."""

    doubts: list[Disbelief] = field(default_factory=list)
    """What was not believed, in the order of reading."""

    def __post_init__(self) -> None:
        self._trouble = ""
        try:
            # the older ones, too: a decider goes on with one until it starts again
            self._token_keys = keys.load_token_keys(settings.SLUICE_KEYS)
        except KeysError as error:
            self._token_keys, self._trouble = [], f"it cannot be checked: {error}".rstrip(".")

    def heartbeat(self, node: str, data: bytes | None, now: float) -> NodeStatus | None:
        """Return a node's heartbeat as of `now` (unix seconds); None for none, and for one that is
        not believed.
        """
        if not data:
            return None
        try:
            return told.read_heartbeat(data, node, now, self._keys(told.HEARTBEAT))
        except SealError as error:
            claim = told.read_claim(data, told.HEARTBEAT) if isinstance(error, Unsealed) else None
            self._doubt(node, "report", error, claim)
            return None

    def ack(self, node: str, data: bytes | None, version: int) -> Ack | None:
        """Return a node's ack of a config version; None for none and for one not believed."""
        if not data:
            return None
        try:
            return told.read_ack(data, node, version, self._keys(told.ACK))
        except SealError as error:
            self._doubt(node, "ack", error)
            return None

    def answer(self, data: bytes, nonce: str) -> Answer | None:
        """Return a decider's answer to the command of this nonce; None when it is not believed."""
        try:
            return commands.read_answer(data, nonce, self._keys(commands.ANSWER))
        except SealError as error:
            # the list of answers names no node, and nobody vouches for this name
            claim = told.read_claim(data, commands.ANSWER)
            self._doubt(claim.node if claim else "a decider", "answer", error)
            return None

    def _keys(self, kind: Kind[T]) -> list[bytes]:
        return [kind.derive_key(key) for key in self._token_keys]

    def _doubt(
        self, node: str, what: str, error: SealError, claim: NodeStatus | None = None
    ) -> None:
        found = Disbelief(node[:MOST_NAME], what, self._trouble or str(error), claim)
        if len(self.doubts) < MOST_DOUBTS:
            self.doubts.append(found)
        _log(found, time.monotonic())


def _log(found: Disbelief, now: float) -> None:
    """Log a message that is not believed, unless one of its node was logged a moment ago."""
    if now - _logged.get(found.node, float("-inf")) < LOG_EVERY_S:
        return
    # the one logged last stands last; what is forgotten was quiet for longest
    _logged.pop(found.node, None)
    _logged[found.node] = now
    while len(_logged) > MOST_LOGGED:
        # two threads may take the same one
        _logged.pop(next(iter(_logged)), None)
    log.warning("the %s of %r is not believed: %s", found.what, found.node, found.why)
