"""Addresses of the switches page."""

from __future__ import annotations

from django.urls import URLPattern, path

from console import switch_pages

urlpatterns: list[URLPattern] = [
    path("switches", switch_pages.page, name="switches"),
    path("switches/<slug:name>/<slug:verb>", switch_pages.flip, name="switch-flip"),
    path("switches/<slug:name>/<slug:verb>/preview", switch_pages.preview, name="switch-preview"),
    path("ui/propagation", switch_pages.propagation, name="propagation"),
]
