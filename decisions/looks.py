"""Pages say here whose data they show; the console writes it into the audit log before the answer
leaves.

The log stands above this room, so a page only leaves a note on its request (`note`), and the
console's middleware records it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from django.http import HttpRequest

from control.directory import apps as directory
from decisions.models import Decision

EVERY_APP = "every app"
"""For what shows data of whatever apps there are, unlisted: a look that is found from each of them.
"""
_KEY = "sluice_looks"


def note(request: HttpRequest, app: str, what: str) -> None:
    """Marks that the answer to this request shows data of an app.

    `what` continues "looked at … of app": "the page", "decision dec_…", "lookup results", "a CSV
    export".
    """
    plain = getattr(request, "_request", request)  # the REST framework wraps Django's request
    plain.__dict__.setdefault(_KEY, []).append((app, what))


class OfAnApp(Protocol):
    """A row that is about an app: a stored decision, a dispute, an outcome."""

    app: str


def note_rows(request: HttpRequest, rows: Iterable[OfAnApp], what: str) -> None:
    """Marks that the answer shows these rows: a look for each of their apps. A row about no app is
    none.
    """
    note_apps(request, (row.app for row in rows if row.app), what)


def note_apps(request: HttpRequest, apps: Iterable[str], what: str) -> None:
    """Marks that the answer shows data of these apps, a look for each."""
    for app in dict.fromkeys(apps):
        note(request, app, what)


def note_known(request: HttpRequest, app: str, what: str, *, shown: bool = False) -> None:
    """Marks a look at an app that an address names, unless there is nothing of it to see: nobody
    registered it, no decision of it is stored, and the answer shows (`shown`) nothing else of it.
    """
    seen = shown or directory.is_registered(app)
    if seen or ("\x00" not in app and Decision.objects.filter(app=app).exists()):
        note(request, app, what)


def noted(request: HttpRequest) -> Sequence[tuple[str, str]]:
    """What was marked: app and what, each once, in order."""
    return tuple(dict.fromkeys(request.__dict__.get(_KEY, ())))
