"""Who may call the REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from console.frame import permissions

if TYPE_CHECKING:
    from rest_framework.views import APIView

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
