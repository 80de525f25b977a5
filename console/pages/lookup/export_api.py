"""Exports over REST, on record like those from the page."""

from __future__ import annotations

import time

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from console.frame import app_looks
from console.frame.permissions import EXPORT
from console.pages.lookup.api import FILTERS, asked_of
from console.pages.lookup.export import NOTHING, apps_of, record
from control.audit.actors import Actor
from decisions.search import export, lookup


class _CsvAlways(BaseContentNegotiation):
    """The export is CSV whatever is accepted; errors are problems."""

    def select_parser(self, request: Request, parsers: list) -> object:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: list, format_suffix: str = "") -> tuple:
        return renderers[0], renderers[0].media_type


class Export(APIView):
    """The list as a file."""

    permission = EXPORT
    throttle_scope = "export"
    content_negotiation_class = _CsvAlways

    @extend_schema(
        operation_id="decisions_export",
        parameters=FILTERS,
        responses={
            (200, "text/csv"): OpenApiResponse(
                OpenApiTypes.STR, "One line a decision, with its weight."
            )
        },
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Streams every stored decision that passes the filters as CSV, with probability and weight
        of each.
        """
        reading, asked = asked_of(request)
        if reading.kind == "nothing":
            raise ValidationError({"q": NOTHING})
        rows = lookup.rows(reading, asked.filters, time.time())
        app_looks.note_apps(request, apps_of(reading, rows), "a CSV export over the API")
        record(
            by=Actor.of(request.user),
            what=reading.label or "every app",
            filters=asked.filters,
            apps=reading.apps,
        )
        answer = StreamingHttpResponse(export.lines(rows), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = 'attachment; filename="decisions.csv"'
        return answer
