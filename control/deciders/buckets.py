"""One app's buckets on the running deciders: look into them, and have one filled.

The ring hash gives each app to one decider, which alone has its live bucket. Which one that is
changes as deciders come and go. So all are asked, and each answers for itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
from django.conf import settings

from control.audit import chain
from control.audit.actors import Actor
from control.deciders import acks, keys
from control.deciders.valkey import answering, raw_bytes
from control.errors import NotAllowed, Refused, StoreUnavailable
from control.permissions import holds
from control.told import Disbelief, Reader
from decider.contracts.store import ANSWERS_PREFIX, COMMANDS_CHANNEL
from decider.node import commands as wire
from decider.node.commands import Answer, Command, View

Bucket = Literal["burst", "errors"]
PERMISSION = "control.reset_bucket"
# Seconds that all deciders together have for their answers. Chosen: a person waits for the page,
# and a decider answers within milliseconds. Below valkey.TIMEOUT_S, as the socket would otherwise
# time out first.
WAIT_S = 1.0
# Seconds to wait for answers when no decider has reported lately: one that has only just started
# may still answer.
HOPE_S = 0.2
# Answers that were not believed and are shown. Chosen: one is enough to look into it.
MOST_DOUBTS = 4
_VERBS: dict[Bucket, wire.Verb] = {"burst": "fill_burst", "errors": "fill_errors"}


@dataclass(frozen=True, slots=True)
class BucketKind:
    """A bucket that can be filled."""

    name: Bucket
    label: str
    consequence: str
    """What filling does, a sentence about the future."""


KINDS: dict[str, BucketKind] = {
    "burst": BucketKind(
        "burst",
        "Burst bucket",
        "Its burst bucket becomes full on every decider that tracks it, and the wait its clients"
        " were told ends at once. Its daily quota, rules and risk stay as they are, so it may be"
        " refused again.",
    ),
    "errors": BucketKind(
        "errors",
        "False-throttle budget",
        "What refusals by ML have spent of its false-throttle error budget is forgotten on every"
        " decider that tracks it, so ML may refuse it again as far as its requests of the hour and"
        " the day allow. Its tokens, daily quota and rules stay as they are.",
    ),
}


@dataclass(frozen=True, slots=True)
class Node:
    """One decider and its answer."""

    name: str
    answer: Answer | None
    """None when it did not answer in time."""

    @property
    def view(self) -> View | None:
        return self.answer.view if self.answer else None


@dataclass(frozen=True, slots=True)
class Peek:
    """What all deciders say about one app."""

    at: float
    """Unix seconds at which they were asked."""
    nodes: tuple[Node, ...]
    """All deciders that report or have answered, sorted by name."""
    doubts: tuple[Disbelief, ...] = ()
    """Answers that were not believed."""

    @property
    def tracking(self) -> tuple[Node, ...]:
        """The deciders that track the app; the one that saw it most recently comes first."""
        known = [n for n in self.nodes if n.view is not None]
        return tuple(sorted(known, key=lambda n: -n.view.last_seen if n.view else 0.0))

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(n.name for n in self.nodes if n.answer is None)

    @property
    def done(self) -> tuple[str, ...]:
        """Names of the deciders that filled the bucket."""
        return tuple(n.name for n in self.nodes if n.answer is not None and n.answer.done)


def may_reset(user: object) -> bool:
    """Return whether this person may have a bucket filled. The button asks this, the endpoint asks
    `check_may_reset`.
    """
    return holds(user, PERMISSION)


def check_may_reset(user: object) -> None:
    """Raise NotAllowed for a person who may not have a bucket filled."""
    if not may_reset(user):
        raise NotAllowed(f"{user} may not reset buckets.")


def kind(name: str) -> BucketKind:
    """Return the bucket of that name. Raise Refused when there is none that can be filled."""
    if (found := KINDS.get(name)) is None:
        raise Refused(
            f"There is no bucket “{name}” that can be reset. Choose from: {', '.join(KINDS)}."
        )
    return found


def peek(app: str) -> Peek:
    """Return an app's buckets on every decider as they are now, without using any tokens. Raise
    StoreUnavailable, and Refused for a text that is not an app id.
    """
    return _ask("peek", app)


def reset(name: str, *, app: str, by: Actor, reason: str) -> Peek:
    """Have every decider that tracks an app fill one of its buckets, once. Return what each did.

    The audit log records the request before the deciders are asked, and their answers afterwards.
    Raise Refused when the reason is empty or there is no such bucket or app id. Raise
    StoreUnavailable when Valkey does not answer; then it is not known whether a bucket was filled.
    """
    which = kind(name)
    # raises for a text that is not an app id, before the audit log gets an entry
    _command(_VERBS[which.name], app)
    _note_request(which, app, by, reason)
    try:
        found = _ask(_VERBS[which.name], app)
    except StoreUnavailable:
        _note_outcome(which, app, by, reason, "heard from no decider, as Valkey did not answer", {})
        raise
    where = f"filled it on {', '.join(found.done)}" if found.done else "filled it on no decider"
    _note_outcome(which, app, by, reason, where, {n.name: _said(n) for n in found.nodes})
    return found


def _note_request(which: BucketKind, app: str, by: Actor, reason: str) -> None:
    """Record in the audit log what the deciders are about to be asked. Raise Refused."""
    # a change by itself: it is committed, not only written, before a decider acts
    chain.append(
        by=by,
        reason=reason,
        action="bucket.reset",
        subject=app,
        after={"bucket": which.name},
        summary=f"asked the deciders to fill the {which.label.lower()} of app {app}",
    )


def _note_outcome(
    which: BucketKind, app: str, by: Actor, reason: str, what: str, nodes: dict[str, str]
) -> None:
    """Record in the audit log what the deciders answered."""
    summary = f"asked for a full {which.label.lower()} of app {app} and {what}"[:500]
    after: chain.Json = {"bucket": which.name, "nodes": nodes}
    chain.append(
        by=by, reason=reason, action="bucket.reset_acked", subject=app, summary=summary, after=after
    )


def _said(node: Node) -> str:
    if node.answer is None:
        return "no answer"
    return "filled" if node.answer.done else node.answer.error or "not done"


def _ask(verb: wire.Verb, app: str) -> Peek:
    return _sent(_command(verb, app))


def _command(verb: wire.Verb, app: str) -> Command:
    now = time.time()
    command = Command(verb, app, secrets.token_hex(16), now, now + wire.LIFE_S)
    try:
        return msgspec.convert(msgspec.to_builtins(command), Command)
    except msgspec.ValidationError as error:
        raise Refused(
            "This is not an app id. An app id has 1 to 128 visible ASCII characters and no spaces."
        ) from error


def _sent(command: Command) -> Peek:
    """Send a command to all deciders and collect their answers, until every live decider has
    answered or the time is up.
    """
    data = wire.sign(command, keys.load_signing_key(settings.SLUICE_KEYS))
    living = {
        name
        for name, (_, status) in acks.heartbeats(command.issued_at).items()
        if status is not None
    }
    with answering() as valkey:
        valkey.publish(COMMANDS_CHANNEL, data)
    answers: dict[str, Answer] = {}
    reader = Reader()
    for answer in _answers(command.nonce, WAIT_S if living else HOPE_S, reader):
        answers[answer.node] = answer
        if living <= set(answers):
            break
    nodes = tuple(Node(name, answers.get(name)) for name in sorted(living | set(answers)))
    return Peek(command.issued_at, nodes, tuple(reader.doubts[:MOST_DOUBTS]))


def _answers(nonce: str, within_s: float, reader: Reader) -> Iterator[Answer]:
    give_up = time.monotonic() + within_s
    # stop above 0: blpop would take a timeout of 0 for "wait for ever"
    while (left := give_up - time.monotonic()) > 0.01:
        with answering() as valkey:
            found = valkey.blpop([ANSWERS_PREFIX + nonce], timeout=left)
        if found is None:
            return
        answer = reader.answer(raw_bytes(found[1]), nonce)
        if answer is not None:
            yield answer
