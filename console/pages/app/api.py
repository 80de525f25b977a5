"""Apps over REST: profile, last day, policy, forecast, buckets, notes, and who looked at them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime

from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import EstimateOut, Text
from console.frame import app_looks
from console.frame.people import person
from console.frame.permissions import READ
from console.pages.app import last_day, page
from console.pages.app.last_day import AppPage, Happening, Labels
from control.audit import app_looks as control_looks
from control.audit import chain
from control.audit.actors import Actor
from control.config import documents
from control.deciders import buckets
from control.deciders.buckets import Node
from control.directory import notes
from control.policies import effective
from decider.contracts.vocabulary import Tier
from decider.http import check
from decisions.models import utc
from decisions.search.app_day import Hour
from explain.forecast import outlook, track_record
from explain.models import STATES


class EndpointOut(serializers.Serializer[object]):
    """An endpoint the app asked for in the last day."""

    name = serializers.CharField()
    service = serializers.CharField()
    count = EstimateOut(source="number")
    refused = EstimateOut(help_text="Requests to it that were not admitted.")


class ProfileOut(serializers.Serializer[object]):
    """The profile of a registered app."""

    registered_at = serializers.DateTimeField(source="created_at")
    verified = serializers.BooleanField(help_text="Whether its owner is verified.")
    cohort_share = serializers.FloatField(
        source="cohort_prior", help_text="Share of abusive apps among those like it, 0 to 1."
    )
    abuse = serializers.IntegerField(
        source="abuse_history", help_text="Confirmed cases of abuse so far."
    )
    chargebacks = serializers.IntegerField(source="chargeback_history")
    false_throttles = serializers.IntegerField(
        source="false_throttle_history", help_text="Refusals that were found wrong."
    )


class LabelsOut(serializers.Serializer[object]):
    """What became of its requests, as reported for the last 30 days."""

    matured = serializers.SerializerMethodField(help_text="Matured outcomes by kind.")
    settling = serializers.IntegerField(help_text="Reported outcomes that have not matured yet.")
    open_disputes = serializers.IntegerField(source="disputed")

    @extend_schema_field(serializers.DictField(child=serializers.IntegerField()))
    def get_matured(self, labels: Labels) -> dict[str, int]:
        return {kind.value: count for kind, count in labels.counts}


class StoryOut(serializers.Serializer[object]):
    """A line of the day's story: a burst, or a change that may have to do with one."""

    at = serializers.SerializerMethodField()
    text = serializers.CharField()
    burst = serializers.BooleanField()
    own = serializers.BooleanField(help_text="Whether it is about this app alone.")

    def get_at(self, line: Happening) -> datetime:
        return utc(line.at)


class WorstHourOut(serializers.Serializer[object]):
    """The hour of the last day in which ML is expected to have refused most honest requests."""

    at = serializers.SerializerMethodField(help_text="Start of the hour; null if there is none.")
    false_throttles = serializers.FloatField(
        source="wrong", help_text="Expected number: each refusal by ML counts 1 - its risk."
    )
    false_throttles_low = serializers.FloatField(
        source="low", help_text="Lower end of the 95% interval that the sampling leaves."
    )
    false_throttles_high = serializers.FloatField(source="high")
    bursts = EstimateOut(
        help_text="Refused in that hour because the burst was used up, beside those of ML."
    )

    def get_at(self, hour: Hour) -> datetime | None:
        return utc(hour.at) if hour.at else None


