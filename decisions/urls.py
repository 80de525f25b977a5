"""Addresses of this room."""

from __future__ import annotations

from django.urls import URLPattern, path

from decisions import search_views, views

urlpatterns: list[URLPattern] = [
    path("lookup", views.lookup_page, name="lookup"),
    path("ui/lookup/tail", views.lookup_tail, name="ui-lookup-tail"),
    path("lookup/saved", search_views.save, name="save-search"),
    path("lookup/saved/<int:number>/delete", search_views.delete, name="delete-search"),
    path("ui/palette", search_views.palette, name="ui-palette"),
]
