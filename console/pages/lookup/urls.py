"""Addresses of lookup, its export, its saved searches and the palette."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.lookup import export_views, saved_views, views

urlpatterns: list[URLPattern] = [
    path("lookup", views.lookup_page, name="lookup"),
    path("lookup.csv", export_views.lookup_csv, name="lookup-csv"),
    path("ui/lookup/tail", views.lookup_tail, name="ui-lookup-tail"),
    path("lookup/saved", saved_views.save_search, name="save-search"),
    path("lookup/saved/<int:number>/delete", saved_views.delete_search, name="delete-search"),
    path("ui/palette", saved_views.palette, name="ui-palette"),
]
