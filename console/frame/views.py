"""The views of the frame: status strip, sign-in and out, preferences, and the error pages."""

from __future__ import annotations

import sys
from http import HTTPStatus

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login as sign_in
from django.contrib.auth import logout as sign_out
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseNotModified
from django.shortcuts import redirect, render, resolve_url
from django.template.loader import render_to_string
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console.frame import layout, permissions, problems, sessions, uploads
from console.frame import status_strip as strips
from console.frame.app_looks import TICKET
from console.frame.people import person
from console.frame.sign_in import password as sign_ins
from control.audit import app_looks
from control.errors import Refused

# How long a preference is kept, seconds: a year, the longest that seems useful.
_YEAR_S = 31_536_000
# Characters of an address to go to; browsers and proxies take about as much.
_LONGEST_NEXT = 2_000
# Exceptions whose text is a sentence for who asked.
_SAID = (BadRequest, uploads.TooLarge)
# What the API tells a caller in place of an error page, by HTTP status.
_PROBLEMS = {
    400: "The request is malformed. Check its address, header fields and body.",
    403: "Your role may not do this.",
    404: "There is nothing at this address.",
    500: "Sluice failed unexpectedly; the error was logged.",
    503: problems.DATABASE_AWAY,
}


@require_GET
def strip(request: HttpRequest) -> HttpResponse:
    """Show the cells of the status strip; answer 304 when nothing has changed."""
    status = strips.read_strip()
    if request.headers.get("if-none-match") == status.etag:
        response: HttpResponse = HttpResponseNotModified()
    else:
        response = render(request, "partials/strip.html", {"strip": status})
    response["ETag"] = status.etag
    response["Sluice-Level"] = status.level
    return response


@login_not_required
@sensitive_post_parameters("password")
def login(request: HttpRequest) -> HttpResponse:
    """Sign someone in by password; wrong ones make the next try wait."""
    after = _next(request)
    if request.user.is_authenticated:
        return redirect(after)
    attempt = sign_ins.Attempt()
    if request.method == "POST":
        attempt = sign_ins.attempt(
            request, request.POST.get("email", ""), request.POST.get("password", "")
        )
        if attempt.user is not None:
            sign_in(request, attempt.user)
            return redirect(after)
    context: dict[str, object] = {
        "attempt": attempt,
        "next": after,
        "going_to": sign_ins.going_to(after),
        "hours": settings.SESSION_COOKIE_AGE // 3600,
    }
    context["idle_minutes"] = settings.SESSION_IDLE_S // 60
    return _answer(request, "console/login.html", context, attempt)


@require_http_methods(["GET", "POST"])
@sensitive_post_parameters("password")
def confirm(request: HttpRequest) -> HttpResponse:
    """Ask the signed-in person for their password again, and lead on where they were going."""
    after, who = _next(request), person(request)
    attempt = sign_ins.Attempt()
    if request.method == "POST":
        # of the signed-in person, whatever the form says
        attempt = sign_ins.attempt(request, who.get_username(), request.POST.get("password", ""))
        if attempt.user is not None:
            # a key that somebody copied before must not become more powerful
            request.session.cycle_key()
            sessions.note_proof(request)
            return redirect(after)
    context: dict[str, object] = {
        "attempt": attempt,
        "next": after,
        "minutes": settings.REAUTHENTICATION_S // 60,
    }
    return _answer(request, "console/confirm.html", context, attempt)


def _answer(
    request: HttpRequest, template: str, context: dict[str, object], attempt: sign_ins.Attempt
) -> HttpResponse:
    """Return the page that asks for a password, with the wait that a wrong one made."""
    response = render(request, template, context, status=attempt.status)
    if attempt.wait_s:
        response["Retry-After"] = str(attempt.wait_s)
    return response


@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """End the session."""
    sign_out(request)
    return redirect("login")


@login_not_required
@require_POST
def preference(request: HttpRequest) -> HttpResponse:
    """Keep the theme or the state of single-key shortcuts in a cookie."""
    allowed = {
        "theme": (layout.THEME_COOKIE, ("light", "dark")),
        "keys": (layout.KEYS_COOKIE, ("on", "off")),
    }
    cookie, values = allowed.get(request.POST.get("name", ""), ("", ()))
    value = request.POST.get("value", "")
    if value not in values:
        return HttpResponseBadRequest(
            "A preference is theme=light, theme=dark, keys=on or keys=off.",
            content_type="text/plain",
        )
    response = redirect(_next(request))
    response.set_cookie(cookie, value, max_age=_YEAR_S, samesite="Lax", secure=settings.HTTPS)
    return response


@require_POST
def work_on(request: HttpRequest) -> HttpResponse:
    """Set the ticket that looks are recorded with from now on; an empty one clears it."""
    try:
        request.session[TICKET] = app_looks.check_ticket(request.POST.get("ticket", "")[:200])
    except Refused as error:
        # the ticket from before stays, and the next page says why
        messages.error(request, str(error))
    return redirect(_next(request))


def _next(request: HttpRequest) -> str:
    """Return where to go afterwards: an address of this console, else home.

    An address elsewhere would let a link to sign-in end on a stranger's page.
    """
    asked = request.POST.get("next") or request.GET.get("next", "")
    # the length first: what follows tries every address of the console on it
    if len(asked) <= _LONGEST_NEXT and url_has_allowed_host_and_scheme(
        asked, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    ):
        return str(asked)
    return str(resolve_url("home"))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 400, and say what is wrong with the request where that is known."""
    # the texts of other exceptions are meant for the log
    return _error(request, 400, str(exception) if isinstance(exception, _SAID) else "")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 403: the person may not do this. The audit log keeps that they tried."""
    permissions.record_refusal(request, str(exception))
    return _error(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer 404: nothing is at this address."""
    return _error(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer 500, or 503 when the database is away, slow or held up: deciders go on without it."""
    said = problems.trouble(sys.exc_info()[1])
    if said is None:
        return _error(request, 500)
    # the page has its own words for a database that is away
    return _error(request, 503, "" if said == problems.DATABASE_AWAY else said)


def _error(request: HttpRequest, status: int, said: str = "") -> HttpResponse:
    """Return an error page, or a problem for an address of the API; `said` is its sentence.

    The page uses neither database nor session, because these may be what failed.
    """
    if problem := problems.for_path(request, HTTPStatus(status), said or _PROBLEMS[status]):
        return problem
    theme = request.COOKIES.get(layout.THEME_COOKIE, "")
    page = render_to_string(
        f"{status}.html",
        {"theme": theme if theme in ("light", "dark") else "", "path": request.path, "said": said},
    )
    response = HttpResponse(page, status=status)
    if status == 503:
        response["Retry-After"] = str(problems.RETRY_S)
    return response
