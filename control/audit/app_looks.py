"""The data-access log. Each look into an app's data is an audit row that says who looked at what,
when, and for which ticket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from control.models import AuditEntry

ACTION = "app.look"
PERMISSION = "control.view_looks"
# The same person looking at the same page of an app for the same ticket within this time is one
# look: pages reload themselves, and a log of reloads would hide the looks.
AGAIN = timedelta(minutes=5)
# The subject of a look that may have shown any app's data, such as an export without an app. An app
# id has no space, so no app has this id.
EVERY_APP = "every app"
# At least one digit, so that a word typed into the field by mistake names no ticket; no spaces and
# no line breaks, as it becomes part of the entry's reason.
_TICKET = re.compile(r"(?=.*\d)[A-Za-z0-9#][A-Za-z0-9/._-]{1,39}")
# The same rule without a look-ahead, for the REST schema: some readers of its patterns know none.
# The schema states the length apart: 2 to LONGEST_TICKET characters.
TICKET_FORM = r"^([0-9][A-Za-z0-9/._-]+|[A-Za-z0-9#][A-Za-z0-9/._-]*[0-9][A-Za-z0-9/._-]*)$"
# Characters: longer than the ticket numbers of the usual trackers.
LONGEST_TICKET = 40
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
    """Return the ticket without surrounding space; "" for none. Raise Refused for a text that
    cannot name a ticket.
    """
    text = text.strip()
    if text and (len(text) > LONGEST_TICKET or not _TICKET.fullmatch(text)):
        raise Refused(
            "A ticket is letters, digits and - _ . / with at least one digit, 2 to 40 characters,"
            " for example SUP-48119."
        )
    return text


def record_all(seen: Iterable[tuple[str, str]], *, by: Actor, ticket: str = "") -> list[AuditEntry]:
    """Record, in one transaction, that someone was shown data of these apps. Return the entries
    that are new: what was recorded within `AGAIN` is not repeated.

    `seen` holds pairs of an app id and what was shown of the app, worded to follow "looked at":
    "the page", "decision dec_01…". The app id `EVERY_APP` means all apps. Raise Refused for a bad
    ticket.
    """
    ticket = check_ticket(ticket)
    reason = f"Ticket {ticket}" if ticket else _NO_TICKET
    # without repeats, in order: a page may show several decisions of one app
    said = list(dict.fromkeys((_kept(app, 128), _kept(what, 120)) for app, what in seen))
    # first without the lock: most looks are repeats, and all changes of the installation wait for
    # the lock
    if not _unwritten(said, by, reason):
        return []
    with transaction.atomic():
        chain.lock()
        # another process may have recorded some of these looks before we got the lock
        new = _unwritten(said, by, reason)
        rows = [
            chain.Said(app, _summary(app, what), {"what": what, "ticket": ticket})
            for app, what in new
        ]
        return chain.append_all(rows, by=by, reason=reason, action=ACTION) if rows else []


def _unwritten(said: list[tuple[str, str]], by: Actor, reason: str) -> list[tuple[str, str]]:
    """Return the looks that are not recorded yet for this person and reason within the last
    `AGAIN`.
    """
    apps = {app for app, _ in said}
    same = AuditEntry.objects.filter(
        action=ACTION, subject__in=apps, actor_login=by.login, at__gt=timezone.now() - AGAIN
    )
    old = set(same.filter(reason=reason).values_list("subject", "summary"))
    return [(app, what) for app, what in said if (app, _summary(app, what)) not in old]


def _summary(app: str, what: str) -> str:
    return f"looked at {what} of {app if app == EVERY_APP else f'app {app}'}"


def latest_looks(app: str, most: int = 200) -> list[Look]:
    """Return at most `most` looks into an app's data, newest first. Looks into every app's data are
    among them.
    """
    # with EVERY_APP: a person who exported all decisions has seen this app's as well
    rows = AuditEntry.objects.filter(
        action=ACTION, subject__in=[_kept(app, 128), EVERY_APP]
    ).order_by("-at")[:most]
    return [_look(row) for row in rows]


def _look(row: AuditEntry) -> Look:
    said = row.after or {}
    what = str(said.get("what", "")) + (f" of {EVERY_APP}" if row.subject == EVERY_APP else "")
    return Look(
        row.seq,
        row.at,
        row.actor,
        row.actor_login,
        row.actor_role,
        what,
        str(said.get("ticket", "")),
    )


def _kept(text: str, most: int) -> str:
    """Return a text that fits its column: replace what PostgreSQL cannot keep, cut what is too
    long.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:most]