class AppOut(serializers.Serializer[object]):
    """An app and the last day of decisions about it; counts are estimated from the sample."""

    id = serializers.CharField()
    name = serializers.CharField(allow_blank=True, help_text="Empty for an app nobody registered.")
    tenant = serializers.CharField(allow_blank=True)
    tier = serializers.CharField(allow_blank=True)
    kept = serializers.IntegerField(help_text="Stored decisions of the last day.")
    count = EstimateOut(help_text="Decisions of the last day.")
    refused = EstimateOut(help_text="Decisions of the last day that were not admitted.")
    recent = EstimateOut(help_text="Decisions of the last 10 minutes.")
    recent_refused = EstimateOut(
        help_text="Decisions of the last 10 minutes that were not admitted."
    )
    actions = serializers.DictField(child=EstimateOut(), help_text="Decisions by action.")
    endpoints = EndpointOut(many=True, help_text="The busiest endpoints.")
    credentials = serializers.IntegerField(
        help_text="Different credentials in stored decisions of the day."
    )
    overrides = serializers.ListField(
        child=serializers.CharField(), help_text="Overrides in force now, in words."
    )
    finding = serializers.CharField()
    profile = ProfileOut(allow_null=True, help_text="Null for an app nobody registered.")
    regions = serializers.ListField(
        child=serializers.CharField(), help_text="Regions it sent requests to in the last day."
    )
    outcomes = LabelsOut()
    worst_hour = WorstHourOut()
    story = StoryOut(
        many=True, help_text="Bursts of the day and what changed around them, in order of time."
    )


class PolicyLine(serializers.Serializer[object]):
    """One line of the policy that holds for an app now."""

    name = serializers.CharField()
    value = serializers.CharField()
    source = serializers.CharField(help_text="What sets it.")  # type: ignore[assignment]  # a REST field called source
    kind = serializers.CharField()
    config_version = serializers.IntegerField(
        source="version.number", allow_null=True, default=None
    )


class ForecastKindOut(serializers.Serializer[object]):
    """How often forecasts of one kind were right in the last 7 days. One counts for each app and
    hour.
    """

    right = serializers.IntegerField(help_text="How many forecasts were right.")
    settled = serializers.IntegerField(help_text="How many forecasts came due.")
    unsettled = serializers.IntegerField(
        help_text="How many more came due, but too few refusals were kept to tell."
    )
    slowed = serializers.IntegerField(
        help_text="For soon: how many more came due, but the app had slowed down before."
    )
    low = serializers.SerializerMethodField(
        help_text="Lower end of the share's 95% interval (Wilson); null if few are settled."
    )
    high = serializers.SerializerMethodField(help_text="Its upper end.")
    own = serializers.BooleanField(
        help_text="Whether these are forecasts of this app; if it has few, they are of all apps."
    )
    error_minutes = serializers.FloatField(
        allow_null=True,
        help_text=(
            "For soon: median error of the time, for apps refused before the forecast came due."
        ),
    )

    def get_low(self, kind: track_record.StateRecord) -> float | None:
        return kind.interval[0] if kind.interval else None

    def get_high(self, kind: track_record.StateRecord) -> float | None:
        return kind.interval[1] if kind.interval else None


class ForecastOut(serializers.Serializer[object]):
    """The forecast for the next hour, and how often forecasts were right."""

    state = serializers.ChoiceField([*STATES, "refused", "unknown"])
    sentence = serializers.CharField()
    because = serializers.CharField(allow_blank=True)
    minutes = serializers.FloatField(allow_null=True)
    limit = serializers.CharField(allow_blank=True)
    soon = ForecastKindOut(
        help_text="How far to trust soon: right if a refusal was kept at about the time forecast."
    )
    some = ForecastKindOut(
        help_text="How far to trust some: right if any refusal was kept within the hour."
    )
    clear = ForecastKindOut(
        help_text="How far to trust clear: right if no refusal was kept within the hour."
    )


class AppDetail(APIView):
    """One app."""

    permission = READ

    @extend_schema(operation_id="apps_retrieve", responses=AppOut)
    def get(self, request: Request, app: str) -> Response:
        """Return who an app is, and the last day of decisions about it.

        An app that nobody registered is known by its decisions.
        """
        found, config = _app(request, app, page.config_changes()), documents.newest()
        known, about = found.known, page.subject(found)
        mine = effective.overrides(config, found.id, about.tenant, time.time()) if config else []
        return Response(
            AppOut(
                {
                    "id": found.id,
                    "name": known.name if known else "",
                    "tenant": known.tenant if known else "",
                    "tier": Tier(known.tier).word if known else "",
                    "kept": found.kept,
                    "count": found.number,
                    "refused": found.between,
                    "recent": found.recent,
                    "recent_refused": found.recent_refused,
                    "actions": {action.word: number for action, number, _ in found.mix},
                    "endpoints": found.endpoints,
                    "credentials": found.tokens,
                    "overrides": [effective.effect(o) for o in mine],
                    "finding": found.finding,
                    "profile": known,
                    "regions": found.regions,
                    "outcomes": found.labels,
                    "worst_hour": found.worst,
                    "story": found.story,
                }
            ).data
        )


