"""Why a decision was made, over REST: record, explanation, way back, worlds, customer text."""

from __future__ import annotations

import math
import time

import numpy as np
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.api.fields import EstimateOut, WordField
from console.frame import app_looks
from console.frame.permissions import READ, SEE_DIGEST
from console.frame.stored import decision_or_404, raw_id_or_404
from console.pages.decision import customer_panels, not_kept, page, record_json, replay_panels
from console.pages.lookup.api import DecisionOut
from control.directory import apps as directory
from decider.contracts.features import NAMES
from decider.contracts.vocabulary import Action
from decisions.models import Decision, utc
from explain.comparison import scenarios, timeline
from explain.models import Explanation
from explain.text import verdict


class DecisionDetail(APIView):
    """One decision."""

    permission = READ

    @extend_schema(operation_id="decisions_retrieve", responses=DecisionOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """Return one stored decision, with the same fields as in the list."""
        return Response(DecisionOut(_looked_at(request, decision_id)).data)


class DecisionRecord(APIView):
    """The stored record."""

    permission = READ

    @extend_schema(operation_id="decisions_record", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, decision_id: str) -> Response:
        """Return everything that was stored of a decision: the feature vector as served, the
        signals as seen, and the SHAP values.

        The digest of the credential is included for callers who may see it.
        """
        d = _looked_at(request, decision_id)
        kept = Explanation.objects.filter(decision=d.id, at=d.at).first()
        return Response(
            record_json.record_fields(d, kept, with_token=request.user.has_perm(SEE_DIGEST))
        )


class ReasonOut(serializers.Serializer[object]):
    """One finding that spoke against the request."""

    code = serializers.CharField()
    text = serializers.CharField()
    effect = serializers.FloatField(help_text="How much it raised the risk, 0 to 1.")
    feature = serializers.CharField(source="feature.name")
    value = serializers.FloatField()
    typical = serializers.FloatField(
        allow_null=True,
        help_text="What was usual in training: the median over honest requests of its tier.",
    )


class ContributionOut(serializers.Serializer[object]):
    """What one feature added to the score."""

    feature = serializers.CharField()
    value = serializers.FloatField(
        allow_null=True, help_text="The value as served; null when it was missing."
    )
    contribution = serializers.FloatField(
        help_text="Log-odds; base and all contributions add up to the raw score."
    )


class ExplanationOut(serializers.Serializer[object]):
    """Why the score was what it was."""

    state = serializers.ChoiceField(
        ["ready", "pending", "impossible", "none"], help_text="none: no model was asked."
    )
    error = serializers.CharField(allow_blank=True)
    base = serializers.FloatField(
        allow_null=True, help_text="The model's expected raw score, log-odds."
    )
    raw = serializers.FloatField(allow_null=True)
    reasons = ReasonOut(many=True)
    contributions = ContributionOut(many=True)


class ExplanationDetail(APIView):
    """The explanation of a decision's score."""

    permission = READ

    @extend_schema(operation_id="decisions_explanation", responses=ExplanationOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """Return the SHAP values, which add up to the raw score, and the reasons that follow."""
        d = _looked_at(request, decision_id)
        explained = page.explained(d)
        kept = explained.explanation
        return Response(
            ExplanationOut(
                {
                    "state": explained.state,
                    "error": explained.error,
                    "reasons": explained.reasons,
                    "base": kept.base if kept else None,
                    "raw": kept.raw if kept else None,
                    "contributions": _contributions(d, kept) if kept else [],
                }
            ).data
        )


def _contributions(d: Decision, kept: Explanation) -> list[dict[str, object]]:
    """Return what each feature added, log-odds, in the order of the schema; a NaN value is null."""
    row = np.frombuffer(bytes(d.features), "<f4").tolist()
    parts = zip(NAMES, row, kept.values.tolist(), strict=True)
    return [
        {"feature": n, "value": v if math.isfinite(v) else None, "contribution": c}
        for n, v, c in parts
    ]


class ChangeOut(serializers.Serializer[object]):
    """The change of one lever."""

    lever = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # a REST field called label
    before = serializers.FloatField()
    after = serializers.FloatField()
    unit = serializers.CharField(allow_blank=True)


class WayOut(serializers.Serializer[object]):
    """Changes that together would have been admitted."""

    changes = ChangeOut(many=True)
    sentence = serializers.CharField(
        help_text="The changes in words, and the Retry-After of the answer if their wait differs."
    )
    risk = serializers.FloatField(allow_null=True)
    steady = serializers.BooleanField(
        help_text="Whether a little more of the same change is admitted as well."
    )


class WayBackOut(serializers.Serializer[object]):
    """The way back to admit."""

    ways = WayOut(
        many=True,
        help_text="Each was decided again and admitted. Those that change the strongest reason come"
        " first, then the smallest change.",
    )
    none = serializers.CharField(
        allow_blank=True, help_text="Why there is no way back; empty when there is one."
    )
    aside = serializers.CharField(
        allow_blank=True,
        default="",
        help_text="A sentence where no way changes the strongest reason; else empty.",
    )


class WayBackDetail(APIView):
    """The smallest change in what the app's owner controls that would have been admitted."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="decisions_counterfactual", responses=WayBackOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """Find the way back, and verify it: decide the changed request again with the record's own
        policy and model.
        """
        d = _looked_at(request, decision_id)
        back = replay_panels.way_of(d, page.explained(d))
        return Response(WayBackOut(back or {"ways": [], "none": "This request was admitted."}).data)


class LimitOut(serializers.Serializer[object]):
    """One limit, and how the request stood to it."""

    key = serializers.CharField()
    stage = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # a REST field called label
    before = serializers.CharField()
    limit = serializers.CharField()
    after = serializers.CharField()
    stood = serializers.ChoiceField(
        ["within", "below", "over", "spent", "not asked"], source="word"
    )
    fired = serializers.BooleanField()


class LimitList(APIView):
    """Every limit of one decision."""

    permission = READ

    @extend_schema(operation_id="decisions_limits", responses=LimitOut(many=True))
    def get(self, request: Request, decision_id: str) -> Response:
        """Return every limit that was evaluated, in the order of the stages, before and after the
        request.

        The list is empty when the record cannot be decided again, such as without its config.
        """
        d = _looked_at(request, decision_id)
        cut = page.drawn_cut(d)
        limits = replay_panels.limits_of(d, cut.at if cut else None)
        return Response(LimitOut(limits, many=True).data)


class HappenedOut(serializers.Serializer[object]):
    """An event in the app's timeline."""

    at = serializers.DateTimeField()
    text = serializers.CharField()
    decision = serializers.CharField(source="name", allow_blank=True)


class PeerOut(serializers.Serializer[object]):
    """One feature against the peers: apps of its tier and service in the hour before."""

    label = serializers.CharField()  # type: ignore[assignment]  # a REST field called label
    value = serializers.CharField()
    median = serializers.CharField(source="median_text")
    rank = serializers.CharField(
        allow_blank=True, help_text="Empty if the value is in the middle half of the peers."
    )


class PartOut(serializers.Serializer[object]):
    """One group's part of the load, 0 to 1 in whole percents, with a 95% interval."""

    label = serializers.CharField()  # type: ignore[assignment]  # a REST field called label
    share = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()
    participants = serializers.IntegerField(allow_null=True)


class SharedOut(serializers.Serializer[object]):
    """Who loaded the limit that fired. Groups of fewer than five others are left out."""

    limit = serializers.CharField()
    sentence = serializers.CharField()
    parts = PartOut(many=True)
    kept = serializers.IntegerField(
        allow_null=True, help_text="Stored decisions it rests on; null when a group is left out."
    )
    suppressed = serializers.BooleanField(
        help_text="Whether a group is left out because fewer than five others took part."
    )


class AroundOut(serializers.Serializer[object]):
    """What happened around a decision: timeline, peers, and others' load."""

    timeline = HappenedOut(many=True)
    peer_apps = serializers.IntegerField(help_text="0 when there are fewer than five.")
    peers = PeerOut(many=True)
    shared_cause = SharedOut(
        allow_null=True, help_text="Null where no limit fired that requests use up."
    )


class Around(APIView):
    """What happened around a decision."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="decisions_around", responses=AroundOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """Return the app's timeline two minutes before and after, its place among its peers, and
        how much of the load came from others.
        """
        d = _looked_at(request, decision_id)
        near = replay_panels.surroundings(d)
        told = {
            "timeline": timeline.build_timeline(d, verdict.http_answer(d)),
            "peer_apps": near.peers.apps,
            "peers": near.peers.rows,
            "shared_cause": near.shared,
        }
        return Response(AroundOut(told).data)


class MinuteOut(serializers.Serializer[object]):
    """What is known of a decision that is not stored."""

    id = serializers.CharField()
    at = serializers.DateTimeField()
    state = serializers.ChoiceField(
        ["sampled", "young", "expired", "future"], help_text="Why it is not stored."
    )
    app = serializers.CharField(
        allow_blank=True, help_text="App that the counts are about; empty for every app."
    )
    number = EstimateOut(help_text="Decisions of its minute.")
    by_action = serializers.DictField(child=EstimateOut())
    config_version = serializers.IntegerField(
        allow_null=True, help_text="Version in force then; null if it is not kept."
    )
    similar = DecisionOut(many=True, help_text="The stored decisions nearest in time.")


class Minute(APIView):
    """The minute of a decision, whether it is stored or not."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(
        operation_id="decisions_minute",
        parameters=[
            OpenApiParameter(
                "app", str, description="Id or name of the decision's app, if that is known."
            )
        ],
        responses=MinuteOut,
    )
    def get(self, request: Request, decision_id: str) -> Response:
        """Return what was decided in the minute of the id's time, under which config, and similar
        stored decisions.
        """
        raw = raw_id_or_404(decision_id)
        known = not_kept.missing_decision(raw, request.query_params.get("app", ""), time.time())
        # The value is not repeated in the answer: it may be a credential.
        if known.unknown:
            raise ValidationError({"app": "No app with this id or name is known."})
        app_looks.note_apps(
            request, known.shown_apps, f"the minute of decision {known.id} over the API"
        )
        minute = known.minute
        return Response(
            MinuteOut(
                {
                    "id": known.id,
                    "at": utc(known.at),
                    "state": known.state,
                    "app": known.app,
                    "number": minute.number,
                    "by_action": {share.action.word: share.number for share in minute.shares},
                    "config_version": known.rules.version if known.rules else None,
                    "similar": [row.decision for row in known.similar],
                }
            ).data
        )


class WorldOut(serializers.Serializer[object]):
    """How the request is decided under one set of circumstances."""

    title = serializers.CharField()
    action = WordField(Action, allow_null=True)
    risk = serializers.FloatField(allow_null=True)
    note = serializers.CharField(allow_blank=True)
    because = serializers.ListField(
        child=serializers.CharField(), help_text="What makes it differ from the record."
    )
    state = serializers.ChoiceField(
        ["ok", "warn", "bad", "off", ""],
        source="level",
        help_text="State of the replay; ok is equal to the bit.",
    )


class Replay(APIView):
    """The same request decided again."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="decisions_replay", responses=WorldOut(many=True))
    def get(self, request: Request, decision_id: str) -> Response:
        """Decide the same request again: as then (verified to the bit), as now, and by another
        model. Change nothing.
        """
        return Response(
            WorldOut(scenarios.decide_scenarios(_looked_at(request, decision_id)), many=True).data
        )


class CustomerText(serializers.Serializer[object]):
    """What may be told to a customer."""

    reply = serializers.CharField()
    line = serializers.CharField()
    api = serializers.CharField(help_text="A problem document (RFC 9457) as JSON text.")
    version = serializers.CharField(help_text="Version of the reviewed catalogue of texts.")


class CustomerTextDetail(APIView):
    """Texts for the customer."""

    permission = READ

    @extend_schema(operation_id="decisions_customer_text", responses=CustomerText)
    def get(self, request: Request, decision_id: str) -> Response:
        """Return true texts for the customer in plain words, with what to do.

        They hold no scores, no limits of others, and no signs of abuse that were noticed.
        """
        d = _looked_at(request, decision_id)
        return Response(CustomerText(customer_panels.customer_texts(d, directory.app(d.app))).data)


def _looked_at(request: Request, decision_id: str) -> Decision:
    """Return the stored decision of an address, and note the look at its app.

    Raise Http404 for a text that is not an id, and for a decision that is not stored.
    """
    d = decision_or_404(decision_id)
    app_looks.note(request, d.app, f"decision {d.name} over the API")
    return d
