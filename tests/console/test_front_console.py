"""The real console behind its Envoy: a flip goes through half-sent requests and busy exports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.test import Client

from control.audit.actors import SYSTEM
from control.config import changes
from control.models import SwitchFlip
from control.people import guessing
from decider.store_users.roles import Role
from tests.console import front as fronts
from tests.console.conftest import PASSWORD
from tests.console.front import Front
from tests.console.test_front import HALF_BODY, HALF_HEAD
from tests.decisions.factory import event
from tests.servers import store_url

pytestmark = [pytest.mark.parts, pytest.mark.django_db(transaction=True)]
CSRF = "c" * 32
GOOD = {"reason": "INC-7", "ends": "2h", "confirm": "all ml", "csrfmiddlewaretoken": CSRF}
SLOW, EXPORTS, ROWS = 200, 4, 2_000


@pytest.fixture
def console(installation: Path, settings, stored) -> Iterator[Front]:
    """The console on this test's database."""
    settings.SLUICE_MODELS = installation / "models"
    changes.first(by=SYSTEM, reason="A new installation")
    stored([event(app=f"app-{k % 50}") for k in range(ROWS)])
    with fronts.running(installation, environment=on_this_database(installation)) as it:
        yield it


def on_this_database(installation: Path) -> dict[str, str]:
    """The variables of a console on this test's database."""
    parts = urlsplit(settings.DATABASE_URL)
    name = settings.DATABASES["default"]["NAME"]
    return {
        "DATABASE_URL": urlunsplit(parts._replace(path=f"/{name}")),
        "VALKEY_URL": store_url(Role.CONSOLE),
        "SLUICE_VAR": str(installation),
    }


@pytest.fixture
def cookie(person) -> Callable[[str], str]:
    """The cookies of someone with a role who is signed in."""

    def make(role: str) -> str:
        client = Client()
        client.force_login(person(role), backend="django.contrib.auth.backends.ModelBackend")
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        return f"{settings.SESSION_COOKIE_NAME}={session}; {settings.CSRF_COOKIE_NAME}={CSRF}"

    return make


def flip(console: Front, cookies: str) -> tuple[int, str]:
    return console.ask(
        "/switches/all_ml/engage",
        method="POST",
        body=urlencode(GOOD),
        cookie=cookies,
        content_type="application/x-www-form-urlencoded",
    )


def test_a_flip_goes_through_half_sent_requests_and_busy_exports(console: Front, cookie) -> None:
    support, sre = cookie("support"), cookie("sre")
    lines = [console.send(half) for half in (HALF_HEAD, HALF_BODY) for _ in range(SLOW // 2)]
    stop, exported = threading.Event(), []

    def export() -> None:
        while not stop.is_set():
            exported.append(console.ask("/lookup.csv?range=1h", cookie=support, within_s=60))

    threads = [threading.Thread(target=export) for _ in range(EXPORTS)]
    for thread in threads:
        thread.start()
    try:
        fronts.wait_until(lambda: len(exported) > 0, console)
        assert flip(console, sre)[0] == 302
        assert SwitchFlip.objects.get().name == "all_ml"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for line in lines:
            line.close()
    assert {status for status, _ in exported} == {200}
    assert all(body.count("\n") > ROWS for _, body in exported)


def sign_in(console: Front, password: str, **headers: str) -> int:
    given = {"email": "support@example.org", "password": password, "csrfmiddlewaretoken": CSRF}
    status, _ = console.ask(
        "/login",
        method="POST",
        body=urlencode(given),
        cookie=f"{settings.CSRF_COOKIE_NAME}={CSRF}",
        content_type="application/x-www-form-urlencoded",
        **headers,
    )
    return status


# Wrong tries until one surely comes within the wait: of 1 s, then 2 s, then 4 s.
TRIES = guessing.FREE_OF_NAME + 4


def test_wrong_passwords_slow_down_the_address_that_connects_and_no_other(console: Front) -> None:
    """Who guesses cannot write another address each time to go on."""
    answers = [
        sign_in(
            console,
            "wrong",
            x_forwarded_for=f"203.0.113.{k}",
            x_sluice_client=f"203.0.113.{k}",
        )
        for k in range(TRIES)
    ]
    assert answers[: guessing.FREE_OF_NAME] == [422] * guessing.FREE_OF_NAME
    assert 429 in answers


def test_behind_a_proxy_one_address_is_slowed_down_and_the_owner_elsewhere_signs_in(
    installation: Path, settings, person
) -> None:
    # as the console's own process checks them
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher"]
    person("support")
    environment = on_this_database(installation) | {"SLUICE_TRUSTED_PROXIES": "127.0.0.1"}
    with fronts.running(installation, trusted_hops=1, environment=environment) as console:
        answers = [
            # what stands left of the proxy's word is forged
            sign_in(console, "wrong", x_forwarded_for=f"198.51.100.{k}, 203.0.113.9")
            for k in range(TRIES)
        ]
        assert 429 in answers
        assert sign_in(console, PASSWORD, x_forwarded_for="203.0.113.7") == 302
