"""Signing in with a password: who it was, and how long one must wait after wrong ones."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import Resolver404, resolve
from django.utils import timezone

from control.people import guessing
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
    wait_s: int = 0
    """Seconds until the next try is checked; 0 for at once."""


def attempt(request: HttpRequest, email: str, password: str) -> Attempt:
    """Check an e-mail address and a password, unless one must wait after wrong ones.

    The answer is the same whether the e-mail or the password was wrong, and takes as long, so that
    nobody learns who has an account.
    """
    email = email.strip().lower()
    if not email or not password:
        return Attempt(email, "Give your email and your password.", status=422)
    if len(email) > _LONGEST_EMAIL or len(password) > LONGEST_PASSWORD or "\0" in email + password:
        return Attempt("", "That email and password do not match.", status=422)
    address = request.META.get("REMOTE_ADDR", "")
    if wait_s := guessing.wait_before(address, email, timezone.now()):
        return _must_wait(email, wait_s)
    # of the present backends one checks passwords; for a name that nobody has it hashes one as well
    user = authenticate(request, username=email, password=password)
    if isinstance(user, User):
        guessing.settle(address, email, timezone.now())
        return Attempt(email, user=user)
    return Attempt(email, "That email and password do not match.", status=422)


def _must_wait(email: str, wait_s: int) -> Attempt:
    return Attempt(
        email,
        f"Too many tries from here. Please try again in {spoken_span(wait_s)}; this one was not"
        " checked.",
        status=429,
        wait_s=wait_s,
    )


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
