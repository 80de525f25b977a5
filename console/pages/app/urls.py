"""Addresses of the page of an app. An app id may hold slashes, so it comes last."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.app import views

urlpatterns: list[URLPattern] = [
    path("apps/<path:app_id>", views.page, name="app"),
    path("ui/app-gauges/<path:app_id>", views.gauges, name="app-gauges"),
    path("app-notes/<path:app_id>", views.add_note, name="app-note"),
    path("app-looks/<path:app_id>", views.looked, name="app-looks"),
    path("app-reset/<slug:bucket>/<path:app_id>", views.reset, name="app-reset"),
]