class AppPolicy(APIView):
    """The policy of one app."""

    permission = READ

    @extend_schema(operation_id="apps_policy", responses=PolicyLine(many=True))
    def get(self, request: Request, app: str) -> Response:
        """Return the policy that holds for the app now, line by line: each value, what sets it, and
        the config version that set it.
        """
        about, config = page.subject(_app(request, app)), documents.newest()
        found = effective.lines(config, about, time.time()) if config else []
        return Response(PolicyLine(found, many=True).data)


class AppForecast(APIView):
    """The forecast for one app."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="apps_forecast", responses=ForecastOut)
    def get(self, request: Request, app: str) -> Response:
        """Return whether the app will be refused within the hour at its present pace, and how often
        such forecasts were right.
        """
        found, now = _app(request, app), time.time()
        said, record = (
            outlook.forecast_app(found.id, now),
            track_record.summarise_record(found.id, now),
        )
        return Response(
            ForecastOut(
                {
                    "state": said.state,
                    "sentence": said.sentence,
                    "because": said.because,
                    "minutes": said.minutes,
                    "limit": said.limit,
                    "soon": record.soon,
                    "some": record.some,
                    "clear": record.clear,
                }
            ).data
        )


class SpendingOut(serializers.Serializer[object]):
    """An app's error budget in the last hour or day."""

    window_s = serializers.FloatField(help_text="3,600 or 86,400.")
    requests = serializers.FloatField()
    refusals = serializers.FloatField(help_text="Refusals by ML that spent some of the budget.")
    spent = serializers.FloatField(
        help_text="Expected false throttles: each of these refusals counts 1 - its risk."
    )
    left = serializers.FloatField(
        help_text="Expected false throttles that the window still allows, whatever comes next."
    )


class BucketsOut(serializers.Serializer[object]):
    """An app's buckets on one decider."""

    node = serializers.CharField(source="name")
    tracked = serializers.SerializerMethodField(
        help_text="Whether the decider tracks the app; if not, the figures are null."
    )
    tokens = serializers.FloatField(
        source="view.tokens", default=None, allow_null=True, help_text="In the burst bucket."
    )
    burst = serializers.FloatField(source="view.burst", default=None, allow_null=True)
    rate = serializers.FloatField(
        source="view.rate", default=None, allow_null=True, help_text="Tokens refilled a second."
    )
    quota_used = serializers.FloatField(source="view.quota_used", default=None, allow_null=True)
    errors_left = serializers.FloatField(
        source="view.errors_left",
        default=None,
        allow_null=True,
        help_text="False throttles it may still suffer; 0 where its tier has no error budget.",
    )
    error_budget = serializers.FloatField(
        source="view.error_budget",
        default=None,
        allow_null=True,
        help_text="Share of its requests that ML may refuse wrongly; 1 is no limit.",
    )
    spending = SpendingOut(
        source="view.spending",
        many=True,
        default=(),
        help_text="The last hour and the last day; empty where its tier has no error budget.",
    )
    error = serializers.SerializerMethodField(
        help_text="What the decider could not do, or that it did not answer."
    )

    def get_tracked(self, node: Node) -> bool:
        return node.view is not None

    def get_error(self, node: Node) -> str:
        return "did not answer in time" if node.answer is None else node.answer.error


class AppBuckets(APIView):
    """An app's buckets."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="apps_buckets", responses=BucketsOut(many=True))
    def get(self, request: Request, app: str) -> Response:
        """Return the app's buckets on every decider as they are now. Looking consumes nothing."""
        found = buckets.peek(_named(app))
        app_looks.note_known(request, app, "the buckets over the API", shown=bool(found.tracking))
        return Response(BucketsOut(found.nodes, many=True).data)


class ReasonIn(serializers.Serializer[object]):
    """The reason for an action."""

    reason = Text(max_length=chain.REASON_MAX)


