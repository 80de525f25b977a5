"""The one way to change what deciders do: the change, its audit row and the new config version in
one transaction.

Everything that ends up in a config document goes through `make_version`. Publishing follows the
commit; until it succeeds, `publish.pending` tries again. The database refuses a config version
without its audit row, whoever writes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

import msgspec
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from control import locks
from control.approvals.models import Request
from control.audit import chain
from control.audit.actors import Actor
from control.config import faults, gate, parts, subjects
from control.config.gate import Clearance, Wanted
from control.deciders import formats, keys, publish
from control.errors import Conflict, ControlError, Refused
from control.locks import Lock
from control.models import ConfigVersion
from decider.contracts import config as document
from decider.contracts import defaults
from decider.contracts.config import Config, Sampling, in_force, needed_format

log = logging.getLogger(__name__)


def latest() -> ConfigVersion | None:
    """Return the newest config version; None in a new installation."""
    return ConfigVersion.objects.order_by("-version").first()


def current() -> Config:
    """Return the newest document. Raise Refused in an installation that was not seeded."""
    if (row := latest()) is None:
        raise Refused("There is no config version yet. `manage.py seed` makes the first one.")
    return document.decode(bytes(row.payload))


def make_version(
    *,
    by: Actor,
    reason: str,
    action: str,
    subject: str,
    summary: str,
    edit: Callable[[Config], Config],
    before: chain.Json = None,
    after: chain.Json = None,
    within: Callable[[ConfigVersion, Config], None] | None = None,
    above: int = 0,
    request: Request | None = None,
    offline: bool = False,
) -> ConfigVersion:
    """Make a new config version out of the newest one; tell the deciders once it is committed.

    Return the new version. `edit` returns the new document from the old one; its version and time
    are set here. `within` gets the new version and the old document, and writes what else belongs
    to the change in the same transaction. The new version is above `above` in any case: where the
    database has not given that one out, an epoch begins.

    What needs a second person (`control.config.gate`) takes an approved `request` for exactly this
    change, or was done `offline` already. Raise NeedsSecondPerson without, and Refused when the
    reason is empty or the change is not possible; then nothing is stored.
    """
    reason = chain.check_reason(reason)
    # asked before the lock is taken: this may have to wait for Valkey
    readable = _check_readable(edit)
    with chain.changing():
        locks.hold(Lock.CONFIG)
        # read under the lock, so that no other change is lost
        old, now = current(), timezone.now()
        new = _next(old, subjects.checked(edit(old), old), now, above)
        if needed_format(new)[0] > max(readable, needed_format(old)[0]):
            raise Conflict("Someone else changed the config at the same moment. Try again.")
        wanted = Wanted(by, reason, action, subject, summary)
        clearance = gate.pass_through(old, new, wanted, now=now, request=request, offline=offline)
        row = store(new, by=by, reason=reason, made_at=now, clearance=clearance)
        # after that, because only a document that deciders read can be looked through
        faults.check(new, old, now.timestamp())
        if within is not None:
            within(row, old)
        note(wanted, row, clearance, before=before, after=after)
        transaction.on_commit(lambda: publish_now(row))
    return row


def note(
    wanted: Wanted,
    row: ConfigVersion,
    clearance: Clearance,
    *,
    before: chain.Json = None,
    after: chain.Json = None,
) -> None:
    """Append the entry of a config version, in its transaction, with who else was asked."""
    if clearance.alone:
        after = {**(after or {}), "second_person": "not asked: single-person mode"}
    elif clearance.request is not None:
        request = clearance.request
        after = {**(after or {}), "request": request.pk, "second_person": request.outcome}
    elif clearance.review is not None:
        after = {**(after or {}), "review": clearance.review.pk}
    chain.append(
        by=wanted.by,
        reason=wanted.reason,
        action=wanted.action,
        subject=wanted.subject,
        # as wide as the column
        summary=wanted.summary[: 500 - len(clearance.mark)] + clearance.mark,
        before=before,
        after=after,
        config_version=row,
        at=row.made_at,
    )


def _check_readable(edit: Callable[[Config], Config]) -> int:
    """Return the format of the document after a change, which all running deciders can read. Raise
    Refused.
    """
    old = current()
    new = subjects.checked(edit(old), old)
    formats.check_readable(old, new, timezone.now().timestamp())
    return needed_format(new)[0]


def _next(old: Config, edited: Config, now: datetime, above: int) -> Config:
    """Return an edited document as the version after `old`, made at `now`."""
    return msgspec.structs.replace(
        edited,
        version=old.version + 1 if above <= old.version else document.next_epoch(above),
        issued_at=now.timestamp(),
        # switches that ended by themselves leave the document with the next change
        switches=in_force(edited.switches, now.timestamp()),
    )


def first(*, by: Actor, reason: str, sampling: Sampling | None = None) -> ConfigVersion | None:
    """Make version 1 from the defaults and return it. Return None when a version exists already.

    `sampling`: rates other than the defaults.
    """
    with chain.changing():
        locks.hold(Lock.CONFIG)
        if latest() is not None:
            return None
        now = timezone.now()
        new = defaults.config(1, now.timestamp())
        if sampling is not None:
            new = msgspec.structs.replace(new, sampling=sampling)
        row = store(new, by=by, reason=reason, made_at=now, clearance=Clearance())
        chain.append(
            by=by,
            reason=reason,
            action="config.first",
            subject="config",
            summary="made the first config document",
            config_version=row,
            at=now,
        )
        transaction.on_commit(lambda: publish_now(row))
    return row


def store(
    new: Config,
    *,
    by: Actor,
    reason: str,
    made_at: datetime,
    signed: bytes | None = None,
    clearance: Clearance,
) -> ConfigVersion:
    """Store a document as a config version and return that version. Sign the document unless
    `signed` is given. The caller writes the audit row in the same transaction. Raise Refused for a
    document that deciders would refuse.
    """
    # encoded and decoded, so that it is checked exactly as a decider will read it
    parts.decoded(new)
    if signed is None:
        signed = document.sign(new, keys.load_signing_key(settings.SLUICE_KEYS))
    payload = msgspec.msgpack.decode(signed, type=document.Signed).payload
    return ConfigVersion.objects.create(
        version=new.version,
        payload=payload,
        signed=signed,
        made_at=made_at,
        by=by.name,
        reason=reason,
        loosens=clearance.loosens,
        change=clearance.change,
        alone=clearance.alone,
        request=clearance.request,
        review=clearance.review,
    )


def publish_now(row: ConfigVersion) -> None:
    """Push a committed version. Log a failure and do not raise it: the change stands, and
    `publish.pending` goes on trying.
    """
    try:
        publish.push_version(row)
    except ControlError as error:
        log.warning("config %d is committed but not published yet: %s", row.version, error)
