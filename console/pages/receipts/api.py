"""Receipts over REST."""

from __future__ import annotations

import uuid

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import Text, WordField
from console.frame import app_looks
from console.frame.permissions import READ
from console.pages.decision.api import CustomerText
from control.errors import KeysError
from decider.contracts.ids import format_decision_id
from decider.contracts.vocabulary import Action, Reason, Stage
from decider.refusal.receipt import ReceiptError
from decisions.models import utc
from decisions.search import lookup
from decisions.search.receipts import Opened, open_receipt
from explain.text import customer, receipt


class ReceiptIn(serializers.Serializer[object]):
    """A receipt, as a refusal's response carried it."""

    receipt = Text(max_length=1000)


class ReceiptOut(serializers.Serializer[object]):
    """What a receipt says. It holds no score. `stored` tells whether the decision's record is
    stored as well.
    """

    decision = serializers.CharField()
    app = serializers.CharField(
        allow_blank=True,
        help_text="Id of the app that its pseudonym stands for; empty when no known app has it.",
    )
    pseudonym = serializers.CharField(
        help_text="What stands for the app in the receipt: 16 hexadecimal digits."
    )
    at = serializers.DateTimeField()
    action = WordField(Action)
    stage = WordField(Stage)
    reason = WordField(Reason)
    why = serializers.CharField(help_text="The reason in one clause.")
    codes = serializers.ListField(
        child=serializers.CharField(),
        help_text="Reason codes of what spoke against the request, strongest first.",
    )
    codes_of_earlier = serializers.BooleanField(
        help_text="Whether the codes are those of a refusal of the same app for the same cause, at"
        " most ten seconds earlier, as there was no time to explain this one."
    )
    retry_after = serializers.IntegerField(help_text="Seconds; 0 when a retry would not help.")
    config_version = serializers.IntegerField()
    model = serializers.CharField(allow_blank=True, help_text="Beginning of the model's digest.")
    stored = serializers.BooleanField()
    customer_text = CustomerText()


class Receipts(APIView):
    """Opening receipts."""

    permission = READ

    @extend_schema(operation_id="receipts_open", request=ReceiptIn, responses=ReceiptOut)
    def post(self, request: Request) -> Response:
        """Open a receipt, also of a decision that was not stored. Answer 400 for a receipt that was
        changed or comes from another installation.
        """
        given = ReceiptIn(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            found = open_receipt(given.validated_data["receipt"])
        except (ReceiptError, KeysError) as error:
            raise ValidationError({"receipt": str(error)}) from error
        if found.app:
            app_looks.note(request, found.app, "a receipt over the API")
        return Response(ReceiptOut(_told(found)).data)


def _told(found: Opened) -> dict[str, object]:
    """Return the values of `ReceiptOut`."""
    r = found.receipt
    return {
        "app": found.app,
        "pseudonym": r.app,
        "decision": format_decision_id(r.decision),
        "at": utc(r.at),
        "action": r.action,
        "stage": r.stage,
        "reason": r.reason,
        "why": receipt.write_cause(r),
        "codes": r.codes,
        "codes_of_earlier": r.earlier,
        "retry_after": r.retry_after,
        "config_version": r.config_version,
        "model": r.model,
        "stored": lookup.find(uuid.UUID(bytes=r.decision)) is not None,
        "customer_text": customer.write_texts(customer.build_receipt_case(r)),
    }
