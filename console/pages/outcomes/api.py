"""Outcomes and disputes over REST: what happened later, and whether a refusal was wrong."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping

from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text, WordField, text_schema
from console.api.paging import Paging, next_field
from console.frame import app_looks
from console.frame.people import person
from console.frame.stored import decision_or_404
from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from decider.contracts.ids import format_decision_id, parse_decision_id
from decider.contracts.vocabulary import Action
from decisions.models import Dispute, Outcome
from decisions.models.outcome import MOST_WEIGHT, REPORTABLE, OutcomeKind
from decisions.models.tie import TieHow, TieState
from decisions.outcomes import disputes, report_input
from decisions.outcomes import reports as outcome_reports
from decisions.outcomes.reports import Report

# Number of a dispute, and whether it was open (o) or decided (d) when it was listed.
_PLACE = re.compile(r"([0-9]{1,18})([od])")


@extend_schema_field(
    {"type": "string", "pattern": "^dec_0[0-5][0-9a-f]{10}7[0-9a-f]{3}[89ab][0-9a-f]{15}$"}
)
class DecisionId(serializers.Field[uuid.UUID, object, str, object]):
    """A decision id: dec_ and 32 hexadecimal digits."""

    default_error_messages = {"invalid": "A decision id is dec_ and 32 hexadecimal digits."}

    def to_internal_value(self, data: object) -> uuid.UUID:
        """Return the id of a text. Raise ValidationError for anything but a decision id."""
        if not isinstance(data, str) or (raw := parse_decision_id(data)) is None:
            self.fail("invalid")
        return uuid.UUID(bytes=raw)

    def to_representation(self, value: uuid.UUID) -> str:
        """Return the id as it is shown."""
        return format_decision_id(value.bytes)


class OutcomeIn(serializers.Serializer[object]):
    """One thing that happened later, about an app, a credential's digest, a request or a
    decision.
    """

    key = Text(max_length=200, help_text="Your own id for it: sent again, it changes nothing.")
    kind = serializers.ChoiceField(
        [(kind.value, kind.label) for kind in REPORTABLE],
        help_text="Whether a refusal was wrong comes from disputes only.",
    )
    occurred_at = serializers.DateTimeField()
    reported_at = serializers.DateTimeField(
        allow_null=True, default=None, help_text="When its source learned of it; default: now."
    )
    matured_at = serializers.DateTimeField(
        allow_null=True, default=None, help_text="From when it counts; default: at once."
    )
    app = Text(allow_blank=True, default="", max_length=128)
    token_digest = Text(
        allow_blank=True, default="", max_length=32, help_text="Never the token itself."
    )
    request_id = Text(allow_blank=True, default="", max_length=200)
    decision = DecisionId(allow_null=True, default=None)
    receipt = Text(
        allow_blank=True,
        default="",
        max_length=300,
        help_text="What the refused client got; it tells the app of a decision that is not stored.",
    )
    weight = serializers.FloatField(
        default=1.0,
        help_text="How many such events it stands for: above 0, at most"
        f" {MOST_WEIGHT:,.0f}; about a stored decision at most the inverse of the probability with"
        " which it was kept.",
    )
    note = Text(allow_blank=True, default="", max_length=500)

    def to_internal_value(self, data: object) -> Report:
        """Return the report. Raise ValidationError, which names each wrong field.

        The fields above only describe it in the OpenAPI document. The rules are those of
        `report_input`, which reads uploaded files as well.
        """
        if not isinstance(data, Mapping):
            self.fail("invalid", datatype=type(data).__name__)
        found = report_input.read_report(data)
        if isinstance(found, Report):
            return found
        raise ValidationError(_by_field(found))


class OutcomesIn(serializers.Serializer[object]):
    """The outcomes of one report, and where they are from."""

    outcomes = serializers.ListField(
        child=OutcomeIn(), min_length=1, max_length=outcome_reports.MOST
    )
    reason = Text(
        max_length=chain.REASON_MAX, help_text="Where they are from; kept in the audit log."
    )


class OutcomesDone(serializers.Serializer[object]):
    """What a report did."""

    stored = serializers.IntegerField()
    repeated = serializers.IntegerField(
        help_text="Outcomes that were already stored with the same content."
    )


class OutcomeOut(serializers.ModelSerializer[Outcome]):
    """A stored outcome."""

    decision = DecisionId(allow_null=True)
    kind = serializers.ChoiceField(OutcomeKind.choices)
    mature = serializers.BooleanField(source="is_mature", help_text="Whether it counts by now.")
    counts = serializers.BooleanField(
        source="is_real",
        help_text="False for a verdict that was reported without a dispute, as was possible once:"
        " nothing counts it.",
    )
    tied_app = serializers.CharField(
        source="tie.app", help_text="The app that it is about; empty while none is known."
    )
    tie = serializers.ChoiceField(
        TieState.choices,
        source="tie.state",
        help_text="tied: the app is known; unknown: no app is known; several: several apps used the"
        " same request id or credential, or what was reported contradicts itself.",
    )
    tied_by = serializers.ChoiceField(
        [*TieHow.choices, ("", "None")], source="tie.how", help_text="What told the app."
    )
    tried_next = serializers.DateTimeField(
        source="tie.next_at",
        allow_null=True,
        help_text="When its app is looked for again; null: no more.",
    )

    class Meta:
        model = Outcome
        fields = [
            "key",
            "kind",
            "occurred_at",
            "reported_at",
            "matured_at",
            "mature",
            "counts",
            "source",
            "weight",
            "tied_app",
            "tie",
            "tied_by",
            "tried_next",
            "app",
            "request_id",
            "decision",
            "note",
            "by",
        ]


class OutcomesPage(serializers.Serializer[object]):
    """A page of outcomes."""

    results = OutcomeOut(many=True)
    next = next_field("before")


OUTCOMES_PAGING: Paging[Outcome] = Paging(
    OutcomesPage,
    place=lambda outcome: outcome.key,
    cursor="before",
    description="Show what is older than the outcome of this key: a page's `next`.",
)


class Outcomes(APIView):
    """What happened later."""

    permission = {"GET": "decisions.view_outcome", "POST": outcome_reports.PERMISSION}

    @extend_schema(
        operation_id="outcomes_list",
        responses=OutcomesPage,
        parameters=[
            OpenApiParameter("app", text_schema(128), description="Only what is about this app."),
            OpenApiParameter(
                "tie",
                str,
                enum=outcome_reports.TIES,
                description="Only what is tied to an app, or what is not.",
            ),
            *OUTCOMES_PAGING.parameters,
        ],
    )
    def get(self, request: Request) -> Response:
        """List the latest outcomes: of an app by when they occurred, else by when they were
        stored.
        """
        app = request.query_params.get("app", "")
        if len(app) > 128 or "\x00" in app:
            raise ValidationError({"app": "An app id has at most 128 characters, and no NUL."})
        tie = request.query_params.get("tie", "")
        if tie and tie not in outcome_reports.TIES:
            raise ValidationError({"tie": f"Must be one of {', '.join(outcome_reports.TIES)}."})
        before = _before(OUTCOMES_PAGING.cursor_of(request), app)
        some, more = OUTCOMES_PAGING.cut(request, outcome_reports.latest(app, before, tie))
        app_looks.note_apps(
            request, (o.tie.app for o in some if o.tie.app), "outcomes over the API"
        )
        if app and not some:
            # An empty list also tells something about the app, so it is a look.
            app_looks.note_known(request, app, "outcomes over the API")
        return OUTCOMES_PAGING.response(some, more=more)

    @extend_schema(
        operation_id="outcomes_report", request=OutcomesIn, responses={201: OutcomesDone}
    )
    def post(self, request: Request) -> Response:
        """Store all outcomes of a report, or none. A known key with other content is a conflict."""
        given = OutcomesIn(data=request.data)
        given.is_valid(raise_exception=True)
        reports: list[Report] = given.validated_data["outcomes"]
        try:
            done = outcome_reports.report_all(
                reports,
                by=Actor.of(person(request)),
                reason=given.validated_data["reason"],
                source="api",
            )
        # A conflict is no mistake in the body: the problem handler answers it with 409.
        except outcome_reports.Conflicts:
            raise
        except outcome_reports.Invalid as error:
            raise ValidationError({"outcomes": _placed(error, len(reports))}) from error
        return Response(OutcomesDone(done).data, status=status.HTTP_201_CREATED)


def _before(key: str, app: str) -> Outcome | None:
    """Return the outcome that a page begins after. Raise NotFound for a key outside the list."""
    if not key:
        return None
    known = Outcome.objects.select_related("tie")
    last = known.filter(key=key).first() if "\x00" not in key else None
    if last is None or (app and last.tie.app != app):
        raise NotFound("No outcome in this list has the key given as “before”.")
    return last


def _placed(error: outcome_reports.Invalid, count: int) -> list[dict[str, list[str]]]:
    """Return what is wrong with each outcome, in the order in which they were sent."""
    places: list[list[outcome_reports.Problem]] = [[] for _ in range(count)]
    for problem in error.problems:
        places[problem.number].append(problem)
    return [_by_field(some) for some in places]


def _by_field(problems: Iterable[outcome_reports.Problem]) -> dict[str, list[str]]:
    """Return what is wrong with one outcome, by field."""
    texts: dict[str, list[str]] = {}
    for problem in problems:
        texts.setdefault(problem.field, []).append(problem.text)
    return texts


class DisputeIn(serializers.Serializer[object]):
    """The claim that a refusal was wrong."""

    decision = DecisionId()
    reason = Text(max_length=chain.REASON_MAX)
    ticket = Text(max_length=disputes.TICKET_MAX, allow_blank=True, default="")


class VerdictIn(serializers.Serializer[object]):
    """A second person's verdict."""

    verdict = serializers.ChoiceField(
        ["uphold", "decline"], help_text="uphold: it was a false throttle; decline: it was correct."
    )
    reason = Text(max_length=chain.REASON_MAX)


