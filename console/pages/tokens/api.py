"""The API tokens of the signed-in person, over REST."""

from __future__ import annotations

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.frame.people import person
from control.audit import tokens


class TokenIn(serializers.Serializer[object]):
    """What a new token is for, and how long it lasts."""

    reason = Text(max_length=200, help_text="What the token is for; kept in the audit log.")
    days = serializers.IntegerField(
        min_value=tokens.SHORTEST_DAYS,
        max_value=tokens.LONGEST_DAYS,
        default=tokens.USUAL_DAYS,
        help_text="Days until the token expires.",
    )


class TokenOut(serializers.Serializer[object]):
    """A token as it is listed: never the token itself."""

    id = serializers.CharField(
        source="token_key", help_text="Its first characters: its name here and in the audit log."
    )
    created = serializers.DateTimeField()
    expiry = serializers.DateTimeField(allow_null=True)


class TokenMade(TokenOut):
    """A new token, with its full text, which is shown only here."""

    token = serializers.CharField(
        help_text="Send it as `Authorization: Token ...`. It is not shown again."
    )


class Tokens(APIView):
    """The caller's own tokens. Only a signed-in session may use this, so that a leaked token cannot
    make others.
    """

    authentication_classes = [SessionAuthentication]
    permission = tokens.PERMISSION

    @extend_schema(operation_id="tokens_list", responses=TokenOut(many=True))
    def get(self, request: Request) -> Response:
        """List your tokens that are still valid."""
        return Response(TokenOut(tokens.living(person(request)), many=True).data)

    @extend_schema(operation_id="tokens_create", request=TokenIn, responses={201: TokenMade})
    def post(self, request: Request) -> Response:
        """Make a token that may do what you may do."""
        wish = TokenIn(data=request.data)
        wish.is_valid(raise_exception=True)
        made, text = tokens.create(by=person(request), **wish.validated_data)
        made.token = text
        return Response(TokenMade(made).data, status=status.HTTP_201_CREATED)


class TokenDetail(APIView):
    """One of the caller's own tokens."""

    authentication_classes = [SessionAuthentication]
    permission = tokens.PERMISSION

    @extend_schema(operation_id="tokens_revoke", responses={204: None})
    def delete(self, request: Request, token: str) -> Response:
        """Revoke one of your tokens at once."""
        if not tokens.revoke(by=person(request), token=token):
            raise Http404("You have no such token.")
        return Response(status=status.HTTP_204_NO_CONTENT)
