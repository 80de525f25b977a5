"""Signing in with a password: who it was, how many tries are left, and how long a pause lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

from axes.handlers.proxy import AxesProxyHandler
from axes.helpers import get_cool_off
from django.conf import settings
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import Resolver404, resolve

from decider.contracts.ids import parse_decision_id
from decider.contracts.units import spoken_span

# Longest e-mail address there is (RFC 5321), characters.
_LONGEST_EMAIL = 254
# Longest password that is checked, characters. Nobody types a longer one, and hashing it would only
# cost time.
LONGEST_PASSWORD = 1_000


@dataclass(frozen=True)
class Attempt:
    """How one try to sign in went."""

    email: str = ""
    """For the form to show again."""
    error: str = ""
    """A sentence; empty when there was no try yet, and when it succeeded."""
    user: User | None = None
    status: int = 200
    """HTTP status of the page that shows it."""


def attempt(request: HttpRequest, email: str, password: str) -> Attempt:
    """Check an e-mail address and a password, unless a pause after failures lasts.

    The error is the same whether the e-mail or the password was wrong, so that nobody learns who
    has an account.
    """
    email = email.strip().lower()
    if not email or not password:
        return Attempt(email, "Give your email and your password.", status=422)
    if len(email) > _LONGEST_EMAIL or len(password) > LONGEST_PASSWORD or "\0" in email + password:
        return Attempt("", "That email and password do not match.", status=422)
    credentials = {"username": email}
    if AxesProxyHandler.is_allowed(request, credentials):
        user = authenticate(request, username=email, password=password)
        if isinstance(user, User):
            return Attempt(email, user=user)
    return _failed(request, email, credentials)


def _failed(request: HttpRequest, email: str, credentials: dict[str, str]) -> Attempt:
    """Return the failed attempt with a sentence: how many tries are left, or that a pause began."""
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
    """Return how long a pause lasts, in words, such as "15 minutes"."""
    length = get_cool_off(request) or timedelta(0)
    return spoken_span(math.ceil(length.total_seconds()))


# URL names of pages, and how a sentence names them.
_PLACES = {"lookup": "lookup", "switches": "the switches"}


def going_to(path: str) -> str:
    """Return, in words, where someone was going when they were asked to sign in.

    Empty for home and unknown pages. Only a decision id, and the first 80 characters of the app id
    in an app's address, are repeated from the address.
    """
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
