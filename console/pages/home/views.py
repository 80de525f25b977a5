"""The home page, and the part of it that refreshes itself."""

from __future__ import annotations

from django.contrib.auth.decorators import permission_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET

from console.frame.people import person
from console.frame.permissions import READ
from console.pages.home import page
from console.pages.home.mix import RANGES
from control.people import grants


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """Show whether anything is wrong, and whether it is the reader's to mend.

    Send an administrator, who reads no decisions, to the page of people. Raise PermissionDenied for
    anyone else who may not read them.
    """
    user = person(request)
    if not user.has_perm(READ):
        if user.has_perm(grants.VIEW):
            return redirect("people")
        raise PermissionDenied
    return render(
        request,
        "console/home.html",
        {"page": "home", "home": page.home_page(person(request), _range(request))},
    )


@require_GET
@permission_required(READ, raise_exception=True)
def home_mix(request: HttpRequest) -> HttpResponse:
    """Show the body of home, which refreshes itself."""
    return render(
        request,
        "partials/home_live.html",
        {"home": page.home_page(person(request), _range(request))},
    )


def _range(request: HttpRequest) -> str:
    """Return the asked range; empty, for the usual one, when it is not known."""
    asked = request.GET.get("range", "")
    return asked if asked in RANGES else ""
