"""Addresses of the requests for a second person, of one of them, and of the mode."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.approvals import views

urlpatterns: list[URLPattern] = [
    path("approvals", views.queue, name="approvals"),
    path("approvals/mode", views.mode, name="approvals-mode"),
    path("approvals/reviews/<int:number>", views.review, name="approvals-review"),
    path("approvals/<int:number>", views.approval, name="approval"),
    path("ui/approvals/<int:number>/noticed", views.noticed, name="approval-noticed"),
]
