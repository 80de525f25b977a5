"""Requests for a second person over REST: what waits, and deciding it."""

from __future__ import annotations

from collections.abc import Callable

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.request import Request as RestRequest
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.api.paging import Paging, next_field
from console.frame.people import person
from console.frame.permissions import record_refusal
from console.frame.sign_in import reauthentication
from console.pages.approvals import deciding, page
from control.approvals import requests
from control.approvals.lifecycle import State
from control.approvals.models import Request, Vote
from control.approvals.requests import Ballot
from control.audit import chain
from control.config import requested
from control.errors import Refused

VIEW = "approvals.view_request"
_SHOWS = ("waiting", "closed", "all")
# Digits of a request's number as a cursor: as many as the database's numbers have.
_LONGEST_PLACE = 18


class ApprovalPartOut(serializers.Serializer[object]):
    """One part of a change."""

    part = serializers.CharField(help_text="JSON pointer into the config document, by names.")
    before = serializers.JSONField(help_text="What it was; null where there was none.")
    after = serializers.JSONField(help_text="What it becomes; null where it is taken out.")


class VoteOut(serializers.Serializer[Vote]):
    """One person's verdict."""

    voter = serializers.CharField()
    verdict = serializers.ChoiceField(choices=Vote.Verdict.choices)
    reason = serializers.CharField()
    how = serializers.ChoiceField(choices=Vote.How.choices)
    at = serializers.DateTimeField()


class ApprovalOut(serializers.Serializer[Request]):
    """A request for a second person."""

    number = serializers.IntegerField(source="pk")
    title = serializers.SerializerMethodField()
    action = serializers.CharField()
    subject = serializers.CharField()
    parts = serializers.SerializerMethodField()
    digest = serializers.CharField(help_text="What a vote is for. Send it back with the vote.")
    requested_by = serializers.CharField()
    requested_at = serializers.DateTimeField()
    reason = serializers.CharField()
    ticket = serializers.CharField()
    needs = serializers.IntegerField(help_text="People other than the proposer who must approve.")
    expires_at = serializers.DateTimeField()
    state = serializers.ChoiceField(choices=State.choices)
    closed_at = serializers.DateTimeField(allow_null=True)
    outcome = serializers.CharField()
    overtaken = serializers.SerializerMethodField()
    votes = VoteOut(many=True)

    def get_title(self, row: Request) -> str:
        """Return what it asks for, in words."""
        return page.title(row)

    def get_overtaken(self, row: Request) -> str:
        """Return who changed the same since; empty when nobody did, or when it is closed."""
        if row.state != State.OPEN:
            return ""
        found = requested.overtaken(row, timezone.now())
        return deciding.overtaken_text(found) if found else ""

    @extend_schema_field(ApprovalPartOut(many=True))
    def get_parts(self, row: Request) -> list[dict[str, object]]:
        """Return what it changes, part by part."""
        return [
            {"part": d.part, "before": d.before, "after": d.after} for d in requested.parts_of(row)
        ]


class ApprovalsPage(serializers.Serializer[object]):
    """A page of requests."""

    results = ApprovalOut(many=True)
    next = next_field("below")


class VoteIn(serializers.Serializer[object]):
    """A vote: why, and for which content."""

    reason = Text(max_length=chain.REASON_MAX, help_text="What you checked; kept in the audit log.")
    digest = serializers.RegexField(
        r"^[0-9a-f]{64}$", help_text="The digest of the request as you have read it."
    )


class ApprovalReasonIn(serializers.Serializer[object]):
    """Why a request is withdrawn or rebased."""

    reason = Text(max_length=chain.REASON_MAX, help_text="Why; kept in the audit log.")


PAGING: Paging[Request] = Paging(
    serializer=ApprovalsPage,
    place=lambda row: str(row.pk),
    cursor="below",
    description="Number of a request; the page has those before it, the latest first.",
    schema={"type": "integer", "minimum": 1, "maximum": 10**_LONGEST_PLACE - 1},
)


