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

from console.frame import roles

if TYPE_CHECKING:
    from rest_framework.views import APIView

log = logging.getLogger(__name__)


class RolePermission(BasePermission):
    """The same permissions as the pages: each view names its own in `permission`, by method where
    they differ.

    A view that names none is a defect and answers nobody.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raises MethodNotAllowed for a method the view does not have: DRF asks for permission
        before it looks for the method.
        """
        needed = getattr(view, "permission", None)
        if isinstance(needed, dict):
            needed = needed.get("GET" if request.method in ("HEAD", "OPTIONS") else request.method)
        supported = request.method in view.allowed_methods
        if needed is None and supported:
            raise ImproperlyConfigured(
                f"{type(view).__name__} names no permission for {request.method}."
            )
        if not request.user.is_authenticated:
            return False
        if not supported:
            raise MethodNotAllowed(request.method)
        self.message = f"Your role may not do this. {roles.who_can(needed)}."
        return bool(request.user.has_perm(needed))


class _FailsOpen:
    """Failure policy: open. With Valkey away callers are not counted, as support must work in an
    incident; it is logged.
    """

    def allow_request(self, request: Request, view: APIView) -> bool:
        try:
            return bool(super().allow_request(request, view))  # type: ignore[misc]
        except RedisError as error:
            log.warning("API calls are not counted: %s", error)
            return True


class PersonThrottle(_FailsOpen, UserRateThrottle):
    """Calls of one person, by session and tokens together."""


class StrangerThrottle(_FailsOpen, AnonRateThrottle):
    """Calls without a valid credential, by address."""


class ScopeThrottle(_FailsOpen, ScopedRateThrottle):
    """Calls of the few views that cost much, each by its `throttle_scope`."""
