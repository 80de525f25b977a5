"""Which page, fragment or operation answers which address."""

from __future__ import annotations

from django.urls import include, path

from console.frame import views as frame_views
from console.pages.home import views as home_views
from console.pages.receipts import views as receipts_views
from console.pages.tokens import views as tokens_views

urlpatterns = [
    path("", home_views.home, name="home"),
    path("ui/home/mix", home_views.home_mix, name="ui-home-mix"),
    path("ui/strip", frame_views.strip, name="ui-strip"),
    path("login", frame_views.login, name="login"),
    path("logout", frame_views.logout, name="logout"),
    path("preference", frame_views.preference, name="preference"),
    path("ticket", frame_views.work_on, name="ticket"),
    path("receipts/<str:text>", receipts_views.receipt, name="receipt"),
    path("tokens", tokens_views.page, name="tokens"),
    path("tokens/<str:token>/revoke", tokens_views.revoke, name="token-revoke"),
    path("", include("console.pages.lookup.urls")),
    path("", include("console.pages.model.urls")),
    path("", include("console.pages.decision.urls")),
    path("", include("console.pages.switches.urls")),
    path("", include("console.pages.disputes.urls")),
    path("api/v1/", include("console.api_urls")),
    # an app id may hold slashes, so the pages of an app come last
    path("", include("console.pages.app.urls")),
]

handler400 = "console.frame.views.bad_request"
handler403 = "console.frame.views.forbidden"
handler404 = "console.frame.views.not_found"
handler500 = "console.frame.views.server_error"
