"""The state of the console over REST: ingest, deciders, explanations and disputes."""

from __future__ import annotations

import time

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.frame.permissions import READ
from control.models import AnchorReport
from decisions.outcomes import disputes
from explain.shap import backlog
from monitoring import fleet


class ExplainingOut(serializers.Serializer[object]):
    """How explaining keeps up with the sample."""

    waiting = serializers.IntegerField(help_text="Decisions that wait for their explanation.")
    oldest_s = serializers.FloatField(help_text="Seconds that the oldest of them has waited.")
    per_s = serializers.FloatField(help_text="Explanations a second over the last minute.")
    dropped = serializers.IntegerField(
        help_text="Decisions of the last minute that were left out, as there was more to explain"
        " than time. Each is explained when it is opened."
    )
    dropped_refusals = serializers.IntegerField(help_text="The refusals among them.")


class StatusOut(serializers.Serializer[object]):
    """The state of the console, as the home page shows it."""

    ingest_lag_s = serializers.FloatField(
        allow_null=True, help_text="Null when Valkey does not answer or nothing was stored yet."
    )
    deciders = serializers.IntegerField(
        allow_null=True, help_text="Deciders that report; null when Valkey does not answer."
    )
    explanations = ExplainingOut()
    disputes_open = serializers.IntegerField()
    audit_anchored_s = serializers.FloatField(
        allow_null=True,
        help_text="Seconds since the end of the audit log was last known to be anchored; null"
        " before the first time.",
    )
    audit_anchors_waiting = serializers.IntegerField(
        help_text="Anchors that wait to be sent to SLUICE_AUDIT_ANCHOR_URL."
    )
    audit_anchoring_failing_s = serializers.FloatField(
        help_text="Seconds since anchoring the audit log began to fail; 0 while all goes well."
    )


class Status(APIView):
    """The console's own state."""

    permission = READ

    @extend_schema(operation_id="status_retrieve", responses=StatusOut)
    def get(self, request: Request) -> Response:
        """Return ingest lag, reporting deciders, the backlogs of explanations and disputes, and how
        anchoring the audit log goes.
        """
        try:
            report = fleet.read_fleet(time.time())
        # the rest of the answer comes from PostgreSQL and is as useful without Valkey
        except fleet.Unreachable:
            report = None
        return Response(
            StatusOut(
                {
                    "ingest_lag_s": report.ingest_lag_s if report else None,
                    "deciders": len(report.nodes) if report else None,
                    "explanations": backlog.measure_progress(),
                    "disputes_open": disputes.waiting().open,
                    **_anchoring(time.time()),
                }
            ).data
        )


def _anchoring(at: float) -> dict[str, float | None]:
    report = AnchorReport.objects.first() or AnchorReport()
    anchored_at, failing = report.anchored_at, report.failing_since
    return {
        "audit_anchored_s": at - anchored_at.timestamp() if anchored_at else None,
        "audit_anchors_waiting": report.waiting,
        "audit_anchoring_failing_s": max(0.0, at - failing.timestamp()) if failing else 0.0,
    }
