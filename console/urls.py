"""Which room answers which address."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("console.routes")),
    path("", include("decisions.urls")),
    path("", include("control.urls")),
]
