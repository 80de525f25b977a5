"""Addresses of the switches page."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.switches import views

urlpatterns: list[URLPattern] = [
    path("switches", views.page, name="switches"),
    path("switches/<slug:name>/<slug:verb>", views.flip, name="switch-flip"),
    path("switches/<slug:name>/<slug:verb>/preview", views.preview, name="switch-preview"),
    path("ui/propagation", views.propagation, name="propagation"),
]
