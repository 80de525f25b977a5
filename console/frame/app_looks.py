"""The data-access log of the console: every look into an app's data, with a ticket.

A view notes on its request which apps' data the answer shows (`note`). The middleware writes these
looks into the log before the answer is sent.
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
from decisions.search import lookup

# Session key of the ticket.
TICKET = "ticket"
# Header by which a machine names the ticket of a call.
HEADER = "Sluice-Ticket"

# Stands in place of an app id where an answer counts over all apps. Each app's list of looks shows
# such a look.
EVERY_APP = "every app"
# Attribute of the request that holds its looks.
_KEY = "sluice_looks"


def note(request: HttpRequest, app: str, what: str) -> None:
    """Note that the answer to this request shows data of an app.

    `what` continues "looked at … of app": "the page", "decision dec_…", "lookup results", "a CSV
    export".
    """
    plain = getattr(request, "_request", request)  # the REST framework wraps Django's request
    plain.__dict__.setdefault(_KEY, []).append((app, what))


class OfAnApp(Protocol):
    """A row that is about an app: a stored decision, a dispute, an outcome."""

    app: str


def note_rows(request: HttpRequest, rows: Iterable[OfAnApp], what: str) -> None:
    """Note a look at the app of each of these rows. Skip rows without an app."""
    note_apps(request, (row.app for row in rows if row.app), what)


def note_apps(request: HttpRequest, apps: Iterable[str], what: str) -> None:
    """Note a look at each of these apps."""
    # rows may name an app many times; one look for each app is enough
    for app in dict.fromkeys(apps):
        note(request, app, what)


def note_known(request: HttpRequest, app: str, what: str, *, shown: bool = False) -> None:
    """Note a look at an app that an address names, if the app exists.

    It exists if it is registered, if a decision about it is stored, or if the answer shows other
    data of it (`shown`). Without this rule, any text in an address would fill the log.
    """
    seen = shown or directory.is_registered(app)
    # PostgreSQL takes no NUL in a text
    if seen or ("\x00" not in app and lookup.is_seen(app)):
        note(request, app, what)


def noted(request: HttpRequest) -> Sequence[tuple[str, str]]:
    """Return the looks of a request as (app, what), each once, in order."""
    return tuple(dict.fromkeys(request.__dict__.get(_KEY, ())))


class LooksRecorded:
    """Middleware that records the looks of an answer before it is sent.

    Failure policy: closed. An answer whose looks cannot be recorded is not sent.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if problem := _no_ticket(request):
            # before the view runs: a view whose look cannot be recorded must change nothing
            return problem
        response = self.get_response(request)
        # whatever the status: answers to a refused filter or a missing decision show rows too
        if seen := noted(request):
            app_looks.record_all(seen, by=Actor.of(person(request)), ticket=ticket(request))
        return response


def ticket(request: HttpRequest) -> str:
    """Return the ticket this person works on, "" when they named none.

    A call to the API may name its ticket in a header. Otherwise the session's ticket counts.
    """
    if named := _header(request):
        return named.strip()
    session = getattr(request, "session", None)
    return str(session.get(TICKET, "")) if session is not None else ""


def _header(request: HttpRequest) -> str | None:
    # only for the API: a page takes its ticket from the session, where the person sees it
    return request.headers.get(HEADER) if request.path.startswith(problems.PREFIX) else None


def _no_ticket(request: HttpRequest) -> HttpResponse | None:
    """Return a problem when the header names no valid ticket; None when it is absent or valid."""
    named = _header(request)
    try:
        if named is None or app_looks.check_ticket(named):
            return None
        said = "This header is empty. Leave it out to name no ticket."
    except Refused as error:
        said = str(error)
    return problems.for_path(request, HTTPStatus.BAD_REQUEST, f"{HEADER}: {said}")