class DisputeLinks(serializers.Serializer[object]):
    """Where the evidence is: addresses of this API. Each answers 404 when the decision is no longer
    stored.
    """

    decision = serializers.CharField()
    explanation = serializers.CharField(help_text="How the features moved its risk.")
    counterfactual = serializers.CharField(help_text="What would have changed it.")
    app = serializers.CharField(help_text="The app, its outcomes and its disputes.")


class DisputeOut(serializers.ModelSerializer[Dispute]):
    """A dispute."""

    number = serializers.IntegerField(source="pk")
    decision = DecisionId()
    action = WordField(Action)
    links = serializers.SerializerMethodField()

    @extend_schema_field(DisputeLinks)
    def get_links(self, dispute: Dispute) -> dict[str, str]:
        """Return where a judge finds the evidence."""
        decision = [format_decision_id(dispute.decision.bytes)]
        return {
            "decision": reverse("api-decision", args=decision),
            "explanation": reverse("api-explanation", args=decision),
            "counterfactual": reverse("api-counterfactual", args=decision),
            "app": reverse("api-app", args=[dispute.app]),
        }

    class Meta:
        model = Dispute
        fields = [
            "number",
            "decision",
            "at",
            "app",
            "action",
            "state",
            "claim",
            "ticket",
            "opened_name",
            "opened_at",
            "decided_name",
            "decided_at",
            "verdict_reason",
            "weight",
            "links",
        ]


