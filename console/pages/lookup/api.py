"""Decisions over REST: the list and the counts behind lookup."""

from __future__ import annotations

import time

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import EstimateOut, WordField, text_schema
from console.api.paging import Paging, next_field, page_size
from console.frame import app_looks
from console.frame.permissions import READ, SEE_DIGEST
from console.pages.lookup import asked_filters, page, pasted_text
from decider.contracts.vocabulary import Action, Arm, Reason, Stage, Tier
from decisions import reason_text
from decisions.models import Decision, utc
from decisions.search import lookup
from decisions.search.filters import DIMENSIONS, RANGES
from decisions.search.lookup import QueryReading


class DecisionOut(serializers.Serializer[object]):
    """A stored decision as it is listed."""

    id = serializers.CharField(
        source="name", help_text="dec_ and 32 hexadecimal digits, as in the response header."
    )
    at = serializers.DateTimeField()
    request_id = serializers.CharField()
    app = serializers.CharField()
    tenant = serializers.CharField()
    tier = WordField(Tier)
    method = serializers.CharField()
    endpoint = serializers.CharField()
    service = serializers.CharField()
    action = WordField(Action)
    stage = WordField(
        Stage,
        help_text="The deciding stage: the first without which the action would have been another.",
    )
    reason = WordField(Reason)
    why = serializers.SerializerMethodField(
        help_text="The reason in one clause, with the figures that were seen."
    )
    retry_after = serializers.FloatField(help_text="Seconds; 0 when a retry would not help.")
    observed = serializers.BooleanField(
        help_text="Decided in observe-only mode: recorded, and admitted."
    )
    risk = serializers.FloatField(allow_null=True)
    value = serializers.FloatField(allow_null=True)
    arm = WordField(Arm)
    model = serializers.CharField(help_text="Digest of the live model; empty when there was none.")
    config_version = serializers.IntegerField()
    inclusion_probability = serializers.FloatField(
        help_text="How likely such a decision was to be kept."
    )
    weight = serializers.FloatField(help_text="How many decisions this one stands for.")

    def get_why(self, decision: Decision) -> str:
        return reason_text.clause(decision)


class DecisionsPage(serializers.Serializer[object]):
    """A page of a list."""

    results = DecisionOut(many=True)
    next = next_field("before")


PAGING: Paging[Decision] = Paging(
    DecisionsPage,
    place=lambda decision: decision.name,
    cursor="before",
    description="Show what is older than this decision: a page's `next`.",
)

FILTERS = [
    OpenApiParameter(
        "q",
        text_schema(200),
        description=(
            "Decision, request or app id, or the name of an app or tenant. Never a credential."
        ),
    ),
    OpenApiParameter(
        "as",
        str,
        enum=list(lookup.READINGS),
        description=(
            "What q is, when it could be several things; “replay” finds what replays of logs"
            " decided about an app."
        ),
    ),
    OpenApiParameter("range", str, enum=list(RANGES), description="How far back; default 1h."),
    OpenApiParameter(
        "from",
        str,
        description="Start of another time range, ISO 8601 with its zone; needs `to`.",
    ),
    OpenApiParameter("to", str, description="End of that time range, exclusive."),
    *(
        OpenApiParameter(
            name,
            str,
            many=True,
            explode=True,
            enum=d.words or None,
            description=f"{does} this {d.name}: {d.known}.",
        )
        for d in DIMENSIONS
        for name, does in ((d.name, "Only"), (d.without, "Without"))
    ),
]


