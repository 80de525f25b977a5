from __future__ import annotations

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from console.pages.home import page as home_page
from tests.pages import shown


@pytest.fixture
def production(settings) -> None:
    settings.DEBUG = False


@pytest.mark.usefixtures("production")
def test_a_page_that_does_not_exist_says_so(signed_in) -> None:
    answer = signed_in("support").get("/nowhere")
    assert answer.status_code == 404
    assert "There is no such page" in shown(answer)


@pytest.mark.usefixtures("production")
def test_the_database_away_is_a_503_that_says_what_is_unaffected(signed_in, monkeypatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("connection refused")

    client = signed_in("support")
    client.raise_request_exception = False
    monkeypatch.setattr(home_page, "home_page", away)
    answer = client.get(reverse("home"))
    text = shown(answer)
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert "The database does not answer" in text
    assert "Deciders go on" in text
    assert "connection refused" not in text


@pytest.mark.usefixtures("production")
def test_a_session_that_cannot_be_read_is_the_same_503(signed_in, monkeypatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("connection refused")

    client = signed_in("support")
    client.raise_request_exception = False
    monkeypatch.setattr(SessionStore, "load", away)
    assert client.get(reverse("home")).status_code == 503


@pytest.mark.usefixtures("production")
def test_a_mistake_is_a_500_without_its_traceback(signed_in, monkeypatch) -> None:
    client = signed_in("support")
    client.raise_request_exception = False
    monkeypatch.setattr(home_page, "home_page", lambda *_: 1 / 0)
    answer = client.get(reverse("home"))
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in shown(answer)


@pytest.mark.usefixtures("production")
def test_an_unreadable_request_is_a_400() -> None:
    answer = Client(raise_request_exception=False).get("/login", headers={"host": "evil.example"})
    assert answer.status_code == 400
    assert "could not be read" in shown(answer)
