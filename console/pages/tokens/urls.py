"""Addresses of the page of a person's own API tokens."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.tokens import views

urlpatterns: list[URLPattern] = [
    path("tokens", views.token_page, name="tokens"),
    path("tokens/<str:token>/revoke", views.revoke_token, name="token-revoke"),
]
