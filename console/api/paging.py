"""Pages of a list over REST: `limit` and a cursor come in, `results` and `next` go out.

A page says where the next one begins (`next`), and the caller sends that value as the cursor. So
rows that arrive in between do not shift a page, as they would with page numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

RowT = TypeVar("RowT", bound=Model)

# Rows on a page: enough for a screen unless the caller asks for another number.
USUAL_ROWS = 50
# The most rows on a page. Chosen: four screens of rows in one call, while one caller still cannot
# hold a console worker for long.
MOST_ROWS = 200
# Longest `limit` that is read, characters: MOST_ROWS and some leading zeros.
_LONGEST_LIMIT = 6
# An OpenAPI schema: JSON, whose values may be of any JSON type.
Schema = dict[str, object]

_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": USUAL_ROWS}


def next_field(cursor: str) -> serializers.CharField:
    """Return the field `next` of a page whose cursor parameter has this name."""
    return serializers.CharField(
        allow_null=True, help_text=f"Send it as `{cursor}` for the next page; null on the last one."
    )


@dataclass(frozen=True)
class Paging(Generic[RowT]):
    """How one list is cut into pages."""

    serializer: type[serializers.BaseSerializer[object]]
    """Writes a page: `results` and `next`."""
    place: Callable[[RowT], str]
    """Function from a row to the cursor of the page that begins after it."""
    cursor: str
    """Name of the cursor parameter."""
    description: str
    """What the cursor parameter does, for the OpenAPI document."""
    schema: Schema | type[str] = str
    """Form of the cursor, for the OpenAPI document."""

    @property
    def parameters(self) -> list[OpenApiParameter]:
        """The cursor and `limit`, for the OpenAPI document."""
        return [
            OpenApiParameter(self.cursor, self.schema, description=self.description),
            OpenApiParameter(
                "limit",
                _LIMIT,
                description=f"Rows on a page, 1 to {MOST_ROWS}; default {USUAL_ROWS}.",
            ),
        ]

    def cursor_of(self, request: Request) -> str:
        """Return the cursor of a request as it was given; empty for the first page."""
        return request.query_params.get(self.cursor, "")

    def cut(self, request: Request, rows: QuerySet[RowT]) -> tuple[list[RowT], bool]:
        """Return the rows of a page, and whether more follow.

        Raise ValidationError for a `limit` that is not a whole number from 1 to MOST_ROWS.
        """
        size = page_size(request)
        # one row more than asked for tells whether there is a next page, without a count
        some = list(rows[: size + 1])
        return some[:size], len(some) > size

    def response(self, some: list[RowT], *, more: bool) -> Response:
        """Return the page; `next` is the place of its last row, null when no more follow."""
        following = self.place(some[-1]) if more else None
        return Response(self.serializer({"results": some, "next": following}).data)


def page_size(request: Request) -> int:
    """Return how many rows a page has.

    Raise ValidationError for a `limit` that is not a whole number from 1 to MOST_ROWS.
    """
    text = request.query_params.get("limit", str(USUAL_ROWS))
    # int() would take signs, spaces and digits of other scripts, and is slow on endless digits
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_LIMIT):
        raise _bad_limit()
    if not 1 <= (size := int(text)) <= MOST_ROWS:
        raise _bad_limit()
    return size


def _bad_limit() -> ValidationError:
    return ValidationError({"limit": f"Must be a whole number from 1 to {MOST_ROWS}."})
