"""Addresses of the page of a decision and of its fragments."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.decision import views

urlpatterns: list[URLPattern] = [
    path("decisions/<str:decision_id>", views.decision, name="decision"),
    path("decisions/<str:decision_id>/print", views.printed, name="decision-print"),
    path("ui/decisions/<str:decision_id>/explanation", views.explanation, name="ui-explanation"),
    path("ui/decisions/<str:decision_id>/now", views.now, name="ui-decided-now"),
    path("ui/decisions/<str:decision_id>/around", views.around, name="ui-around"),
    path("ui/forecast/<path:app_id>", views.forecast, name="ui-forecast"),
]
