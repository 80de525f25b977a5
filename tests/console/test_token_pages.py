"""One's own API tokens: made, shown once, revoked."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from rest_framework.test import APIClient

from control.audit import tokens
from control.models import AuditEntry
from tests.pages import shown

pytestmark = pytest.mark.django_db
TOKEN = re.compile(r"sluice_[0-9a-f]{40,}")


def test_a_token_is_shown_once_and_works(signed_in) -> None:
    browser = signed_in("support")
    made = browser.post(reverse("tokens"), {"reason": "Nightly report", "days": "30"})
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    (text,) = set(TOKEN.findall(shown(made)))
    again = shown(browser.get(reverse("tokens")))
    assert text not in again
    assert text[:8] in again
    assert "Nightly report" in again
    assert (
        APIClient()
        .get(reverse("api-decisions"), headers={"Authorization": f"Token {text}"})
        .status_code
        == 200
    )


def test_a_revoked_token_is_refused_from_then_on(signed_in) -> None:
    browser = signed_in("auditor")
    made, text = tokens.create(by=User.objects.get(), days=1, reason="a test")
    assert (
        browser.post(reverse("token-revoke", args=[made.token_key]), follow=True).status_code == 200
    )
    assert (
        APIClient()
        .get(reverse("api-decisions"), headers={"Authorization": f"Token {text}"})
        .status_code
        == 401
    )
    assert AuditEntry.objects.filter(action="token_revoked").count() == 1
    assert browser.post(reverse("token-revoke", args=[made.token_key])).status_code == 404


def test_nobody_revokes_a_token_of_another(signed_in) -> None:
    signed_in("support")
    made, _ = tokens.create(by=User.objects.get(), days=1, reason="a test")
    assert (
        signed_in("policy_admin").post(reverse("token-revoke", args=[made.token_key])).status_code
        == 404
    )


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"reason": " ", "days": "30"}, "Say what the token is for."),
        ({"reason": "x", "days": "0"}, "greater than or equal to 1"),
        ({"reason": "x", "days": "many"}, "whole number"),
        ({"reason": "x"}, "Say how many days it lives, 1 to 365."),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(signed_in, sent, said) -> None:
    answer = signed_in("support").post(reverse("tokens"), sent)
    assert answer.status_code == 422
    assert said in shown(answer)
    assert not TOKEN.search(shown(answer))


def test_who_has_ten_is_asked_to_revoke_one(signed_in) -> None:
    browser = signed_in("support")
    for _ in range(tokens.MOST):
        tokens.create(by=User.objects.get(), days=1, reason="a test")
    answer = browser.post(reverse("tokens"), {"reason": "x", "days": "1"})
    assert answer.status_code == 422
    assert "Revoke one" in shown(answer)


def test_someone_without_a_role_has_none(signed_in) -> None:
    assert signed_in("").get(reverse("tokens")).status_code == 403
