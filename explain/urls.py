"""Addresses of this room."""

from __future__ import annotations

from django.urls import URLPattern, path

from explain import global_page, views

urlpatterns: list[URLPattern] = [
    path("models/explanations", global_page.explanations, name="model-explanations"),
    path("decisions/<str:decision_id>", views.decision, name="decision"),
    path("decisions/<str:decision_id>/print", views.printed, name="decision-print"),
    path("ui/decisions/<str:decision_id>/explanation", views.explanation, name="ui-explanation"),
    path("ui/decisions/<str:decision_id>/now", views.now, name="ui-decided-now"),
    path("ui/decisions/<str:decision_id>/around", views.around, name="ui-around"),
    path("ui/forecast/<path:app_id>", views.forecast, name="ui-forecast"),
]
