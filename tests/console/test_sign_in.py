from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.urls import reverse
from django.utils import timezone

from console.frame.sign_in import password as sign_in
from control.models import SignInTry
from control.people import guessing
from tests.console.conftest import PASSWORD
from tests.pages import shown

EMAIL = "support@example.org"


def post(client, password: str = PASSWORD, email: str = EMAIL, **fields):
    return client.post(reverse("login"), {"email": email, "password": password, **fields})


class Clock:
    """The time by which sign-in counts, which stands still until it is told to pass."""

    def __init__(self) -> None:
        self.at = timezone.now()

    def now(self):
        return self.at

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sign_in, "timezone", clock)
    return clock


def test_a_person_signs_in_with_email_and_password(client, person) -> None:
    person("support")
    answer = post(client, email=" Support@Example.org ")
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert client.get(reverse("home")).status_code == 200


def test_one_comes_back_to_where_one_was_going(client, person) -> None:
    person("support")
    asked = client.get(reverse("home") + "?range=1h")
    assert asked["Location"] == "/login?next=/%3Frange%3D1h"
    assert post(client, next="/?range=1h")["Location"] == "/?range=1h"


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"],
)
def test_sign_in_leads_nowhere_else(client, person, elsewhere: str) -> None:
    person("support")
    assert post(client, next=elsewhere)["Location"] == "/"


def test_the_page_says_where_one_was_going(client, db) -> None:
    page = shown(client.get(reverse("login") + "?next=/switches"))
    assert "You were going to the switches." in page
    assert "You were going" not in shown(client.get(reverse("login")))


def test_a_wrong_password_says_so_and_is_not_shown_again(client, person) -> None:
    person("support")
    answer = post(client, "not-it")
    assert answer.status_code == 422
    assert "That email and password do not match." in shown(answer)
    assert "not-it" not in shown(answer)


def test_after_the_free_tries_one_waits_and_is_told_how_long(client, person, clock) -> None:
    person("support")
    for _ in range(guessing.FREE_OF_NAME):
        assert post(client, "not-it").status_code == 422
    waits = post(client)
    assert (waits.status_code, waits["Retry-After"]) == (429, "1")
    assert "Please try again in 1 second; this one was not checked." in shown(waits)
    clock.pass_(1)
    assert post(client).status_code == 302


def test_each_wrong_password_doubles_the_wait(client, person, clock) -> None:
    person("support")
    for _ in range(guessing.FREE_OF_NAME):
        post(client, "not-it")
    seen = []
    for _ in range(12):
        seen.append(int(post(client, "not-it")["Retry-After"]))
        clock.pass_(seen[-1])
        assert post(client, "not-it").status_code == 422
    assert seen == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_waiting_is_not_made_longer_by_trying_meanwhile(client, person, clock) -> None:
    person("support")
    for _ in range(guessing.FREE_OF_NAME + 1):
        post(client, "not-it")
    for _ in range(20):
        assert post(client, "not-it")["Retry-After"] == "1"
    clock.pass_(1)
    assert post(client).status_code == 302


def test_a_name_that_is_attacked_from_1000_addresses_still_signs_in(client, person) -> None:
    person("support")
    for k in range(1_000):
        from_there = {"REMOTE_ADDR": f"203.0.{k // 250}.{k % 250}"}
        body = {"email": EMAIL, "password": "not-it"}
        assert client.post(reverse("login"), body, **from_there).status_code == 422
    assert post(client).status_code == 302


def test_the_right_password_signs_in_from_elsewhere_while_an_address_waits(client, person) -> None:
    person("support")
    good = {"email": EMAIL, "password": PASSWORD}
    for _ in range(guessing.FREE_OF_NAME + 1):
        post(client, "not-it")
    assert post(client).status_code == 429
    elsewhere = client.post(reverse("login"), good, REMOTE_ADDR="198.51.100.7")
    assert elsewhere.status_code == 302


