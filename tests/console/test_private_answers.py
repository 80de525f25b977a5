"""No cache keeps a private answer, no page may use the machine's devices, and a refused request is
one line of the log.
"""

from __future__ import annotations

import logging

import pytest
from django.conf import settings
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from console.frame.log_lines import OwnFaults
from tests.console.addresses import addresses

pytestmark = pytest.mark.django_db


@pytest.fixture
def anyone(person) -> Client:
    """Someone who may do everything."""
    who, client = person("support"), Client(raise_request_exception=False)
    who.groups.set(Group.objects.all())
    client.force_login(who, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.mark.parametrize("method", ["get", "post"])
def test_no_answer_of_the_console_is_kept_by_a_cache(anyone: Client, method: str) -> None:
    kept = [
        f"{address}: {answer.get('Cache-Control')}"
        for address in addresses()
        for client in (anyone, Client(raise_request_exception=False))
        if (answer := getattr(client, method)(address)).get("Cache-Control") != "no-store"
    ]
    assert kept == []


def test_no_page_may_use_the_machines_devices(client) -> None:
    policy = client.get(reverse("login"))["Permissions-Policy"]
    for device in ("camera", "microphone", "geolocation", "usb", "payment"):
        assert f"{device}=()" in policy
    assert "clipboard-write=(self)" in policy


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What the log's handler, with its filters and format, writes from here on."""
    config = settings.LOGGING
    written: list[str] = []
    handler = logging.Handler()
    for name in config["handlers"]["stdout"]["filters"]:
        assert config["filters"][name]["()"].endswith(OwnFaults.__name__)
        handler.addFilter(OwnFaults())
    style = config["formatters"]["line"]
    handler.setFormatter(logging.Formatter(style["format"], style=style["style"]))
    handler.emit = lambda record: written.append(handler.format(record))  # type: ignore[method-assign]
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    return written


def test_what_a_role_may_not_do_is_one_line_of_the_log(signed_in, lines) -> None:
    client = signed_in("")
    for address in ("/outcomes", "/api/v1/outcomes", "/switches"):
        lines.clear()
        assert client.get(address).status_code == 403
        (line,) = lines
        assert "\n" not in line
        assert address in line


def test_a_malformed_request_is_one_line_of_the_log(signed_in, lines) -> None:
    client = signed_in("support")
    for address in ("/ui/lookup/tail", "/disputes?show=x", "/nowhere%0Aforged"):
        lines.clear()
        assert client.get(address).status_code in (400, 404)
        assert len(lines) == 1
        assert "\n" not in lines[0]


def test_a_defect_keeps_its_traceback(signed_in, lines, monkeypatch) -> None:
    monkeypatch.setattr("console.pages.home.page.home_page", lambda *_: 1 / 0)
    client = signed_in("support")
    client.raise_request_exception = False
    assert client.get(reverse("home")).status_code == 500
    assert any("ZeroDivisionError" in line for line in lines)
