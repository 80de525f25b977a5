"""Addresses of a service's page and of the part that refreshes itself."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.service import views

# "path", because a service's name may hold slashes
urlpatterns: list[URLPattern] = [
    path("services/<path:name>", views.service, name="service"),
    path("ui/services/<path:name>", views.service_live, name="ui-service"),
]
