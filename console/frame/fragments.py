"""Fragments and whole pages: what a view answers to htmx, and what to a browser without script."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails


def htmx_details(request: HttpRequest) -> HtmxDetails:
    """Return what htmx says about its request; it is falsy when htmx did not send the request.

    The middleware of django_htmx puts it onto every request. Django's type of a request does not
    have the attribute, so views ask here and keep the type.
    """
    details = getattr(request, "htmx", None)
    # A request that did not pass the middleware (a test's own) is read here.
    return details if isinstance(details, HtmxDetails) else HtmxDetails(request)


def redirect_to(request: HttpRequest, address: str) -> HttpResponse:
    """Send the reader to another page, whoever asked.

    htmx follows a plain redirect inside its request and would put the page into a fragment, so it
    gets a header that makes the browser itself go there.
    """
    return HttpResponseClientRedirect(address) if htmx_details(request) else redirect(address)
