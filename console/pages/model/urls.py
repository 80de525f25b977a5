"""Address of the page about what a model uses."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.model import views

urlpatterns: list[URLPattern] = [
    path("models/explanations", views.explanations, name="model-explanations"),
]
