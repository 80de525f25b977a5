"""Every look into an app's data reaches the audit log, with the ticket someone works on.

A page notes on its request whose data the answer shows (`note`). The middleware writes the notes
into the log before the answer leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Protocol

from django.http import HttpRequest, HttpResponse

from console.frame import problems
from console.frame.people import person
from control.audit import app_looks
from control.audit.actors import Actor
from control.directory import apps as directory
from control.errors import Refused
from decisions.models import Decision

# Session key of the ticket.
TICKET = "ticket"
# Header by which a machine names the ticket of a call.
HEADER = "Sluice-Ticket"

# For what shows data of whatever apps there are, unlisted: a look that is found from each of them.
EVERY_APP = "every app"
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


class LooksRecorded:
    """Writes down what an answer shows before the answer leaves: what cannot be written down is not
    shown.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if problem := _no_ticket(request):
            # before anything is done: no change is made whose look could not be written down
            return problem
        response = self.get_response(request)
        if (
            seen := noted(request)
            # whatever the status: a refused filter and a missing decision are answered with rows,
            # too
        ):
            app_looks.record_all(seen, by=Actor.of(person(request)), ticket=ticket(request))
        return response


def ticket(request: HttpRequest) -> str:
    """The ticket this person works on, "" when they named none: of a call to the API its header,
    else the session's.
    """
    if named := _header(request):
        return named.strip()
    session = getattr(request, "session", None)
    return str(session.get(TICKET, "")) if session is not None else ""


def _header(request: HttpRequest) -> str | None:
    return request.headers.get(HEADER) if request.path.startswith(problems.PREFIX) else None


def _no_ticket(request: HttpRequest) -> HttpResponse | None:
    """The problem with a header that names no ticket; None when there is none."""
    named = _header(request)
    try:
        if named is None or app_looks.check_ticket(named):
            return None
        said = "It is empty. Leave it out to name no ticket."
    except Refused as error:
        said = str(error)
    return problems.for_path(request, HTTPStatus.BAD_REQUEST, f"{HEADER}: {said}")
