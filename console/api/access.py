"""Who may call the REST API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from drf_spectacular.contrib.knox_auth_token import KnoxTokenScheme
from drf_spectacular.utils import OpenApiParameter
from knox.auth import TokenAuthentication
from rest_framework.exceptions import AuthenticationFailed, MethodNotAllowed, ValidationError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from console.frame import permissions

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from rest_framework.views import APIView

# Methods that show what GET shows, so they need the same permission.
_LIKE_GET = ("HEAD", "OPTIONS")
# Bytes of a token that is looked up. Chosen: ours have about 70, and a longer one is none.
_LONGEST_TOKEN = 200


class MachineToken(TokenAuthentication):  # type: ignore[misc]  # knox has no types
    """Sign-in of a machine by its token. Bytes that no token holds are refused as a wrong one."""

    def authenticate_credentials(self, token: bytes) -> tuple[User, object]:
        """Return the person and the token. Raise AuthenticationFailed."""
        if len(token) > _LONGEST_TOKEN or not token.isascii() or b"\x00" in token:
            raise AuthenticationFailed("Invalid token.")
        found: tuple[User, object] = super().authenticate_credentials(token)
        return found


class MachineTokenScheme(KnoxTokenScheme):  # type: ignore[no-untyped-call]  # as a base
    """How the OpenAPI document describes that sign-in."""

    target_class = "console.api.access.MachineToken"


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


class KnownParameters(BasePermission):
    """The check of every REST operation that its address holds no parameter but documented ones.

    A mistyped filter that was ignored would answer with everything. The REST framework has no other
    check that every view passes after sign-in, so this one is among the permissions.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Raise ValidationError, which names each unknown or repeated parameter."""
        known = {one.name: one for one in _documented(request, view)}
        wrong = {
            name: f"There is no parameter “{name[:_SHOWN]}” here. {_those(known)}"
            for name in request.query_params
            if name not in known
        }
        given = Counter(name for name, values in request.query_params.lists() for _ in values)
        wrong |= {
            name: f"It is given {given[name]} times; give it once."
            for name, one in known.items()
            if given[name] > 1 and not one.many
        }
        if wrong:
            raise ValidationError(wrong)
        return True


# Characters of an unknown parameter's name that are repeated: enough to find it.
_SHOWN = 40


def _those(known: Collection[str]) -> str:
    """Return a sentence with the names of the parameters that there are."""
    return f"Known are {', '.join(known)}." if known else "This operation takes none."


def _documented(request: Request, view: APIView) -> list[OpenApiParameter]:
    """Return the query parameters that the OpenAPI document has for an operation."""
    method = "GET" if request.method in _LIKE_GET else str(request.method)
    # OPTIONS of a view without GET has no handler of its own, and takes no parameter
    handler = getattr(view, method.lower(), None)
    if handler is None:
        return []
    schema = handler.kwargs["schema"]()
    schema.view, schema.method = view, method
    return [one for one in schema.get_override_parameters() if one.location == one.QUERY]


def _needed(request: Request, view: APIView) -> str | None:
    """Return the permission that the view names for the request's method, None for none."""
    named: str | dict[str, str] | None = getattr(view, "permission", None)
    if isinstance(named, dict):
        return named.get("GET" if request.method in _LIKE_GET else str(request.method))
    return named