class BucketReset(APIView):
    """Filling one bucket of an app."""

    permission = buckets.PERMISSION

    @extend_schema(
        operation_id="apps_reset_bucket",
        request=ReasonIn,
        responses=BucketsOut(many=True),
        parameters=[
            OpenApiParameter("bucket", str, OpenApiParameter.PATH, enum=list(buckets.KINDS))
        ],
    )
    def post(self, request: Request, app: str, bucket: str) -> Response:
        """Have every decider that tracks the app fill the bucket, once. The audit log records the
        request, and then what each decider answered.
        """
        given = ReasonIn(data=request.data)
        given.is_valid(raise_exception=True)
        if bucket not in buckets.KINDS:
            raise NotFound(f"There is no such bucket. The buckets are {', '.join(buckets.KINDS)}.")
        done = buckets.reset(
            bucket,
            app=_named(app),
            by=Actor.of(person(request)),
            reason=given.validated_data["reason"],
        )
        app_looks.note_known(request, app, "the buckets over the API", shown=bool(done.tracking))
        return Response(BucketsOut(done.nodes, many=True).data)


class NoteIn(serializers.Serializer[object]):
    """A note for colleagues."""

    text = Text(max_length=notes.LONGEST)


class NoteOut(serializers.Serializer[object]):
    """A note, as written."""

    at = serializers.DateTimeField()
    by = serializers.CharField()
    role = serializers.CharField(source="by_role")
    text = serializers.CharField()


class AppNotes(APIView):
    """Notes about an app."""

    permission = {"GET": READ, "POST": notes.PERMISSION}

    @extend_schema(operation_id="apps_notes", responses=NoteOut(many=True))
    def get(self, request: Request, app: str) -> Response:
        """List the latest 50 notes about an app, newest first."""
        found = notes.latest_notes(_named(app))
        app_looks.note_known(request, app, "the notes over the API", shown=bool(found))
        return Response(NoteOut(found, many=True).data)

    @extend_schema(operation_id="apps_add_note", request=NoteIn, responses={201: NoteOut})
    def post(self, request: Request, app: str) -> Response:
        """Add a note. Notes are never edited."""
        given = NoteIn(data=request.data)
        given.is_valid(raise_exception=True)
        made = notes.add(
            by=Actor.of(person(request)), app=_named(app), text=given.validated_data["text"]
        )
        return Response(NoteOut(made).data, status=status.HTTP_201_CREATED)


class LookOut(serializers.Serializer[object]):
    """One look at an app's data."""

    at = serializers.DateTimeField()
    name = serializers.CharField()
    login = serializers.CharField()
    role = serializers.CharField()
    what = serializers.CharField()
    ticket = serializers.CharField(allow_blank=True)
    log = serializers.ChoiceField(
        ["looks", "audit"],
        help_text="Log that holds it: looks of before this version are in the audit log.",
    )
    audit_row = serializers.IntegerField(source="seq", help_text="Its number in that log.")


class AppLooks(APIView):
    """Who looked at an app's data."""

    permission = control_looks.PERMISSION

    @extend_schema(operation_id="apps_looks", responses=LookOut(many=True))
    def get(self, request: Request, app: str) -> Response:
        """List the latest 200 looks at an app's data, newest first. Old ones are dropped
        by retention; the app's page of looks says until when.
        """
        return Response(LookOut(control_looks.latest_looks(_named(app)), many=True).data)


def _named(app: str) -> str:
    """Return the app id of an address. Raise NotFound for a text that cannot be an app id."""
    if not check.APP(app.encode()):
        raise NotFound(
            "This is not an app id. An app id is 1 to 128 visible ASCII characters without a comma."
        )
    return app


def _app(request: Request, app: str, happenings: Iterable[Happening] = ()) -> AppPage:
    """Read the last day of an app, and note the look.

    Raise NotFound for a text that is not an app id, and for an app neither registered nor in any
    stored decision of the last day.
    """
    found = last_day.last_day(_named(app), time.time(), happenings)
    if found.known is None and not found.kept:
        raise NotFound("No app with this id is registered, and none was seen in the last day.")
    app_looks.note(request, app, "the app over the API")
    return found
