"""Fragments for htmx, whole pages for a browser without script: telling the two apart."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails


def htmx_details(request: HttpRequest) -> HtmxDetails:
    """Return htmx's details of a request; they are falsy when htmx did not send the request.

    The middleware of django_htmx sets them as `request.htmx`. Django's request type does not know
    that attribute, so views call this function and stay typed.
    """
    details = getattr(request, "htmx", None)
    # a request that did not pass the middleware, as in a test, has no details yet
    return details if isinstance(details, HtmxDetails) else HtmxDetails(request)


def redirect_to(request: HttpRequest, address: str) -> HttpResponse:
    """Return a redirect of the whole page, for requests of htmx and of a plain browser.

    htmx follows a plain redirect inside its request and would put the page into a fragment, so it
    gets a header that makes the browser itself go there.
    """
    return HttpResponseClientRedirect(address) if htmx_details(request) else redirect(address)
