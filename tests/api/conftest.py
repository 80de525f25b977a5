"""Callers of the REST API: people with a role, by session and by token; and an installation with
decisions in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis
from django.contrib.auth.models import Group, User
from rest_framework.test import APIClient

from console.frame import roles
from control.audit import tokens
from decider.store_users.roles import Role
from tests.audited import audited
from tests.explain.conftest import document, models, store  # noqa: F401 - an installation with a small real model
from tests.servers import store_url


@pytest.fixture(autouse=True)
def nobody_has_called_yet(settings, valkey: redis.Redis) -> None:
    """The throttle's counts lie in Valkey, which the fixture empties, and which the API uses as the
    console does.
    """
    settings.VALKEY_URL = store_url(Role.CONSOLE)


@pytest.fixture
def person(db) -> Callable[[str], User]:
    """Someone with a role; an empty one may do nothing."""
    roles.ensure()

    def make(role: str = "support") -> User:
        with audited():
            user = User.objects.create(
                username=f"{role or 'nobody'}-{User.objects.count()}@example.org"
            )
            if role:
                user.groups.add(Group.objects.get(name=role))
        return user

    return make


@pytest.fixture
def caller(person) -> Callable[[str], APIClient]:
    """A machine with the token of someone with a role."""

    def make(role: str = "support") -> APIClient:
        client = APIClient()
        client.credentials(
            HTTP_AUTHORIZATION=f"Token {tokens.create(by=person(role), days=1, reason='a test')[1]}"
        )
        return client

    return make


def problem(response) -> dict:
    """The problem a call was answered with."""
    assert response["Content-Type"] == "application/problem+json"
    found = json.loads(response.content)
    assert found["status"] == response.status_code
    return found
