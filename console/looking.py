"""Looks into an app's data reach the audit log, with the ticket someone works on."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

from console.api import problems
from control.audit import app_looks
from control.audit.actors import Actor
from control.errors import Refused
from decisions.looks import noted

TICKET = "ticket"
"""Session key of the ticket."""
HEADER = "Sluice-Ticket"
"""Header by which a machine names the ticket of a call."""


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
            app_looks.record_all(seen, by=Actor.of(request.user), ticket=ticket(request))
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
