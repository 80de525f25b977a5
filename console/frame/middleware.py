"""Every page requires sign-in, unless its view says otherwise."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse
from django_htmx.http import HttpResponseClientRefresh


class SignInRequired(LoginRequiredMiddleware):
    """Sends a page to sign-in; a fragment whose session has ended reloads its page instead of
    showing sign-in inside it.
    """

    def handle_no_permission(
        self, request: HttpRequest, view_func: Callable[..., HttpResponse]
    ) -> HttpResponse:
        if request.headers.get("hx-request") == "true":
            return HttpResponseClientRefresh()
        response: HttpResponse = super().handle_no_permission(request, view_func)
        return response
