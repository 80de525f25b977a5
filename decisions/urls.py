"""Addresses of this room."""

from __future__ import annotations

from django.urls import URLPattern, path

from . import views

urlpatterns: list[URLPattern] = [
    path("lookup", views.lookup_page, name="lookup"),
]
