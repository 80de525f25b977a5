"""Address of the page about storing."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.storing import views

urlpatterns: list[URLPattern] = [path("storing", views.storing, name="storing")]
