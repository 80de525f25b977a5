"""Address of the page of outcomes."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.outcomes import views

urlpatterns: list[URLPattern] = [
    path("outcomes", views.outcomes_page, name="outcomes"),
]
