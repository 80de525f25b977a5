"""Signing in with a password: who it was, how many tries are left, and how long a pause lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_cool_off
from django.conf import settings
from django.contrib.auth import authenticate
from django.http import HttpRequest
from django.urls import Resolver404, resolve
from django.utils.http import urlsplit

from decider.contracts.ids import parse_decision_id
from decider.contracts.units import spoken_span

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser

# Longest e-mail address there is (RFC 5321), and more than any password anyone types.
_MOST = 254


@dataclass(frozen=True)
class Attempt:
    """How one try went."""

    email: str = ""
    error: str = ""
    user: AbstractUser | None = None
    status: int = 200


def attempt(request: HttpRequest, email: str, password: str) -> Attempt:
    """Tries to sign in. An error is one sentence, the same whether the e-mail or the password was
    wrong.
    """
    email = email.strip().lower()
    if not email or not password:
        return Attempt(email, "Give your email and your password.", status=422)
    if len(email) > _MOST or len(password) > 1_000 or "\0" in email + password:
        return Attempt("", "That email and password do not match.", status=422)
    credentials = {"username": email}
    if AxesProxyHandler.is_allowed(request, credentials):
        user = authenticate(request, username=email, password=password)
        if user is not None:
            return Attempt(email, user=user)
    left = settings.AXES_FAILURE_LIMIT - AxesProxyHandler.get_failures(request, credentials)
    if left <= 0:
        return Attempt(
            email,
            f"Too many tries. Sign-in for this email is paused for {_pause(request)} from here.",
            status=429,
        )
    tries = "1 try" if left == 1 else f"{left} tries"
    return Attempt(
        email,
        f"That email and password do not match. {tries} left before a pause of {_pause(request)}.",
        status=422,
    )


def _pause(request: HttpRequest) -> str:
    """Return how long a pause lasts, in words: 15 minutes."""
    length = get_cool_off(request) or timedelta(0)
    return spoken_span(math.ceil(length.total_seconds()))


_PLACES = {"lookup": "lookup", "switches": "the switches"}


def going_to(path: str) -> str:
    """Where someone was going when they were asked to sign in, in words; empty for home."""
    try:
        match = resolve(urlsplit(path).path)
    except Resolver404:
        return ""
    if match.url_name == "decision":
        name = next(iter(match.kwargs.values()), "")
        return f"decision {name}" if parse_decision_id(str(name)) else "a decision"
    if match.url_name == "app":
        return f"app {str(next(iter(match.kwargs.values()), ''))[:80]}"
    return _PLACES.get(match.url_name or "", "")
