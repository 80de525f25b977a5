"""People and roles over REST."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.frame.people import person
from console.pages.people.views import person_or_404
from control.audit import chain
from control.audit.actors import ROLE_LABELS
from control.people import accounts, grants, review

# As each change says it.
_WHY = "Why; kept in the audit log."


class HeldOut(serializers.Serializer[object]):
    """A role that a person has."""

    role = serializers.ChoiceField(list(ROLE_LABELS.items()))
    by = serializers.CharField(help_text="Who gave it; empty when that is not known.")
    at = serializers.DateTimeField(allow_null=True)
    reason = serializers.CharField()


class PersonOut(serializers.Serializer[object]):
    """A person and what they may do."""

    number = serializers.IntegerField()
    login = serializers.CharField()
    name = serializers.CharField()
    active = serializers.BooleanField()
    everything = serializers.BooleanField(help_text="A superuser, who may do everything.")
    has_password = serializers.BooleanField()
    last_sign_in = serializers.DateTimeField(allow_null=True)
    roles = HeldOut(many=True)


class PersonIn(serializers.Serializer[object]):
    """A new person, who has no role yet."""

    email = Text(max_length=accounts.LONGEST_EMAIL)
    first = Text(max_length=accounts.LONGEST_NAME)
    last = Text(max_length=accounts.LONGEST_NAME)
    reason = Text(max_length=chain.REASON_MAX, help_text=_WHY)


class PersonReasonIn(serializers.Serializer[object]):
    """Why something is changed."""

    reason = Text(max_length=chain.REASON_MAX, help_text=_WHY)


class RoleIn(PersonReasonIn):
    """A role to give or take, and why."""

    role = serializers.ChoiceField(list(ROLE_LABELS.items()))


class People(APIView):
    """Everyone. Only a signed-in session may use this, so that a leaked token makes nobody
    powerful.
    """

    authentication_classes = [SessionAuthentication]
    permission = {"GET": grants.VIEW, "POST": grants.MANAGE}

    @extend_schema(operation_id="people_list", responses=PersonOut(many=True))
    def get(self, request: Request) -> Response:
        """List everyone with their roles."""
        return Response(PersonOut(review.everyone(), many=True).data)

    @extend_schema(operation_id="people_make", request=PersonIn, responses={201: PersonOut})
    def post(self, request: Request) -> Response:
        """Make a person without a role and without a password."""
        wish = PersonIn(data=request.data)
        wish.is_valid(raise_exception=True)
        made = accounts.make(by=person(request), **wish.validated_data)
        return Response(PersonOut(review.one(made)).data, status=status.HTTP_201_CREATED)


class PersonDetail(APIView):
    """One person."""

    authentication_classes = [SessionAuthentication]
    permission = grants.VIEW

    @extend_schema(operation_id="people_read", responses=PersonOut)
    def get(self, request: Request, number: int) -> Response:
        """Read one person with their roles."""
        return Response(PersonOut(review.one(person_or_404(number))).data)


class _Change(APIView):
    """A change of one person, which answers the person as they are then."""

    authentication_classes = [SessionAuthentication]
    permission = grants.MANAGE

    def answer(self, number: int) -> Response:
        """Return the person as they are now."""
        return Response(PersonOut(review.one(person_or_404(number))).data)

    def reason(self, request: Request) -> str:
        """Return the reason of the body. Raise ValidationError."""
        wish = PersonReasonIn(data=request.data)
        wish.is_valid(raise_exception=True)
        return str(wish.validated_data["reason"])


class Deactivate(_Change):
    """Ending someone's access."""

    @extend_schema(operation_id="people_deactivate", request=PersonReasonIn, responses=PersonOut)
    def post(self, request: Request, number: int) -> Response:
        """End someone's sessions and tokens; they sign in no more."""
        accounts.deactivate(
            by=person(request), person=person_or_404(number), reason=self.reason(request)
        )
        return self.answer(number)


class Activate(_Change):
    """Giving access back."""

    @extend_schema(operation_id="people_activate", request=PersonReasonIn, responses=PersonOut)
    def post(self, request: Request, number: int) -> Response:
        """Let a deactivated person sign in again, with a new password."""
        accounts.activate(
            by=person(request), person=person_or_404(number), reason=self.reason(request)
        )
        return self.answer(number)


class GiveRole(_Change):
    """Giving a role."""

    @extend_schema(operation_id="people_give_role", request=RoleIn, responses=PersonOut)
    def post(self, request: Request, number: int) -> Response:
        """Give a person a role."""
        wish = RoleIn(data=request.data)
        wish.is_valid(raise_exception=True)
        grants.give(by=person(request), person=person_or_404(number), **wish.validated_data)
        return self.answer(number)


class TakeRole(_Change):
    """Taking a role."""

    @extend_schema(operation_id="people_take_role", request=RoleIn, responses=PersonOut)
    def post(self, request: Request, number: int) -> Response:
        """Take a role from a person."""
        wish = RoleIn(data=request.data)
        wish.is_valid(raise_exception=True)
        grants.take(by=person(request), person=person_or_404(number), **wish.validated_data)
        return self.answer(number)