def test_one_password_tried_on_many_names_slows_the_address_down(client, person, clock) -> None:
    person("support")
    assert post(client).status_code == 302
    client.post(reverse("logout"))
    for k in range(guessing.FREE_OF_ADDRESS):
        assert post(client, "Spring2026!", f"person{k}@example.org").status_code == 422
    assert post(client, "Spring2026!", "one-more@example.org").status_code == 429
    # who signed in from there before goes on
    assert post(client).status_code == 302


def test_a_good_sign_in_forgets_the_bad_tries(client, person) -> None:
    person("support")
    for _ in range(guessing.FREE_OF_NAME - 1):
        post(client, "not-it")
    assert post(client).status_code == 302
    client.post(reverse("logout"))
    for _ in range(guessing.FREE_OF_NAME):
        assert post(client, "not-it").status_code == 422
    assert post(client, "not-it").status_code == 429


def _hashed_by(client, monkeypatch, email: str) -> list[bool]:
    """Return for each password that was hashed during a wrong try whether it was the given one."""
    hashed, encode = [], MD5PasswordHasher.encode

    def counting(self, password, salt):
        hashed.append(True)
        return encode(self, password, salt)

    with monkeypatch.context() as patch:
        patch.setattr(MD5PasswordHasher, "encode", counting)
        answer = post(client, "not-it", email)
    assert answer.status_code == 422
    text = shown(answer).replace(email, "EMAIL")
    return [*hashed, re.sub(r"\b[A-Za-z0-9]{64}\b", "CSRF", text)]


def test_nobody_learns_by_text_or_time_who_has_an_account(client, person, monkeypatch) -> None:
    person("support")
    gone, invited = person("auditor"), person("sre")
    gone.is_active = False
    gone.save()
    invited.set_unusable_password()
    invited.save()
    known, *others = (
        _hashed_by(client, monkeypatch, email)
        for email in (EMAIL, gone.username, invited.username, "nobody@example.org")
    )
    # one password is hashed for each, which is all that takes long
    assert len(known) == 2
    assert others == [known] * 3


@pytest.mark.parametrize(
    ("email", "password"),
    [("", "x"), (EMAIL, ""), ("a" * 300, "x"), (EMAIL, "x\0y"), (EMAIL, "x" * 2_000)],
)
def test_nonsense_is_refused_without_a_trace(client, db, email: str, password: str) -> None:
    assert post(client, password, email).status_code == 422
    assert not SignInTry.objects.exists()


def test_sign_out_needs_a_post(signed_in) -> None:
    client = signed_in("support")
    assert client.get(reverse("logout")).status_code == 405
    assert client.post(reverse("logout"))["Location"] == "/login"
    assert client.get(reverse("home")).status_code == 302


def test_no_sso_is_offered_while_none_is_configured(client, db) -> None:
    page = shown(client.get(reverse("login")))
    assert "SSO" not in page
    assert 'class="strip"' not in page


def test_a_theme_is_kept_in_a_cookie_and_rendered_by_the_server(client, db) -> None:
    assert "data-theme=" not in shown(client.get(reverse("login"))).split("<head>")[0]
    kept = client.post(reverse("preference"), {"name": "theme", "value": "dark", "next": "/login"})
    assert kept["Location"] == "/login"
    assert '<html lang="en" data-theme="dark">' in shown(client.get(reverse("login")))


def test_single_keys_can_be_turned_off(signed_in) -> None:
    client = signed_in("support")
    client.post(reverse("preference"), {"name": "keys", "value": "off"})
    assert 'data-keys="off"' in shown(client.get(reverse("home")))


@pytest.mark.parametrize(
    "wrong", [{"name": "theme", "value": "pink"}, {"name": "sessionid", "value": "x"}, {}]
)
def test_other_preferences_are_refused(client, wrong: dict[str, str]) -> None:
    assert client.post(reverse("preference"), wrong).status_code == 400
