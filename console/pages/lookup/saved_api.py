"""Saved searches over REST."""

from __future__ import annotations

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Flag, Text
from console.frame.people import person
from console.frame.permissions import READ
from console.pages.lookup import saved_searches


class SearchIn(serializers.Serializer[object]):
    """A search to keep."""

    name = Text(
        max_length=saved_searches.LONGEST_NAME,
        help_text="Replaces a saved search of the same name.",
    )
    query = Text(
        max_length=2_000, allow_blank=True, help_text="Query string of the list's address."
    )
    shared = Flag(default=False, help_text="Whether everyone sees it.")


class SearchOut(serializers.Serializer[object]):
    """A saved search."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    query = serializers.CharField(allow_blank=True)
    shared = serializers.BooleanField()
    mine = serializers.BooleanField()
    owner = serializers.CharField()


class Searches(APIView):
    """The caller's own searches, and those that others share."""

    permission = READ

    @extend_schema(operation_id="searches_list", responses=SearchOut(many=True))
    def get(self, request: Request) -> Response:
        """List your own and the shared searches, by name."""
        return Response(SearchOut(saved_searches.visible_searches(person(request)), many=True).data)

    @extend_schema(operation_id="searches_save", request=SearchIn, responses={201: SearchOut})
    def post(self, request: Request) -> Response:
        """Save a search under a name; replace your search of the same name."""
        given = SearchIn(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            kept = saved_searches.save_search(by=person(request), **given.validated_data)
        except saved_searches.SaveError as error:
            raise ValidationError({"name": str(error)}) from error
        (made,) = (
            one for one in saved_searches.visible_searches(person(request)) if one.id == kept.pk
        )
        return Response(SearchOut(made).data, status=status.HTTP_201_CREATED)


class SearchDetail(APIView):
    """One of the caller's own searches."""

    permission = READ

    @extend_schema(operation_id="searches_delete", responses={204: None})
    def delete(self, request: Request, number: int) -> Response:
        """Delete one of your own searches."""
        if not saved_searches.remove_search(by=person(request), number=number):
            raise Http404("You have no saved search with this number.")
        return Response(status=status.HTTP_204_NO_CONTENT)
