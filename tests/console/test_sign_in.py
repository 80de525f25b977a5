from __future__ import annotations

import pytest
from django.urls import reverse

from tests.console.conftest import PASSWORD
from tests.pages import shown

EMAIL = "support@example.org"


def post(client, password: str = PASSWORD, email: str = EMAIL, **fields):
    return client.post(reverse("login"), {"email": email, "password": password, **fields})


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


def test_a_wrong_password_says_how_many_tries_are_left(client, person, settings) -> None:
    person("support")
    answer = post(client, "not-it")
    assert answer.status_code == 422
    left = settings.AXES_FAILURE_LIMIT - 1
    assert (
        f"That email and password do not match. {left} tries left before a pause of 15 minutes."
        in shown(answer)
    )
    assert "not-it" not in shown(answer)


def test_the_answer_is_the_same_for_an_email_nobody_has(client, person) -> None:
    person("support")
    known, unknown = (
        shown(post(client, "not-it", email)) for email in (EMAIL, "nobody@example.org")
    )
    assert "do not match. 7 tries left" in known
    assert "do not match. 7 tries left" in unknown


def test_after_too_many_tries_even_the_right_password_waits(client, person, settings) -> None:
    settings.AXES_FAILURE_LIMIT = 3
    person("support")
    for _ in range(2):
        assert post(client, "not-it").status_code == 422
    assert post(client, "not-it").status_code == 429
    locked = post(client)
    assert locked.status_code == 429
    assert "paused for 15 minutes" in shown(locked)
    assert post(client, email="sre@example.org").status_code == 422


def test_a_good_sign_in_forgets_the_bad_tries(client, person) -> None:
    person("support")
    post(client, "not-it")
    assert post(client).status_code == 302
    client.post(reverse("logout"))
    assert "7 tries left" in shown(post(client, "not-it"))


@pytest.mark.parametrize(
    ("email", "password"),
    [("", "x"), (EMAIL, ""), ("a" * 300, "x"), (EMAIL, "x\0y"), (EMAIL, "x" * 2_000)],
)
def test_nonsense_is_refused_without_a_trace(client, db, email: str, password: str) -> None:
    assert post(client, password, email).status_code == 422


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
