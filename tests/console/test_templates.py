"""Every template is rendered by some test, and an undefined variable fails the test that renders it
(pytest's option).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.messages.constants import ERROR, INFO
from django.contrib.messages.storage.base import Message
from django.template.loader import get_template, render_to_string

from tests.console.conftest import RENDERED

ROOT = Path(settings.BASE_DIR) / "templates"
NAMES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.html"))
ROOMS = {"control", "decisions", "explain", "monitoring", "rollouts"}


@pytest.mark.parametrize("name", NAMES)
def test_every_template_compiles(name: str) -> None:
    get_template(name)


@pytest.mark.parametrize("status", [400, 403, 404, 500, 503])
def test_every_error_page_stands_alone(status: int) -> None:
    page = render_to_string(f"{status}.html", {"theme": "dark", "path": "/somewhere"})
    assert page.count("<h1>") == 1
    assert 'data-theme="dark"' in page


def test_a_message_is_shown_with_its_level() -> None:
    shown = render_to_string(
        "partials/messages.html",
        {"messages": [Message(INFO, "Kept"), Message(ERROR, "<b>Not kept</b>")]},
    )
    assert shown.count('role="status"') == 2
    assert "note-bad" in shown
    assert "&lt;b&gt;" in shown


def test_an_undefined_variable_fails(request: pytest.FixtureRequest) -> None:
    """The option is set for every run, so any test that renders a template checks its variables."""
    assert request.config.getoption("itv")


def test_every_template_is_rendered_by_some_test(request: pytest.FixtureRequest) -> None:
    """Runs last. A room whose tests are not part of this run is not judged."""
    ran = {Path(item.path).parent.name for item in request.session.items}
    if (
        request.config.getoption("keyword")
        or request.config.getoption("markexpr")
        or not _whole(request, "console")
    ):
        pytest.skip("only a selection of tests ran")
    judged = [
        name
        for name in NAMES
        if name.split("/")[0] not in ROOMS or {name.split("/")[0], "console"} <= ran
    ]
    assert [name for name in judged if name not in RENDERED] == []


def _whole(request: pytest.FixtureRequest, room: str) -> bool:
    """Whether every test file of a room is part of this run."""
    files = set((Path(settings.BASE_DIR) / "tests" / room).glob("test_*.py"))
    return files <= {Path(item.path) for item in request.session.items}
