"""Kill switches over REST: what is engaged, and flipping one."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.frame.people import person
from console.frame.sign_in import reauthentication
from console.pages.approvals.api import ApprovalOut
from control.audit import chain
from control.audit.actors import Actor
from control.config import requested
from control.config.gate import NeedsSecondPerson
from control.switches import switches

_VIEW = "control.view_switchflip"


class SwitchOut(serializers.Serializer[object]):
    """A switch as it stands."""

    name = serializers.CharField()
    engaged = serializers.BooleanField()
    by = serializers.CharField(allow_null=True, help_text="Who engaged it; null when it is clear.")
    reason = serializers.CharField(allow_null=True)
    engaged_at = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(
        allow_null=True, help_text="When it ends by itself; null: until someone clears it."
    )


class EndIn(serializers.Serializer[object]):
    """Why a switch is engaged or extended, and until when."""

    reason = Text(max_length=chain.REASON_MAX, help_text="What is wrong; kept in the audit log.")
    until = serializers.DateTimeField(
        allow_null=True, help_text="When it ends by itself; null: until someone clears it."
    )


class ClearIn(serializers.Serializer[object]):
    """Why a switch is cleared."""

    reason = Text(max_length=chain.REASON_MAX, help_text="Why; kept in the audit log.")


class Switches(APIView):
    """All kill switches."""

    permission = _VIEW

    @extend_schema(operation_id="switches_list", responses=SwitchOut(many=True))
    def get(self, request: Request) -> Response:
        """List the kill switches, widest first."""
        return Response([_shown(name) for name in switches.CATALOGUE])


class Engage(APIView):
    """Engaging a switch."""

    permission = switches.PERMISSION

    @extend_schema(operation_id="switches_engage", request=EndIn, responses=SwitchOut)
    def post(self, request: Request, name: str) -> Response:
        """Engage a kill switch, at once."""
        return _flip(request, "engage", name, EndIn(data=request.data))


class Extend(APIView):
    """Giving a switch another end."""

    permission = switches.PERMISSION

    @extend_schema(
        operation_id="switches_extend",
        request=EndIn,
        responses={200: SwitchOut, 202: ApprovalOut},
    )
    def post(self, request: Request, name: str) -> Response:
        """Give an engaged kill switch another end. 202: it needs a second person, and is asked
        for.
        """
        return _flip(request, "extend", name, EndIn(data=request.data))


class Clear(APIView):
    """Clearing a switch."""

    permission = switches.PERMISSION

    @extend_schema(
        operation_id="switches_clear",
        request=ClearIn,
        responses={200: SwitchOut, 202: ApprovalOut},
    )
    def post(self, request: Request, name: str) -> Response:
        """Clear a kill switch. 202: it needs a second person, and is asked for. A session must have
        been authenticated in the last minutes.
        """
        reauthentication.require_recent(request)
        return _flip(request, "clear", name, ClearIn(data=request.data))


def _flip(
    request: Request,
    verb: switches.Verb,
    name: str,
    given: serializers.Serializer[object],
) -> Response:
    if name not in switches.CATALOGUE:
        raise NotFound(f"There is no switch “{name}”.")
    given.is_valid(raise_exception=True)
    user, reason = person(request), given.validated_data["reason"]
    until = given.validated_data.get("until")
    try:
        switches.flip(verb, name, by=Actor.of(user), reason=reason, until=until)
    except NeedsSecondPerson as held:
        made = requested.ask(held, by=user, reason=reason)
        return Response(ApprovalOut(made).data, status=status.HTTP_202_ACCEPTED)
    return Response(_shown(name))


def _shown(name: str) -> dict[str, object]:
    """Return a switch as it stands, as REST shows it."""
    flip = switches.engaged().get(name)
    shown = {
        "name": name,
        "engaged": flip is not None,
        **{field: getattr(flip, field, None) for field in ("by", "reason", "engaged_at", "until")},
    }
    return dict(SwitchOut(shown).data)
