"""Tokens for machines: made and revoked by the person they speak for, shown once, stored as a digest."""

from __future__ import annotations

from django.db import transaction
from django.http import Http404
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from knox.models import AuthToken
from knox.settings import knox_settings
from rest_framework import serializers, status
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from control import audit
from control.actors import Actor
from control.errors import Refused

MOST = 10
"""Tokens one person may have at once."""
SHORTEST, LONGEST = 1, 365
"""Days a token may live."""


class TokenIn(serializers.Serializer):
    """A wish for a token."""

    reason = serializers.CharField(max_length=200, help_text="What it is for; kept in the audit log.")
    days = serializers.IntegerField(min_value=SHORTEST, max_value=LONGEST, default=90, help_text="Days until it ends by itself.")


class TokenOut(serializers.Serializer):
    """A token as it is listed: never the token itself."""

    id = serializers.CharField(source="token_key", help_text="Its first characters; names it here and in the audit log.")
    created = serializers.DateTimeField()
    expiry = serializers.DateTimeField(allow_null=True)


class TokenMade(TokenOut):
    """A new token, this once with the token."""

    token = serializers.CharField(help_text="Send it as `Authorization: Token ...`. It is not shown again.")


class Tokens(APIView):
    """One's own tokens. Only a signed-in session may make one, so that a leaked token cannot make others."""

    authentication_classes = [SessionAuthentication]
    permission = "decisions.view_decision"

    @extend_schema(operation_id="tokens_list", responses=TokenOut(many=True))
    def get(self, request: Request) -> Response:
        """Your tokens that have not ended."""
        return Response(TokenOut(_living(request), many=True).data)

    @extend_schema(operation_id="tokens_create", request=TokenIn, responses={201: TokenMade})
    def post(self, request: Request) -> Response:
        """Makes a token that may do what you may do."""
        wish = TokenIn(data=request.data)
        wish.is_valid(raise_exception=True)
        made, text = make(request.user, days=wish.validated_data["days"], reason=wish.validated_data["reason"])
        made.token = text
        return Response(TokenMade(made).data, status=status.HTTP_201_CREATED)


class TokenDetail(APIView):
    """One of one's own tokens."""

    authentication_classes = [SessionAuthentication]
    permission = "decisions.view_decision"

    @extend_schema(operation_id="tokens_revoke", responses={204: None})
    def delete(self, request: Request, token: str) -> Response:
        """Ends a token at once."""
        revoke(request.user, token)
        return Response(status=status.HTTP_204_NO_CONTENT)


def _living(request: Request):
    return AuthToken.objects.filter(user=request.user, expiry__gt=timezone.now()).order_by("created")


@transaction.atomic
def make(user, *, days: int, reason: str) -> tuple[AuthToken, str]:
    """A new token of a person, and its text. Raises Refused when they have MOST already, or give no reason."""
    reason = audit.check_reason(reason)
    audit.lock()
    if AuthToken.objects.filter(user=user, expiry__gt=timezone.now()).count() >= MOST:
        raise Refused(f"You have {MOST} tokens. Revoke one before you make another.")
    made, text = AuthToken.objects.create(user, expiry=timezone.timedelta(days=days), prefix=knox_settings.TOKEN_PREFIX)
    audit.append(
        by=Actor.of(user), reason=reason, action="token_made", subject=f"token {made.token_key}",
        summary=f"made an API token that ends in {days} days",
    )  # fmt: skip
    return made, text


@transaction.atomic
def revoke(user, token: str) -> None:
    """Ends one of a person's tokens. Raises Http404 when they have no such token."""
    deleted, _ = AuthToken.objects.filter(user=user, token_key=token).delete()
    if not deleted:
        raise Http404
    audit.append(
        by=Actor.of(user), reason="Revoked by its owner.", action="token_revoked", subject=f"token {token}",
        summary="revoked an API token",
    )  # fmt: skip
