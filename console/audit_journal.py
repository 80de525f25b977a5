"""The control room's audit log, handed to the rooms below that write under it."""

from __future__ import annotations

from control import audit
from control.actors import Actor
from control.errors import Refused as ControlRefused
from decisions.audited import Journal, Json, Person
from decisions.errors import Refused


def check_reason(reason: str) -> str:
    """As `control.audit.check_reason`. Raises `decisions.errors.Refused`."""
    try:
        return audit.check_reason(reason)
    except ControlRefused as error:
        raise Refused(str(error)) from error


def append(
    *,
    by: Person,
    reason: str,
    action: str,
    subject: str,
    summary: str,
    before: Json = None,
    after: Json = None,
) -> audit.AuditEntry:
    """As `control.audit.append`. Raises `decisions.errors.Refused`."""
    try:
        return audit.append(
            by=Actor(by.name, by.login, by.role),
            reason=reason,
            action=action,
            subject=subject,
            summary=summary,
            before=before,
            after=after,
        )
    except ControlRefused as error:
        raise Refused(str(error)) from error


JOURNAL = Journal(audit.lock, check_reason, append)
