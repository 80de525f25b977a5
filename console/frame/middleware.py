"""The middleware that asks for sign-in on every page whose view does not opt out."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponseBase
from django_htmx.http import HttpResponseClientRefresh


class SignInRequired(LoginRequiredMiddleware):
    """Middleware that sends people who are not signed in to the sign-in page.

    A fragment reloads its page instead: a redirect would show sign-in inside the page.
    """

    # Django's stubs declare a redirect, but its middleware accepts any response
    def handle_no_permission(  # type: ignore[override]
        self, request: HttpRequest, view_func: Callable[..., HttpResponseBase]
    ) -> HttpResponseBase:
        if request.headers.get("hx-request") == "true":
            refresh: HttpResponseBase = HttpResponseClientRefresh()
            return refresh
        return super().handle_no_permission(request, view_func)