def asked_of(request: Request) -> tuple[QueryReading, asked_filters.Asked]:
    """Return what the address asks for: how `q` was read, and the filters.

    Raise ValidationError, which names every value that cannot be read. Raise PermissionDenied for a
    token's digest when the caller may not see digests.
    """
    asked = asked_filters.read_filters(request.query_params, first_visit=False, rest=True)
    problems = list(asked.problems)
    text, insist = request.query_params.get("q", "").strip(), request.query_params.get("as", "")
    # PostgreSQL cannot hold a NUL; no id or name has more than 200 characters.
    if len(text) > 200 or "\x00" in text:
        problems.append("“q” must have at most 200 characters and no NUL.")
    problems += [
        f"“{name}” is empty."
        for name, values in request.query_params.lists()
        if name != "q" and "" in values
    ]
    if insist not in ("", *lookup.READINGS):
        problems.append(f"“as” must be one of {', '.join(lookup.READINGS)}.")
    if problems:
        raise ValidationError({"query": problems})
    found = pasted_text.read_in_address(text, insist, with_token=False)
    # Logs hold addresses, so a credential in an address is refused even if it would be found.
    if found.withheld:
        raise ValidationError({"q": f"{pasted_text.IN_ADDRESS[:-1]} to /api/v1/lookup."})
    reading = found.reading
    if reading.kind == "token" and not request.user.has_perm(SEE_DIGEST):
        raise PermissionDenied("Your role may not see digests of credentials.")
    return reading, asked


class Decisions(APIView):
    """Stored decisions, newest first."""

    permission = READ

    @extend_schema(
        operation_id="decisions_list",
        parameters=[*FILTERS, *PAGING.parameters],
        responses=DecisionsPage,
    )
    def get(self, request: Request) -> Response:
        """List stored decisions that pass every filter. A row stands for `weight` decisions."""
        reading, asked = asked_of(request)
        size = page_size(request)
        # The list shows no features: the vector is most of a row's bytes.
        rows = lookup.rows(reading, asked.filters, time.time()).defer("features")
        some, more = lookup.page(rows, asked.before, size)
        app_looks.note_rows(request, some, "decisions over the API")
        return PAGING.response(some, more=more)


class ChoiceOut(EstimateOut):
    """One value of a facet."""

    value = serializers.CharField(source="word", help_text="The value as a filter takes it.")
    label = serializers.CharField()  # type: ignore[assignment]  # a REST field called label
    count = serializers.FloatField(source="number.count")
    low = serializers.FloatField(source="number.low")
    high = serializers.FloatField(source="number.high")
    kept = serializers.IntegerField(source="number.kept")


class FacetOut(serializers.Serializer[object]):
    """The decisions by the values of one dimension, counted with all filters but its own."""

    name = serializers.CharField(help_text="Name of the filter; app for the busiest apps.")
    title = serializers.CharField()
    choices = ChoiceOut(many=True)
    more = serializers.IntegerField(help_text="Values that are not listed.")


class BucketOut(EstimateOut):
    """Decisions of one action in one bucket of time."""

    at = serializers.DateTimeField()
    action = WordField(Action)
    count = serializers.FloatField(source="number.count")
    low = serializers.FloatField(source="number.low")
    high = serializers.FloatField(source="number.high")
    kept = serializers.IntegerField(source="number.kept")


class CountsOut(serializers.Serializer[object]):
    """Everything a search selects, counted."""

    number = EstimateOut()
    finding = serializers.CharField(
        allow_blank=True, help_text="What stands out; empty when nothing does."
    )
    facets = FacetOut(many=True)
    bucket_seconds = serializers.FloatField()
    histogram = BucketOut(many=True)


class DecisionCounts(APIView):
    """The counts beside the list."""

    permission = READ
    # Counting may read a week of rows, so it has the stricter rate.
    throttle_scope = "heavy"

    @extend_schema(operation_id="decisions_counts", parameters=FILTERS, responses=CountsOut)
    def get(self, request: Request) -> Response:
        """Count the decisions that pass the filters: in all, by the values of each filter, and over
        time.

        For a search by a single id, there are no facets and no histogram.
        """
        reading, asked = asked_of(request)
        found = page.search_results(reading, asked.filters, time.time())
        app_looks.note_apps(request, found.shown_apps, "counts over the API")
        by_time, width = (found.by_time.cells, found.by_time.width) if found.by_time else ((), 0.0)
        cells = [{"at": utc(c.start), "action": c.action, "number": c.number} for c in by_time]
        facets = [*found.facets, *([found.apps] if found.apps else [])]
        told = {
            "number": found.number,
            "finding": found.finding,
            "facets": facets,
            "bucket_seconds": width,
            "histogram": cells,
        }
        return Response(CountsOut(told).data)
