"""A service's page, and the part of it that refreshes itself."""

from __future__ import annotations

from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from console.frame.permissions import READ
from console.pages.service.page import ServicePage, service_page


@require_GET
@permission_required(READ, raise_exception=True)
def service(request: HttpRequest, name: str) -> HttpResponse:
    """Show who asks for how much of a service, and who pays while it is short of room."""
    return render(request, "console/service.html", {"page": "home", "service": _page_or_404(name)})


@require_GET
@permission_required(READ, raise_exception=True)
def service_live(request: HttpRequest, name: str) -> HttpResponse:
    """Show the body of the page, which refreshes itself."""
    return render(request, "partials/service_live.html", {"service": _page_or_404(name)})


def _page_or_404(name: str) -> ServicePage:
    found = service_page(name)
    if found is None:
        raise Http404(f"No service is called {name}.")
    return found