class Approvals(APIView):
    """All requests."""

    permission = VIEW

    @extend_schema(
        operation_id="approvals_list",
        responses=ApprovalsPage,
        parameters=[
            OpenApiParameter("show", str, enum=list(_SHOWS), description="Default: waiting."),
            *PAGING.parameters,
        ],
    )
    def get(self, request: RestRequest) -> Response:
        """List requests, the latest first."""
        which = request.query_params.get("show", "waiting")
        if which not in _SHOWS:
            raise ValidationError({"show": f"Must be one of {', '.join(_SHOWS)}."})
        rows = Request.objects.order_by("-pk").select_related("requested_by")
        if which != "all":
            rows = (
                rows.filter(state=State.OPEN)
                if which == "waiting"
                else rows.exclude(state=State.OPEN)
            )
        if below := _place(PAGING.cursor_of(request)):
            rows = rows.filter(pk__lt=below)
        some, more = PAGING.cut(request, rows.prefetch_related("votes__voter"))
        return PAGING.response(some, more=more)


class ApprovalDetail(APIView):
    """One request."""

    permission = VIEW

    @extend_schema(operation_id="approvals_retrieve", responses=ApprovalOut)
    def get(self, request: RestRequest, number: int) -> Response:
        """Return a request, what it would change and who voted."""
        return Response(ApprovalOut(_found(number)).data)


class Approve(APIView):
    """Approving a request."""

    permission = VIEW

    @extend_schema(operation_id="approvals_approve", request=VoteIn, responses=ApprovalOut)
    def post(self, request: RestRequest, number: int) -> Response:
        """Approve a request of someone else. The change is made once enough people approved. A
        session must have been authenticated in the last minutes.
        """
        reauthentication.require_recent(request)
        ballot = _ballot(request, Vote.Verdict.APPROVE)
        return _tried(request, number, lambda: deciding.approve(number, ballot, by=person(request)))


class Veto(APIView):
    """Vetoing a request."""

    permission = VIEW

    @extend_schema(operation_id="approvals_veto", request=VoteIn, responses=ApprovalOut)
    def post(self, request: RestRequest, number: int) -> Response:
        """Veto a request of someone else, which ends it."""
        ballot = _ballot(request, Vote.Verdict.VETO)
        return _tried(request, number, lambda: deciding.veto(number, ballot, by=person(request)))


class Withdraw(APIView):
    """Withdrawing a request."""

    permission = VIEW

    @extend_schema(
        operation_id="approvals_withdraw", request=ApprovalReasonIn, responses=ApprovalOut
    )
    def post(self, request: RestRequest, number: int) -> Response:
        """Withdraw your own request."""
        reason = _reason(request)
        return _tried(
            request, number, lambda: requests.withdraw(number, by=person(request), reason=reason)
        )


class Rebase(APIView):
    """Rebasing a request."""

    permission = VIEW

    @extend_schema(operation_id="approvals_rebase", request=ApprovalReasonIn, responses=ApprovalOut)
    def post(self, request: RestRequest, number: int) -> Response:
        """Ask for the same from what is in force now, as a new request without votes, in place of
        one that was overtaken.
        """
        reason = _reason(request)
        return _tried(
            request,
            number,
            lambda: requested.rebase(_found(number), by=person(request), reason=reason),
        )


def _tried(request: RestRequest, number: int, do: Callable[[], Request]) -> Response:
    """Answer with the request after a verb. A refusal is kept in the audit log, whichever it is."""
    _found(number)
    try:
        done = do()
    except Refused as error:
        record_refusal(request, str(error))
        raise
    return Response(ApprovalOut(_found(done.pk)).data)


def _ballot(request: RestRequest, verdict: Vote.Verdict) -> Ballot:
    given = VoteIn(data=request.data)
    given.is_valid(raise_exception=True)
    values = given.validated_data
    # a token stands for a person, and the vote says that it was one
    signed_in = isinstance(request.successful_authenticator, SessionAuthentication)
    how = Vote.How.SESSION if signed_in else Vote.How.TOKEN
    return Ballot(verdict, values["digest"], values["reason"], how)


def _reason(request: RestRequest) -> str:
    given = ApprovalReasonIn(data=request.data)
    given.is_valid(raise_exception=True)
    return str(given.validated_data["reason"])


def _place(text: str) -> int | None:
    """Return the number of a cursor. Raise ValidationError for anything but one."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_PLACE and int(text)):
        raise ValidationError({"below": "Must be the number of a request."})
    return int(text)


def _found(number: int) -> Request:
    """Return a request. Raise NotFound when no request has this number."""
    try:
        return requests.found(number)
    except Refused as error:
        raise NotFound(str(error)) from error
