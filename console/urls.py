"""Which room answers which address."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("console.routes")),
    path("", include("decisions.urls")),
    path("", include("explain.urls")),
    path("", include("console.switch_routes")),
    path("", include("console.dispute_routes")),
    path("api/v1/", include("console.api.routes")),
    path("", include("console.app_routes")),
]

handler400 = "console.views.bad_request"
handler403 = "console.views.forbidden"
handler404 = "console.views.not_found"
handler500 = "console.views.server_error"
