"""Addresses of the queue of disputes, of one dispute, and of opening one."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.disputes import views

urlpatterns: list[URLPattern] = [
    path("disputes", views.queue, name="disputes"),
    path("disputes/<int:number>", views.dispute, name="dispute"),
    path("decisions/<str:decision_id>/dispute", views.open_dispute, name="dispute-open"),
]
