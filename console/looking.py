"""Looks into an app's data reach the audit log, with the ticket someone works on."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from control import looks
from control.actors import Actor
from decisions.looks import noted

TICKET = "ticket"
"""Session key of the ticket."""


class LooksRecorded:
    """Writes down what an answer shows before the answer leaves: what cannot be written down is not shown."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if seen := noted(request):  # whatever the status: a refused filter and a missing decision are answered with rows, too
            looks.record_all(seen, by=Actor.of(request.user), ticket=ticket(request))
        return response


def ticket(request: HttpRequest) -> str:
    """The ticket this person works on, "" when they named none."""
    session = getattr(request, "session", None)
    return str(session.get(TICKET, "")) if session is not None else ""
