"""Every look into an app's data is an audit row: who, at what, when, for which ticket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from . import audit
from .actors import Actor
from .errors import Refused
from .models import AuditEntry

ACTION = "app.look"
PERMISSION = "control.view_looks"
AGAIN = timedelta(minutes=5)
"""The same person looking at the same page of an app for the same ticket within this time is one look."""
_TICKET = re.compile(r"(?=.*\d)[A-Za-z0-9#][A-Za-z0-9/._-]{1,39}")
_NO_TICKET = "No ticket named"


@dataclass(frozen=True, slots=True)
class Look:
    """One look, as an auditor reads it."""

    seq: int
    at: datetime
    name: str
    login: str
    role: str
    what: str
    ticket: str
    """Empty when none was named."""


def check_ticket(text: str) -> str:
    """The ticket without surrounding space; "" for none. Raises Refused for what cannot be a ticket's name."""
    text = text.strip()
    if text and not _TICKET.fullmatch(text):
        raise Refused("A ticket is letters, digits and - _ . / with at least one digit, 2 to 40 characters, for example SUP-48119.")
    return text


def record(*, by: Actor, app: str, what: str, ticket: str = "") -> AuditEntry | None:
    """Writes down that someone was shown data of an app; None when the same look was written down in the last 5 minutes.

    `what` is a noun for the page, as it continues "looked at": "the page", "decision dec_01…". Raises Refused for a ticket that
    is none.
    """
    ticket, app, what = check_ticket(ticket), _kept(app, 128), _kept(what, 120)
    reason, summary = (f"Ticket {ticket}" if ticket else _NO_TICKET), f"looked at {what} of app {app}"
    same = AuditEntry.objects.filter(action=ACTION, subject=app, actor_login=by.login, summary=summary, reason=reason)
    if same.filter(at__gt=timezone.now() - AGAIN).exists():
        return None
    with transaction.atomic():
        audit.lock()
        if same.filter(at__gt=timezone.now() - AGAIN).exists():
            return None  # written between the first question and our turn
        after: audit.Json = {"what": what, "ticket": ticket}
        return audit.append(by=by, reason=reason, action=ACTION, subject=app, summary=summary, after=after)


def of(app: str, most: int = 200) -> list[Look]:
    """The latest looks into an app's data, newest first."""
    rows = AuditEntry.objects.filter(action=ACTION, subject=_kept(app, 128)).order_by("-at")[:most]
    return [_look(row) for row in rows]


def _look(row: AuditEntry) -> Look:
    said = row.after or {}
    return Look(row.seq, row.at, row.actor, row.actor_login, row.actor_role, str(said.get("what", "")), str(said.get("ticket", "")))


def _kept(text: str, most: int) -> str:
    """Text that fits its column; what PostgreSQL cannot keep is replaced, what is too long is cut."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:most]
