"""Who may do what: the permissions that many pages ask for, and the one check for all of them.

Pages and REST operations refuse in the same words, which name the roles that may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import Error
from django.http import HttpRequest
from rest_framework.request import Request

from console.frame import roles
from console.frame.people import person
from control.audit import denials
from control.audit.actors import Actor
from control.errors import NotAllowed, Refused

log = logging.getLogger("sluice.denials")

# To see decisions and what is computed from them.
READ = "decisions.view_decision"
# To see the digest of the credential that a request carried.
SEE_DIGEST = "decisions.view_token_digest"
# To export decisions as a file.
EXPORT = "decisions.view_decision_export"


def refusal(permission: str) -> str:
    """Return sentences that refuse someone without a permission and name the roles that have it."""
    return f"Your role may not do this. {roles.who_can(permission)}."


def require(request: HttpRequest | Request, check: Callable[[User], None], permission: str) -> User:
    """Return the signed-in person if they pass `check`, which raises NotAllowed if they do not.

    Buttons and commands use the same check, so all follow one rule. Raise PermissionDenied (HTTP
    403), which names the roles that have `permission`.
    """
    user = person(request)
    try:
        check(user)
    except NotAllowed as error:
        raise PermissionDenied(f"{error} {roles.who_can(permission)}.") from error
    return user


def record_refusal(request: HttpRequest | Request, why: str) -> None:
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
