"""The addresses of all pages, fragments and operations."""

from __future__ import annotations

from django.urls import include, path

from console.frame import views as frame_views

urlpatterns = [
    path("", include("console.pages.home.urls")),
    path("ui/strip", frame_views.strip, name="ui-strip"),
    path("login", frame_views.login, name="login"),
    path("confirm", frame_views.confirm, name="confirm"),
    path("logout", frame_views.logout, name="logout"),
    path("preference", frame_views.preference, name="preference"),
    path("ticket", frame_views.work_on, name="ticket"),
    path("", include("console.pages.receipts.urls")),
    path("", include("console.pages.tokens.urls")),
    path("", include("console.pages.people.urls")),
    path("", include("console.pages.lookup.urls")),
    path("", include("console.pages.model.urls")),
    path("", include("console.pages.decision.urls")),
    path("", include("console.pages.switches.urls")),
    path("", include("console.pages.approvals.urls")),
    path("", include("console.pages.disputes.urls")),
    path("", include("console.pages.outcomes.urls")),
    path("", include("console.pages.service.urls")),
    path("", include("console.pages.storing.urls")),
    path("api/v1/", include("console.api_urls")),
    # last, because an app id may hold slashes and would match other addresses
    path("", include("console.pages.app.urls")),
]

handler400 = "console.frame.views.bad_request"
handler403 = "console.frame.views.forbidden"
handler404 = "console.frame.views.not_found"
handler500 = "console.frame.views.server_error"
