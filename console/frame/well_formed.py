"""Requests that cannot be read: refused with HTTP 400 before any view or library trips over them.

Django reads the media types of a request while it makes the request object, before any middleware
could answer, and a header that cannot be read would be a 500. So the WSGI application takes such a
header out and leaves a note, which the middleware turns into a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.http import parse_header_parameters

from console import client_address

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Where the note stands in the environment of a WSGI request.
_NOTE = "sluice.unreadable"
# Headers that hold media types, by their name in that environment.
_MEDIA_TYPES = {"CONTENT_TYPE": "Content-Type", "HTTP_ACCEPT": "Accept"}
# Characters of such a header. Chosen: browsers send at most 200, and the library that takes one
# apart needs time with the square of its length.
_LONGEST = 1_000
# What clients write for the one encoding of texts that the console reads.
_UTF_8 = ("utf-8", "utf8", "us-ascii", "ascii")
_ODD_COOKIE = "A cookie holds a NUL character."


class Application(WSGIHandler):
    """The WSGI application of Django, which gets the client's true address, and no media type that
    it cannot read.
    """

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> HttpResponseBase:
        client_address.settle(environ, settings.SLUICE_TRUSTED_PROXIES)
        for key, name in _MEDIA_TYPES.items():
            if said := _wrong(name, environ.get(key, "")):
                environ[_NOTE] = said
                del environ[key]
        return super().__call__(environ, start_response)


def _wrong(name: str, value: str) -> str:
    """Return what is wrong with a header of media types in a sentence; "" for nothing."""
    if len(value) > _LONGEST:
        return f"The header {name} has more than {_LONGEST:,} characters."
    try:
        # as the REST framework takes an Accept header apart
        found = [parse_header_parameters(part.strip()) for part in _parts(name, value)]
    # the standard library's parser of mail headers raises any of these for odd bytes
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"The header {name} cannot be read."
    given: Iterable[Any] = (parameters.get("charset") for _, parameters in found)
    if name == "Content-Type" and any(c is not None and c.lower() not in _UTF_8 for c in given):
        return "The body must be UTF-8; the header Content-Type names another charset."
    return ""


def _parts(name: str, value: str) -> list[str]:
    return value.split(",") if name == "Accept" else [value]


class WellFormed:
    """Middleware that refuses a request whose header fields cannot be read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if said := request.META.get(_NOTE):
            raise BadRequest(said)
        # a quoted cookie can write any byte, and PostgreSQL takes no NUL as the key of a session
        if any("\x00" in value for value in request.COOKIES.values()):
            raise BadRequest(_ODD_COOKIE)
        return self.get_response(request)
