"""Addresses of the home page and of the part that refreshes itself."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.home import views

urlpatterns: list[URLPattern] = [
    path("", views.home, name="home"),
    path("ui/home/mix", views.home_mix, name="ui-home-mix"),
]