class DisputesPage(serializers.Serializer[object]):
    """A page of disputes."""

    results = DisputeOut(many=True)
    next = next_field("after")


DISPUTES_PAGING: Paging[Dispute] = Paging(
    DisputesPage,
    # with the state at this moment, because deciding a dispute changes its place
    place=lambda dispute: f"{dispute.pk}{'o' if dispute.is_open else 'd'}",
    cursor="after",
    description="Show what follows in the queue: a page's `next`.",
    schema={"type": "string", "pattern": "^([0-9]{1,18}[od])?$"},
)


class Disputes(APIView):
    """The queue of disputes."""

    permission = {"GET": "decisions.view_dispute", "POST": disputes.OPEN_PERMISSION}

    @extend_schema(
        operation_id="disputes_list",
        responses=DisputesPage,
        parameters=[
            OpenApiParameter(
                "show", str, enum=["open", "mine", "decided"], description="Default: open."
            ),
            *DISPUTES_PAGING.parameters,
        ],
    )
    def get(self, request: Request) -> Response:
        """List disputes: those that wait oldest first, decided ones latest first."""
        which = request.query_params.get("show", "open")
        if which not in ("open", "mine", "decided"):
            raise ValidationError({"show": "Must be one of open, mine, decided."})
        place = DISPUTES_PAGING.cursor_of(request)
        queue = _queue(which, request.user.get_username(), place)
        some, more = DISPUTES_PAGING.cut(request, queue)
        app_looks.note_rows(request, some, "disputes over the API")
        return DISPUTES_PAGING.response(some, more=more)

    @extend_schema(operation_id="disputes_open", request=DisputeIn, responses={201: DisputeOut})
    def post(self, request: Request) -> Response:
        """Open a dispute about a stored refusal."""
        given = DisputeIn(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        decision = decision_or_404(format_decision_id(values["decision"].bytes))
        app_looks.note(
            request, decision.app, f"decision {decision.name}, to dispute it over the API"
        )
        made = disputes.open_dispute(
            decision, by=Actor.of(person(request)), reason=values["reason"], ticket=values["ticket"]
        )
        return Response(DisputeOut(made).data, status=status.HTTP_201_CREATED)


class DisputeDetail(APIView):
    """One dispute."""

    permission = "decisions.view_dispute"

    @extend_schema(operation_id="disputes_retrieve", responses=DisputeOut)
    def get(self, request: Request, number: int) -> Response:
        """Return a dispute and how it stands."""
        return Response(DisputeOut(_dispute(request, number)).data)


class Verdict(APIView):
    """Deciding a dispute."""

    permission = disputes.ADJUDICATE_PERMISSION

    @extend_schema(operation_id="disputes_decide", request=VerdictIn, responses=DisputeOut)
    def post(self, request: Request, number: int) -> Response:
        """Decide an open dispute, once, as a second person. The verdict becomes a matured
        outcome.
        """
        _dispute(request, number)
        given = VerdictIn(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        decided = disputes.adjudicate(
            number, values["verdict"], by=Actor.of(person(request)), reason=values["reason"]
        )
        return Response(DisputeOut(decided).data)


def _queue(which: str, login: str, place: str) -> QuerySet[Dispute]:
    """Return a queue, or what follows a place in it.

    Raise ValidationError for a text that is not a position, NotFound for a position that does not
    exist.
    """
    if not place:
        return disputes.queue(which, login)
    if (match := _PLACE.fullmatch(place)) is None:
        raise ValidationError(
            {"after": "This is not a position in the queue. Send the `next` of a page."}
        )
    last = Dispute.objects.filter(pk=int(match[1])).first()
    if last is None or (last.is_open and (match[2] == "d" or which == "decided")):
        raise NotFound("This queue has no such position.")
    return disputes.after(which, login, last, match[2] == "o")


def _dispute(request: Request, number: int) -> Dispute:
    """Return a dispute, and note the look. Raise NotFound when no dispute has this number."""
    try:
        one = disputes.by_number(number)
    except Refused as error:
        raise NotFound(str(error)) from error
    app_looks.note(request, one.app, f"dispute {number} over the API")
    return one
