"""The app whose page is looked at, and how a page is asked for and read."""

from __future__ import annotations

import html
import re

from django.urls import reverse

from tests.pages import shown

APP = "app_7q2m4kx9"
HTMX = {"HTTP_HX_REQUEST": "true"}
ROLES = ("support", "sre", "ml_owner", "policy_admin", "auditor")


def text_of(response) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown(response))))


def url(name: str = "app", *before: str, app: str = APP) -> str:
    return reverse(name, args=[*before, app])
