"""Addresses of the frame: home, sign-in, and the fragments that pages refresh themselves with."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from console import export_pages, receipt_pages, token_pages, views

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.home, name="home"),
    path("ui/home/mix", views.home_mix, name="ui-home-mix"),
    path("ui/strip", views.strip, name="ui-strip"),
    path("login", views.login, name="login"),
    path("receipts/<str:text>", receipt_pages.receipt, name="receipt"),
    path("lookup.csv", export_pages.lookup_csv, name="lookup-csv"),
    path("logout", views.logout, name="logout"),
    path("preference", views.preference, name="preference"),
    path("tokens", token_pages.page, name="tokens"),
    path("tokens/<str:token>/revoke", token_pages.revoke, name="token-revoke"),
    path("ticket", views.work_on, name="ticket"),
]
