"""The signed-in person behind a request, with the type that every room expects."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from rest_framework.request import Request


def person(request: HttpRequest | Request) -> User:
    """Return the signed-in person of a page or REST request.

    Raise PermissionDenied (HTTP 403) when nobody is signed in. The middleware and the REST
    permission class ask for sign-in before a view runs, so this guards a view that opts out of
    both.
    """
    user = request.user
    # AnonymousUser is no User: the check gives readers and mypy the same certainty
    if not isinstance(user, User):
        raise PermissionDenied("Sign in first.")
    return user
