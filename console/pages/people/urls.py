"""Addresses of the pages of people and roles, and of choosing a password."""

from __future__ import annotations

from django.urls import URLPattern, path

from console.pages.people import invitation, views

urlpatterns: list[URLPattern] = [
    path("people", views.people, name="people"),
    path("people/export", views.export, name="people-export"),
    path("people/review", views.reviewed, name="people-review"),
    path("people/<int:number>", views.one, name="person"),
    path("people/<int:number>/change", views.change, name="person-change"),
    path("invitation/<str:person>/<str:token>", invitation.opened, name="invitation"),
    path("choose-password", invitation.choose_password, name="choose-password"),
]
