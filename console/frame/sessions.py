"""How long a sign-in lasts: 12 hours at most, and 30 minutes without anyone doing something."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse

# Keys of the session: unix time of sign-in, unix time at which the person last proved who they are,
# unix time of the last activity, digest of its page.
_SIGNED_IN = "signed_in_at"
_PROVED = "proved_at"
_SEEN = "seen_at"
_PAGE = "seen_page"
# Seconds between two records of activity. Each record is a write to the database, so there is at
# most one a minute.
_REMEMBER_S = 60.0


def note_proof(request: HttpRequest, **_: object) -> None:
    """Note that the person of this session has just proved who they are (receiver of Django's
    `user_logged_in`, so each way to sign in counts).
    """
    request.session[_PROVED] = time.time()


def proved_at(session: SessionBase) -> float | None:
    """Return when the person of a session last proved who they are, unix time; None if unknown."""
    found = session.get(_PROVED)
    return found if isinstance(found, float) and math.isfinite(found) else None


class SessionLimits:
    """Middleware that signs a person out when the session has lasted, or been idle, too long.

    A page that refreshes itself is not activity: a screen left open must not stay signed in.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            now = time.time()
            if _expired(request, now):
                logout(request)
            else:
                _remember(request, now)
        return self.get_response(request)


def _expired(request: HttpRequest, now: float) -> bool:
    signed_in = request.session.get(_SIGNED_IN, now)
    seen = request.session.get(_SEEN, now)
    return bool(
        now - signed_in > settings.SESSION_COOKIE_AGE or now - seen > settings.SESSION_IDLE_S
    )


def _remember(request: HttpRequest, now: float) -> None:
    session = request.session
    session.setdefault(_SIGNED_IN, now)
    if _SEEN not in session or (_by_a_person(request) and now - session[_SEEN] > _REMEMBER_S):
        session[_SEEN] = now
        session[_PAGE] = _digest(
            request.headers.get("hx-current-url", request.build_absolute_uri())
        )


def _by_a_person(request: HttpRequest) -> bool:
    """Return whether a person did this, not a page that refreshes itself.

    A person asks for a full page, changes something, or asks for a fragment from another page
    than last time.
    """
    if request.headers.get("hx-request") != "true" or request.headers.get("hx-boosted") == "true":
        return True
    return request.method not in {"GET", "HEAD"} or _digest(
        request.headers.get("hx-current-url", "")
    ) != request.session.get(_PAGE)


def _digest(address: str) -> str:
    """Return a digest that identifies the address of a page.

    The address itself is not kept: someone may have put a credential into it.
    """
    return hashlib.blake2b(address.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
