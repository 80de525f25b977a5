"""CSV exports over REST, recorded in the audit log like those from the page."""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from console.frame import app_looks
from console.frame.people import person
from console.frame.permissions import EXPORT
from console.pages.lookup.api import FILTERS, asked_of
from console.pages.lookup.export_views import NOTHING, apps_of, record_export
from control.audit.actors import Actor
from decisions.search import export, lookup


class _CsvAlways(BaseContentNegotiation):
    """Content negotiation that ignores the Accept header: the answer is CSV, an error a problem."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        return next(iter(parsers), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type


class Export(APIView):
    """The list of decisions as a CSV file."""

    permission = EXPORT
    # An export reads everything a search selects, so it has the strictest rate.
    throttle_scope = "export"
    content_negotiation_class = _CsvAlways

    @extend_schema(
        operation_id="decisions_export",
        parameters=FILTERS,
        responses={
            (200, "text/csv"): OpenApiResponse(
                OpenApiTypes.STR, "One line for each decision, with its weight."
            )
        },
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Stream every stored decision that passes the filters as CSV, with its inclusion
        probability and weight.
        """
        reading, asked = asked_of(request)
        if reading.kind == "nothing":
            raise ValidationError({"q": NOTHING})
        rows = lookup.rows(reading, asked.filters, time.time())
        app_looks.note_apps(request, apps_of(reading, rows), "a CSV export over the API")
        record_export(
            by=Actor.of(person(request)),
            what=reading.label or "every app",
            filters=asked.filters,
            apps=reading.apps,
        )
        answer = StreamingHttpResponse(export.lines(rows), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = 'attachment; filename="decisions.csv"'
        return answer
