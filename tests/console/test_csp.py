"""Nothing in a page runs or styles but what the console serves itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse

TEMPLATES = sorted((Path(settings.BASE_DIR) / "templates").rglob("*.html"))


def test_the_policy_has_no_exceptions(client, db) -> None:
    policy = client.get(reverse("login"))["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "nonce" not in policy
    for directive in (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "object-src 'none'",
        "frame-ancestors 'none'",
    ):
        assert directive in policy


def test_htmx_neither_evaluates_nor_writes_styles(client, db) -> None:
    page = client.get(reverse("login")).content.decode()
    (text,) = re.findall(r"name=\"htmx-config\"\s+content='([^']*)'", page)
    settled = json.loads(text)
    assert settled["includeIndicatorStyles"] is False
    assert settled["allowEval"] is False
    assert settled["allowScriptTags"] is False


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_inline_script_style_or_handlers(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle=", text)
    assert "<style" not in text
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"\son[a-z]+=", text)
    assert not re.search(r"hx-on|js:|javascript:", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_trigger_needs_evaluation(path: Path) -> None:
    assert not re.search(r'hx-trigger="[^"]*\[', path.read_text())


def test_pages_are_not_framed_sniffed_or_told_elsewhere(client, db) -> None:
    answer = client.get(reverse("login"))
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
