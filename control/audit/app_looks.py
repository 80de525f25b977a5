"""The data-access log. Each look into an app's data is an entry that says who looked at what, when,
and for which ticket.

Looks have a hash chain of their own, apart from the audit log's: most pages record one, and they
wait for no change. Each is hashed by the database over the hash before it and all its columns.
Looks of versions before 0.1 are entries of the audit log and stay there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.utils import timezone

from control.audit.actors import Actor
from control.errors import Refused
from control.models import AuditEntry
from control.models import Look as Entry

# Action of a look in the audit log, where looks were recorded before they had a log of their own.
ACTION = "app.look"
PERMISSION = "control.view_looks"
# The same person looking at the same page of an app for the same ticket within this time is one
# look: pages reload themselves, and a log of reloads would hide the looks.
AGAIN = timedelta(minutes=5)
# The subject of a look that may have shown any app's data, such as an export without an app. An app
# id has no space, so no app has this id.
EVERY_APP = "every app"
# At least one digit, so that a word typed into the field by mistake names no ticket; no spaces and
# no line breaks, as it stands in a table.
_TICKET = re.compile(r"(?=.*\d)[A-Za-z0-9#][A-Za-z0-9/._-]{1,39}")
# The same rule without a look-ahead, for the REST schema: some readers of its patterns know none.
# The schema states the length apart: 2 to LONGEST_TICKET characters.
TICKET_FORM = r"^([0-9][A-Za-z0-9/._-]+|[A-Za-z0-9#][A-Za-z0-9/._-]*[0-9][A-Za-z0-9/._-]*)$"
# Characters: longer than the ticket numbers of the usual trackers.
LONGEST_TICKET = 40


@dataclass(frozen=True, slots=True)
class Look:
    """One look, as an auditor reads it."""

    seq: int
    log: str
    """Log that has it under this number: "looks", or "audit" for one of before."""
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


def record_all(
    seen: Iterable[tuple[str, str]], *, by: Actor, ticket: str = "", at: datetime | None = None
) -> list[tuple[str, str]]:
    """Record, by one statement, that someone was shown data of these apps. Return the looks that
    are new, as they are kept: what was recorded within `AGAIN` is not repeated.

    `seen` holds pairs of an app id and what was shown of the app, worded to follow "looked at":
    "the page", "decision dec_01…". The app id `EVERY_APP` means all apps. `at` is now, by the
    database's clock, unless given. Raise Refused for a bad ticket.
    """
    ticket = check_ticket(ticket)
    # without repeats, in order: a page may show several decisions of one app
    said = list(dict.fromkeys((_kept(app, 128), _kept(what, 120)) for app, what in seen))
    # first without the lock of the chain, as most looks are repeats
    if not (said := _unwritten(said, by, ticket)):
        return []
    apps, whats = (list(texts) for texts in zip(*said, strict=True))
    again_s = AGAIN.total_seconds()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT control_append_looks(%s::text[], %s::text[], %s, %s, %s, %s,"
            " make_interval(secs => %s), %s)",
            [apps, whats, by.name, by.login, by.role, ticket, again_s, at],
        )
        # another process may have recorded the others in the meantime
        return [said[place - 1] for (place,) in cursor.fetchall()]


def _unwritten(said: list[tuple[str, str]], by: Actor, ticket: str) -> list[tuple[str, str]]:
    """Return the looks that are not recorded yet for this person and ticket within the last
    `AGAIN`.
    """
    same = Entry.objects.filter(
        app__in={app for app, _ in said},
        actor_login=by.login,
        ticket=ticket,
        at__gt=timezone.now() - AGAIN,
    )
    old = set(same.values_list("app", "what"))
    return [one for one in said if one not in old]


def digest(look: Entry) -> str:
    """Return the hash that a look must have, 64 hexadecimal digits: what `control_look_hash` of the
    database makes.
    """
    content = [
        look.prev_hash,
        look.seq,
        look.at.astimezone(UTC).isoformat(timespec="microseconds"),
        look.actor,
        look.actor_login,
        look.actor_role,
        look.app,
        look.what,
        look.ticket,
    ]
    # as PostgreSQL writes JSON: a space after each comma, and characters as they are
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def latest_looks(app: str, most: int = 200) -> list[Look]:
    """Return at most `most` looks into an app's data, newest first. Looks into every app's data are
    among them.
    """
    # with EVERY_APP: a person who exported all decisions has seen this app's as well
    about = [_kept(app, 128), EVERY_APP]
    rows = Entry.objects.filter(app__in=about).order_by("-at", "-seq")[:most]
    found = [_look(row) for row in rows]
    old = AuditEntry.objects.filter(action=ACTION, subject__in=about).order_by("-at")
    return found + [_old_look(row) for row in old[: most - len(found)]]


def _look(row: Entry) -> Look:
    what = _what(row.what, row.app)
    return Look(
        row.seq, "looks", row.at, row.actor, row.actor_login, row.actor_role, what, row.ticket
    )


def _old_look(row: AuditEntry) -> Look:
    """Return a look of before, which is an entry of the audit log."""
    said = row.after or {}
    what, ticket = _what(str(said.get("what", "")), row.subject), str(said.get("ticket", ""))
    return Look(row.seq, "audit", row.at, row.actor, row.actor_login, row.actor_role, what, ticket)


def _what(text: str, app: str) -> str:
    return f"{text} of {EVERY_APP}" if app == EVERY_APP else text


def _kept(text: str, most: int) -> str:
    """Return a text that fits its column: replace what PostgreSQL cannot keep, cut what is too
    long.
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:most]
