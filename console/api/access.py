"""Who may call the REST API, and how often."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from redis.exceptions import RedisError
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.throttling import AnonRateThrottle, ScopedRateThrottle, UserRateThrottle

from console.frame import permissions

if TYPE_CHECKING:
    from rest_framework.views import APIView

log = logging.getLogger(__name__)

# Methods that show what GET shows, so they need the same permission.
_LIKE_GET = ("HEAD", "OPTIONS")


class RolePermission(BasePermission):
    """The check of every REST operation that the caller has the permission which the view names.

    A view names its permission in `permission`: one for all methods, or a dict by method. Calls to
    a view that names none fail.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return whether the caller is signed in and holds the permission of this operation.

        Raise MethodNotAllowed for a method that the view does not have, and ImproperlyConfigured
        for a view without a permission.
        """
        needed = _needed(request, view)
        if needed is None and request.method in view.allowed_methods:
            raise ImproperlyConfigured(
                f"The view {type(view).__name__} names no permission for {request.method}. Set its"
                " `permission`."
            )
        # before the method is checked, so that a stranger does not learn which methods there are
        if not request.user.is_authenticated:
            return False
        if needed is None or request.method not in view.allowed_methods:
            # DRF asks for permission before it looks for the method, so 405 is answered here
            raise MethodNotAllowed(request.method or "")
        self.message = permissions.refusal(needed)
        return request.user.has_perm(needed)


def _needed(request: Request, view: APIView) -> str | None:
    """Return the permission that the view names for the request's method, None for none."""
    named: str | dict[str, str] | None = getattr(view, "permission", None)
    if isinstance(named, dict):
        return named.get("GET" if request.method in _LIKE_GET else str(request.method))
    return named


class _FailsOpen:
    """Mix-in that lets calls pass uncounted when Valkey does not answer (failure policy: open).

    Support must be able to work during an incident. Each uncounted call is logged.
    """

    def allow_request(self, request: Request, view: APIView) -> bool:
        try:
            # mypy sees only `object`; the throttle beside this mix-in in the bases has the method
            return bool(super().allow_request(request, view))  # type: ignore[misc]
        except RedisError as error:
            log.warning("Valkey does not answer, so this API call passed uncounted: %s", error)
            return True


class PersonThrottle(_FailsOpen, UserRateThrottle):
    """Throttle of the calls of one person, by session and tokens together."""


class StrangerThrottle(_FailsOpen, AnonRateThrottle):
    """Throttle of calls without a valid credential, by address."""


class ScopeThrottle(_FailsOpen, ScopedRateThrottle):
    """Throttle of the calls of costly views, each by its `throttle_scope`."""
