"""Address of the page of a receipt."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.receipts import views

urlpatterns: list[URLPattern] = [
    path("receipts/<str:text>", views.receipt, name="receipt"),
]
