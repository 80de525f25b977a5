"""Addresses of disputes and outcomes."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.disputes import views
from console.pages.outcomes import views as outcomes_views

urlpatterns: list[URLPattern] = [
    path("disputes", views.queue, name="disputes"),
    path("disputes/<int:number>", views.dispute, name="dispute"),
    path("decisions/<str:decision_id>/dispute", views.open_dispute, name="dispute-open"),
    path("outcomes", outcomes_views.page, name="outcomes"),
]
