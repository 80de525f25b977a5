"""Writes down in the audit log that the signed-in person was refused something."""

from __future__ import annotations

import logging

from django.contrib.auth.models import User
from django.db import Error
from django.http import HttpRequest
from rest_framework.request import Request

from control.audit import denials
from control.audit.actors import Actor
from control.errors import Refused

log = logging.getLogger("sluice.denials")


def record(request: HttpRequest | Request, why: str) -> None:
    """Append who was refused what, and why. An answer never fails for it: without a database or
    with a full disk, the log of the process says so.
    """
    user, match = request.user, request.resolver_match
    if not isinstance(user, User) or match is None:
        return
    tried = f"{request.method} {match.route}"
    try:
        denials.record(by=Actor.of(user), tried=tried, why=why or "Not allowed.")
    except (Error, Refused) as error:
        log.warning("%s was refused %s, not in the audit log: %s", user.pk, tried, error)
