"""The middleware that asks for sign-in on every page whose view does not opt out, and that keeps
answers out of caches.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
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


# What a page may use of the browser: nothing but writing to the clipboard, by buttons that copy.
_PERMISSIONS_POLICY = ", ".join(
    [
        "accelerometer=()",
        "camera=()",
        "clipboard-write=(self)",
        "display-capture=()",
        "geolocation=()",
        "gyroscope=()",
        "hid=()",
        "magnetometer=()",
        "microphone=()",
        "midi=()",
        "payment=()",
        "publickey-credentials-get=()",
        "screen-wake-lock=()",
        "serial=()",
        "usb=()",
        "xr-spatial-tracking=()",
    ]
)


class PrivateAnswers:
    """Middleware that lets no cache keep a page or an answer of the API, and no page use the
    machine's devices.

    Static files are served before it; they are public, and caches may keep them.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response["Cache-Control"] = "no-store"
        response["Permissions-Policy"] = _PERMISSIONS_POLICY
        return response
