"""Asking for the password again before what a stolen session must not do."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from rest_framework.request import Request

from console.frame import sessions
from console.frame.fragments import redirect_to


def recently_authenticated(request: HttpRequest | Request) -> bool:
    """Return whether the person of this session signed in, or gave their password again, within
    the last REAUTHENTICATION_S seconds.
    """
    proved = sessions.proved_at(request.session)
    # a time ahead of the clock was written before the clock was set back
    return proved is not None and 0 <= time.time() - proved <= settings.REAUTHENTICATION_S


def ask_again(request: HttpRequest) -> HttpResponse | None:
    """Return a redirect to the page that asks for the password and then leads back here; None when
    that is not needed. For pages and their fragments.
    """
    if recently_authenticated(request):
        return None
    query = urlencode({"next": request.get_full_path()})
    return redirect_to(request, f"{reverse('confirm')}?{query}")


def require_recent(request: Request) -> None:
    """Raise PermissionDenied (HTTP 403), which says what to do, unless the session was
    authenticated lately. A machine's token is no session, and proves its owner each time.
    """
    if getattr(request, "auth", None) is None and not recently_authenticated(request):
        raise PermissionDenied(
            f"Give your password again at {reverse('confirm')} first: it must be less than"
            f" {settings.REAUTHENTICATION_S // 60} minutes old for this."
        )
