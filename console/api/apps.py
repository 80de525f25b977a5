"""Apps over REST: who it is, what was decided about it in the last day, the policy that holds for it, what is to be expected."""

from __future__ import annotations

import time

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console import app_view
from control import effective
from decider.vocabulary import Tier
from decisions import app_page, configs, looks
from decisions.app_page import AppPage
from explain import forecast

READ = "decisions.view_decision"


class AppOut(serializers.Serializer):
    """An app and the last day of decisions about it; counts are estimated from the sample."""

    id = serializers.CharField()
    name = serializers.CharField(allow_blank=True, help_text="Empty for an app nobody registered.")
    tenant = serializers.CharField(allow_blank=True)
    tier = serializers.CharField(allow_blank=True)
    kept = serializers.IntegerField(help_text="Stored decisions of the last day.")
    count = serializers.FloatField(help_text="Decisions of the last day, estimated.")
    refused = serializers.FloatField()
    finding = serializers.CharField()


class PolicyLine(serializers.Serializer):
    """One line of the policy that holds for an app now."""

    name = serializers.CharField()
    value = serializers.CharField()
    source = serializers.CharField(help_text="What sets it.")
    kind = serializers.CharField()
    config_version = serializers.IntegerField(source="version.number", allow_null=True, default=None)


class ForecastOut(serializers.Serializer):
    """What is to be expected within the hour, and how often that was right."""

    state = serializers.ChoiceField(["soon", "clear", "refused", "unknown"])
    sentence = serializers.CharField()
    because = serializers.CharField(allow_blank=True)
    minutes = serializers.FloatField(allow_null=True)
    limit = serializers.CharField(allow_blank=True)
    right = serializers.IntegerField(help_text="Forecasts of the last 7 days that were right ...")
    settled = serializers.IntegerField(help_text="... of so many that came due.")


class AppDetail(APIView):
    """One app."""

    permission = READ

    @extend_schema(operation_id="apps_retrieve", responses=AppOut)
    def get(self, request: Request, app: str) -> Response:
        """Who an app is, and the last day of decisions about it. An app nobody registered is known by its decisions."""
        found = _app(request, app)
        known = found.known
        return Response(AppOut({
            "id": found.id, "name": known.name if known else "", "tenant": known.tenant if known else "",
            "tier": Tier(known.tier).word if known else "", "kept": found.kept, "count": found.count, "refused": found.refused,
            "finding": found.finding,
        }).data)  # fmt: skip


class AppPolicy(APIView):
    """The policy of one app."""

    permission = READ

    @extend_schema(operation_id="apps_policy", responses=PolicyLine(many=True))
    def get(self, request: Request, app: str) -> Response:
        """The policy that holds for it now, line by line: each value, what sets it, and the config version that set it."""
        about, config = app_view.subject(_app(request, app)), configs.newest()
        found = effective.lines(config, about, time.time()) if config else []
        return Response(PolicyLine(found, many=True).data)


class AppForecast(APIView):
    """What is to be expected of one app."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="apps_forecast", responses=ForecastOut)
    def get(self, request: Request, app: str) -> Response:
        """Whether it is refused within the hour at its present pace, with the forecast's own record."""
        found, now = _app(request, app), time.time()
        said, record = forecast.outlook(found.id, now), forecast.record(found.id, now)
        return Response(ForecastOut({
            "state": said.state, "sentence": said.sentence, "because": said.because, "minutes": said.minutes, "limit": said.limit,
            "right": record.right, "settled": record.settled,
        }).data)  # fmt: skip


def _app(request: Request, app: str) -> AppPage:
    """Raises NotFound for what is neither registered nor in any stored decision of the last day."""
    if len(app) > 128 or "\x00" in app:
        raise NotFound("An app id has at most 128 characters, and no NUL.")
    found = app_page.compose(app, time.time())
    if found.known is None and not found.kept:
        raise NotFound("No app of this id is registered, and none was seen in the last day.")
    looks.note(request, app, "the app over the API")
    return found
