"""Addresses of disputes and outcomes."""

from __future__ import annotations

from django.urls import URLPattern, path

from console import dispute_pages, outcome_pages

urlpatterns: list[URLPattern] = [
    path("disputes", dispute_pages.queue, name="disputes"),
    path("disputes/<int:number>", dispute_pages.dispute, name="dispute"),
    path("decisions/<str:decision_id>/dispute", dispute_pages.open_dispute, name="dispute-open"),
    path("outcomes", outcome_pages.page, name="outcomes"),
]
