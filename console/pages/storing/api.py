"""Storing over REST: the account of sampled decisions, and those that could not be stored."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.api.paging import Paging, next_field
from console.frame.people import person
from console.pages.storing.page import storing_page
from control.audit import chain
from control.audit.actors import Actor
from control.disk import DiskUse, Room
from decisions.models import BuriedEvent
from decisions.store import buried
from decisions.store.ledger import NodeAccount

# What a column of numbers in the database holds.
_MOST_NUMBER = 2**63 - 1


class NodeAccountOut(serializers.Serializer[NodeAccount]):
    """What became of the events that a decider sampled: sampled = stored + buried + discarded +
    withheld + lost + dropped + on_their_way.
    """

    node = serializers.CharField()
    sampled = serializers.IntegerField()
    stored = serializers.IntegerField()
    buried = serializers.IntegerField(help_text="Those that cannot be stored and wait.")
    discarded = serializers.IntegerField(help_text="Buried ones that were discarded.")
    withheld = serializers.IntegerField(
        help_text="Not stored for lack of disk; counts of decisions have them."
    )
    lost = serializers.IntegerField(help_text="Gone from Valkey before they were stored.")
    dropped = serializers.IntegerField(help_text="Dropped by the decider, its buffer full.")
    on_their_way = serializers.IntegerField(help_text="Sent, and neither stored nor lost so far.")


class DiskOut(serializers.Serializer[DiskUse]):
    """The use of the disk, in bytes."""

    budget = serializers.IntegerField()
    used = serializers.IntegerField()
    left = serializers.IntegerField(help_text="By the budget and by the disk itself.")
    room = serializers.ChoiceField(
        [room.name.lower() for room in Room],
        help_text="What has stopped for lack of disk, each with all before it.",
    )

    def to_representation(self, instance: DiskUse) -> dict[str, object]:
        """Return the use with the room's name."""
        shown = {name: getattr(instance, name) for name in ("budget", "used", "left")}
        return {**shown, "room": instance.room.name.lower()}


class AccountOut(serializers.Serializer[object]):
    """What became of the sampled decisions of the runs that are still listed, and of the disk."""

    deciders = NodeAccountOut(many=True, source="accounts")
    total = NodeAccountOut()
    waiting = serializers.IntegerField(
        source="count", help_text="Buried events that nobody has replayed or discarded yet."
    )
    disk = DiskOut(source="use")


class Account(APIView):
    """The account of sampled decisions."""

    permission = buried.SEE

    @extend_schema(operation_id="storing_retrieve", responses=AccountOut)
    def get(self, request: Request) -> Response:
        """Return how many decisions each decider sampled, and what became of them."""
        return Response(AccountOut(storing_page()).data)


class BuriedOut(serializers.ModelSerializer[BuriedEvent]):
    """An event, or a whole batch that cannot be read, that could not be stored."""

    number = serializers.IntegerField(source="pk")
    is_cut = serializers.BooleanField(
        help_text="Whether it was too large to be kept whole, so that it cannot be replayed."
    )

    class Meta:
        model = BuriedEvent
        fields = [
            "number",
            "whole",
            "node",
            "batch",
            "entry",
            "size",
            "is_cut",
            "sqlstate",
            "reason",
            "buried_at",
        ]


class BuriedPage(serializers.Serializer[object]):
    """A page of buried events."""

    results = BuriedOut(many=True)
    next = next_field("before")


PAGING: Paging[BuriedEvent] = Paging(
    BuriedPage,
    place=lambda row: str(row.pk),
    cursor="before",
    description="Show what is older than the event of this number: a page's `next`.",
    schema={"type": "string", "pattern": "^([0-9]{1,18})?$"},
)


class Buried(APIView):
    """Events that could not be stored."""

    permission = buried.SEE

    @extend_schema(
        operation_id="buried_list", responses=BuriedPage, parameters=[*PAGING.parameters]
    )
    def get(self, request: Request) -> Response:
        """List the events that wait, latest first, each with the reason why it is not stored."""
        some, more = PAGING.cut(request, _older(PAGING.cursor_of(request)))
        return PAGING.response(some, more=more)


def _older(place: str) -> QuerySet[BuriedEvent]:
    """Return what follows a place. Raise ValidationError for a text that is none."""
    if not place:
        return buried.latest()
    if len(place) > 18 or not (place.isascii() and place.isdigit()):
        raise ValidationError({"before": "This is not a position. Send the `next` of a page."})
    return buried.latest(int(place))


class SettleIn(serializers.Serializer[object]):
    """Which buried events, and why."""

    numbers = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=_MOST_NUMBER),
        min_length=1,
        max_length=buried.MOST_AT_ONCE,
    )
    reason = Text(max_length=chain.REASON_MAX, help_text="Kept in the audit log.")


class ReplayOut(serializers.Serializer[object]):
    """What a replay did."""

    stored = serializers.IntegerField(help_text="Events that are stored now.")
    kept = serializers.IntegerField(help_text="Events that still cannot be stored.")


class DiscardOut(serializers.Serializer[object]):
    """What a discard did."""

    discarded = serializers.IntegerField()


class Replay(APIView):
    """Storing buried events after all."""

    permission = buried.PERMISSION

    @extend_schema(operation_id="buried_replay", request=SettleIn, responses=ReplayOut)
    def post(self, request: Request) -> Response:
        """Store buried events, as far as they can be stored by now. A conflict (409) says that
        none of them can, or that one is not there any more.
        """
        numbers, reason = _settled(request)
        done = buried.replay(numbers, by=Actor.of(person(request)), reason=reason)
        return Response(ReplayOut(done).data)


class Discard(APIView):
    """Giving buried events up."""

    permission = buried.PERMISSION

    @extend_schema(operation_id="buried_discard", request=SettleIn, responses=DiscardOut)
    def post(self, request: Request) -> Response:
        """Delete buried events for good."""
        numbers, reason = _settled(request)
        count = buried.discard(numbers, by=Actor.of(person(request)), reason=reason)
        return Response(DiscardOut({"discarded": count}).data)


def _settled(request: Request) -> tuple[list[int], str]:
    """Return what the body asks for. Raise ValidationError."""
    given = SettleIn(data=request.data)
    given.is_valid(raise_exception=True)
    return given.validated_data["numbers"], given.validated_data["reason"]
