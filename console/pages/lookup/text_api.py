"""Looking up any text over REST; it is read as in the search box.

The text is in the body, because it may be a credential.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text
from console.frame import app_looks
from console.frame.permissions import READ, SEE_DIGEST
from console.pages.lookup import pasted_text
from console.pages.receipts.pasted_receipt import PastedReceipt
from decider.contracts.ids import format_decision_id
from decisions.models import Decision
from decisions.search import lookup
from decisions.search.lookup import TOKEN, QueryReading

# Most decisions of a request id whose apps are returned. Chosen: a retried request has a handful,
# and an id that a client sends with every request must not fill the answer.
MOST = 50
KINDS = ("decision", "request", "app", "apps", "tenant", "token", "receipt", "nothing")


class LookupIn(serializers.Serializer[object]):
    """A pasted text."""

    text = Text(
        max_length=pasted_text.LONGEST,
        help_text=(
            "Decision or request id, id or name of an app or tenant, token or receipt. A token is"
            " hashed and not kept."
        ),
    )


class LookupOut(serializers.Serializer[object]):
    """How a text was understood. A credential or a receipt is never repeated."""

    read_as = serializers.ChoiceField(KINDS)
    label = serializers.CharField(  # type: ignore[assignment]  # a REST field called label
        allow_blank=True,
        help_text="How the text was understood; empty for a receipt and for nothing.",
    )
    hint = serializers.CharField(
        allow_blank=True, help_text="For nothing: what the text looks like, and what is wrong."
    )
    apps = serializers.ListField(
        child=serializers.CharField(),
        help_text="Ids of the apps that the text is about, as far as they are known.",
    )
    decision = serializers.CharField(
        allow_null=True, help_text="Id of the decision, if the text is about a single one."
    )
    stored = serializers.BooleanField(help_text="Whether that decision is stored.")
    q = serializers.CharField(
        allow_blank=True,
        help_text="Value for the list's parameter `q` that finds the same; empty for nothing.",
    )


class Lookup(APIView):
    """Looking up any text."""

    permission = READ

    @extend_schema(operation_id="lookup_read", request=LookupIn, responses=LookupOut)
    def post(self, request: Request) -> Response:
        """Read a text as the search box does: as receipt, credential, decision, app, request, then
        as a name.

        A credential is looked up by its digest, for callers who may see digests.
        """
        given = LookupIn(data=request.data)
        given.is_valid(raise_exception=True)
        found = pasted_text.read_pasted(
            given.validated_data["text"], with_token=request.user.has_perm(SEE_DIGEST)
        )
        told = (
            _of_receipt(found.receipt)
            if found.receipt
            else _of_reading(found.reading, request.user.has_perm(SEE_DIGEST))
        )
        app_looks.note_apps(request, told.apps, "what a lookup over the API found")
        return Response(LookupOut(told).data)


def _of_receipt(receipt: PastedReceipt) -> TextTold:
    """Return what a receipt is about: its decision and its app."""
    decision = lookup.find(receipt.decision) if receipt.decision else None
    apps = [receipt.app] if receipt.app else []
    return _told(
        "receipt",
        apps=apps,
        decision=receipt.decision,
        stored=decision is not None,
        q=_named(receipt.decision),
    )


def _of_reading(reading: QueryReading, with_token: bool) -> TextTold:
    """Return what a reading is about. `with_token` says whether the caller may see digests."""
    if reading.kind == "nothing":
        return _told("nothing", hint=reading.hint)
    if reading.kind == "token" and not with_token:
        return _told("nothing", hint=pasted_text.NOT_YOURS)
    if reading.kind == "request":
        rows = list(
            Decision.objects.filter(request_id=reading.text)
            .order_by("-id")
            .only("id", "at", "app")[:MOST]
        )
        one = rows[0].id if len(rows) == 1 else None
        return _told(
            "request",
            reading.label,
            apps=_apps(rows),
            decision=one,
            stored=one is not None,
            q=reading.text,
        )
    if reading.decision:
        row = lookup.find(reading.decision)
        apps, q = _apps([row] if row else []), _named(reading.decision)
        return _told(
            "decision",
            reading.label,
            apps=apps,
            decision=reading.decision,
            stored=row is not None,
            q=q,
        )
    q = f"{TOKEN}{reading.digest}" if reading.digest else reading.text
    return _told(reading.kind, reading.label, apps=reading.apps, q=q)


@dataclass(frozen=True, slots=True)
class TextTold:
    """How a text was understood, with the fields of `LookupOut`."""

    read_as: str
    label: str
    hint: str
    apps: tuple[str, ...]
    decision: str | None
    stored: bool
    q: str


def _told(
    kind: str,
    label: str = "",
    *,
    hint: str = "",
    apps: Sequence[str] = (),
    decision: uuid.UUID | None = None,
    stored: bool = False,
    q: str = "",
) -> TextTold:
    return TextTold(kind, label, hint, tuple(apps), _named(decision) or None, stored, q)


def _apps(rows: list[Decision]) -> list[str]:
    return list(dict.fromkeys(row.app for row in rows))


def _named(decision: uuid.UUID | None) -> str:
    return format_decision_id(decision.bytes) if decision else ""
