"""The file that declares an installation, over REST: what is in force, what a file would change,
and making it so.
"""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.frame import app_looks
from console.frame.people import person
from console.pages.approvals.api import ApprovalOut
from console.pages.declaration import effect
from control.audit import chain
from control.audit.actors import Actor
from control.config import requested
from control.config.gate import NeedsSecondPerson
from control.declared import applying
from control.declared.applying import Planned
from control.declared.planning import Change, Conflict, Plan, name_of
from control.declared.yaml_text import DeclarationError

APPLY = "control.apply_declaration"
# Characters of a file. Chosen: fifty times a usual one, and reading them holds a worker for about a
# second. The commands take longer ones.
LONGEST = 300_000


class FileIn(serializers.Serializer[object]):
    """A sluice.yaml."""

    text = Text(max_length=LONGEST, trim_whitespace=False, help_text="The file's text.")
    take = serializers.ChoiceField(
        ["file", "console"],
        default=None,
        allow_null=True,
        help_text="Whose values hold where the console changed what the file owns since the last"
        " apply; null: such a change is a conflict.",
    )


class FileToApply(FileIn):
    """A sluice.yaml, and why it is applied."""

    reason = Text(max_length=chain.REASON_MAX, help_text="Kept in the audit log.")


class PartChangeOut(serializers.Serializer[Change]):
    """A part that a file changes."""

    verb = serializers.ChoiceField(["add", "change", "remove"])
    part = serializers.CharField(source="name", help_text="What people call it: service orders.")
    lines = serializers.ListField(
        child=serializers.CharField(),
        help_text="What changes within it: capacity: 400, becomes 300.",
    )


class PlanOut(serializers.Serializer[Plan]):
    """What applying a file would do."""

    changes = PartChangeOut(many=True)
    conflicts = serializers.SerializerMethodField(
        help_text="Parts that were changed in the console since the last apply, in sentences."
    )
    released = serializers.SerializerMethodField(
        help_text="Parts that the file no longer names and that stay as they are."
    )

    def get_conflicts(self, plan: Plan) -> list[str]:
        """Return the conflicts as sentences."""
        return [_sentence(conflict) for conflict in plan.conflicts]

    def get_released(self, plan: Plan) -> list[str]:
        """Return the names of the parts."""
        return [name_of(part) for part in plan.released]


class PlannedOut(serializers.Serializer[Planned]):
    """What applying a file would do, and what it would have done in the last hour."""

    plan = PlanOut()
    effect = serializers.ListField(
        child=serializers.CharField(), help_text="Lines for people; empty without a change."
    )


class AppliedOut(serializers.Serializer[object]):
    """What applying a file did."""

    plan = PlanOut()
    config_version = serializers.IntegerField(
        allow_null=True, help_text="Null when deciders had nothing new to be told."
    )


class DeclarationOut(serializers.Serializer[object]):
    """The present state as a file."""

    text = serializers.CharField(help_text="Always the same for the same state.")


class Declaration(APIView):
    """What the installation is declared to be."""

    permission = "control.view_declaration"

    @extend_schema(operation_id="declaration_retrieve", responses=DeclarationOut)
    def get(self, request: Request) -> Response:
        """Return the present state as a sluice.yaml, as `manage.py export` writes it."""
        return Response({"text": applying.export_text()})


class DeclarationPlan(APIView):
    """What a file would change."""

    permission = "control.view_declaration"

    @extend_schema(operation_id="declaration_plan", request=FileIn, responses=PlannedOut)
    def post(self, request: Request) -> Response:
        """Return what applying a file would change, and what that would have done. Change
        nothing.
        """
        given = FileIn(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            planned = applying.plan(**given.validated_data)
        except DeclarationError as error:
            raise _as_problem(error) from error
        lines: list[str] = []
        if planned.after != planned.before:
            seen = effect.preview_of(planned)
            app_looks.note_apps(
                request,
                (one.app for one in seen.examples),
                "an example of what a file would change",
            )
            lines = list(effect.on_last_hour(planned, seen))
        return Response({"plan": PlanOut(planned.plan).data, "effect": lines})


class DeclarationApply(APIView):
    """Making the installation what a file says."""

    permission = APPLY

    @extend_schema(
        operation_id="declaration_apply",
        request=FileToApply,
        responses={200: AppliedOut, 202: ApprovalOut},
    )
    def post(self, request: Request) -> Response:
        """Make what a file says, as one change. A part that the console changed since the last
        apply is a conflict, until `take` says whose value holds. 202: it needs a second person, and
        is asked for; apply the file again once it was approved.
        """
        given = FileToApply(data=request.data)
        given.is_valid(raise_exception=True)
        user = person(request)
        try:
            done = applying.apply(**given.validated_data, by=Actor.of(user))
        except DeclarationError as error:
            raise _as_problem(error) from error
        except NeedsSecondPerson as held:
            made = requested.ask(held, by=user, reason=given.validated_data["reason"])
            return Response(ApprovalOut(made).data, status=status.HTTP_202_ACCEPTED)
        version = done.version.version if done.version else None
        return Response({"plan": PlanOut(done.plan).data, "config_version": version})


def _sentence(conflict: Conflict) -> str:
    return f"{conflict.says()}."


def _as_problem(error: DeclarationError) -> ValidationError:
    """Return a wrong file's faults, each with its line and column."""
    return ValidationError({"text": [str(fault) for fault in error.faults]})
