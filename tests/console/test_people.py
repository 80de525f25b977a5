"""The signed-in person behind a request."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from rest_framework.request import Request

from console.frame.people import person


def _request(user: User | AnonymousUser) -> HttpRequest:
    request = HttpRequest()
    request.user = user
    return request


def test_a_page_knows_who_is_signed_in() -> None:
    user = User(username="ana@example.com")
    assert person(_request(user)) is user


def test_a_rest_operation_knows_who_is_signed_in() -> None:
    user = User(username="ana@example.com")
    rest = Request(HttpRequest())
    rest.user = user
    assert person(rest) is user


def test_nobody_signed_in_is_refused() -> None:
    with pytest.raises(PermissionDenied):
        person(_request(AnonymousUser()))
