"""Why a decision was made, over REST: record, explanation, way back, worlds, text for the customer."""

from __future__ import annotations

import math

import numpy as np
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from decider.features import NAMES
from decider.vocabulary import Action
from decisions import configs, looks
from decisions.api import READ, DecisionOut, WordField, found
from decisions.models import Decision

from . import answer, page, record, way_back, worlds
from .models import Explanation


class DecisionDetail(APIView):
    """One decision."""

    permission = READ

    @extend_schema(operation_id="decisions_retrieve", responses=DecisionOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """One stored decision, as it is listed."""
        return Response(DecisionOut(_looked_at(request, decision_id)).data)


class DecisionRecord(APIView):
    """The stored record."""

    permission = READ

    @extend_schema(operation_id="decisions_record", responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, decision_id: str) -> Response:
        """Everything that was stored of a decision: the feature vector as served, the signals as seen, its SHAP values.

        The digest of the credential is there for those who may see it.
        """
        d = _looked_at(request, decision_id)
        kept = Explanation.objects.filter(decision=d.id, at=d.at).first()
        return Response(record.fields(d, kept, with_token=request.user.has_perm("decisions.view_token_digest")))


class ReasonOut(serializers.Serializer):
    """One adverse finding."""

    code = serializers.CharField()
    text = serializers.CharField()
    effect = serializers.FloatField(help_text="Points of risk, 0 to 1.")
    feature = serializers.CharField(source="feature.name")
    value = serializers.FloatField()
    typical = serializers.FloatField(allow_null=True, help_text="Median of similar apps.")


class ContributionOut(serializers.Serializer):
    """What one feature added to the score."""

    feature = serializers.CharField()
    value = serializers.FloatField(allow_null=True, help_text="As served; null when it was missing.")
    contribution = serializers.FloatField(help_text="Log-odds; base and all contributions add up to the raw score.")


class ExplanationOut(serializers.Serializer):
    """Why the score was what it was."""

    state = serializers.ChoiceField(["ready", "pending", "impossible", "none"], help_text="none: no model was asked.")
    error = serializers.CharField(allow_blank=True)
    base = serializers.FloatField(allow_null=True, help_text="The model's expected raw score, log-odds.")
    raw = serializers.FloatField(allow_null=True)
    reasons = ReasonOut(many=True)
    contributions = ContributionOut(many=True)


class ExplanationDetail(APIView):
    """The explanation of a decision's score."""

    permission = READ

    @extend_schema(operation_id="decisions_explanation", responses=ExplanationOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """SHAP values that add up to the score, and the reasons they amount to."""
        d = _looked_at(request, decision_id)
        explained = page.compose(d, with_token=False).explained
        kept = explained.explanation
        return Response(ExplanationOut({
            "state": explained.state, "error": explained.error, "reasons": explained.reasons,
            "base": kept.base if kept else None, "raw": kept.raw if kept else None,
            "contributions": _contributions(d, kept) if kept else [],
        }).data)  # fmt: skip


def _contributions(d: Decision, kept: Explanation) -> list[dict[str, object]]:
    row = np.frombuffer(bytes(d.features), "<f4").tolist()
    parts = zip(NAMES, row, kept.values.tolist(), strict=True)
    return [{"feature": n, "value": v if math.isfinite(v) else None, "contribution": c} for n, v, c in parts]


class ChangeOut(serializers.Serializer):
    """One lever, pulled."""

    lever = serializers.CharField()
    label = serializers.CharField()
    before = serializers.FloatField()
    after = serializers.FloatField()
    unit = serializers.CharField(allow_blank=True)


class WayOut(serializers.Serializer):
    """Changes that together would have been admitted."""

    changes = ChangeOut(many=True)
    sentence = serializers.CharField()
    risk = serializers.FloatField(allow_null=True)


class WayBackOut(serializers.Serializer):
    """The way back to admit."""

    ways = WayOut(many=True, help_text="Smallest change first; each was decided again and admitted.")
    none = serializers.CharField(allow_blank=True, help_text="Why there is none; empty when there is one.")


class WayBackDetail(APIView):
    """The smallest change in what the app's owner controls that would have been admitted."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="decisions_counterfactual", responses=WayBackOut)
    def get(self, request: Request, decision_id: str) -> Response:
        """Found and verified by deciding again with the record's own policy and model."""
        d = _looked_at(request, decision_id)
        config = configs.config(d.config_version)
        if d.action == Action.ADMIT:
            return Response({"ways": [], "none": "This request was admitted."})
        if config is None:
            return Response({"ways": [], "none": f"Config {d.config_version} is not kept here, so no change can be verified."})
        with worlds.scoring:
            back = way_back.find(d.event(), config, worlds.model_of(d.model) if d.model else None)
        return Response(WayBackOut(back).data)


class WorldOut(serializers.Serializer):
    """One answer to the same request."""

    title = serializers.CharField()
    action = WordField(Action, allow_null=True)
    risk = serializers.FloatField(allow_null=True)
    note = serializers.CharField(allow_blank=True)
    because = serializers.ListField(child=serializers.CharField(), help_text="What makes it differ from the record.")
    state = serializers.ChoiceField(["ok", "warn", "bad", "off", ""], source="level", help_text="Of the replay: ok is bit-equal.")


class Replay(APIView):
    """The same request decided again."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(operation_id="decisions_replay", responses=WorldOut(many=True))
    def get(self, request: Request, decision_id: str) -> Response:
        """As decided then, verified to the bit; as decided now; as another model would. Nothing is changed."""
        return Response(WorldOut(worlds.of(_looked_at(request, decision_id)), many=True).data)


class CustomerText(serializers.Serializer):
    """What may be told to a customer."""

    reply = serializers.CharField()
    line = serializers.CharField()
    api = serializers.CharField(help_text="A problem document (RFC 9457) as JSON text.")
    version = serializers.CharField(help_text="Of the reviewed catalogue the words are from.")


class CustomerTextDetail(APIView):
    """Texts for the customer."""

    permission = READ

    @extend_schema(operation_id="decisions_customer_text", responses=CustomerText)
    def get(self, request: Request, decision_id: str) -> Response:
        """True, in plain words, with what to do; without scores, limits of others, or what was noticed of abuse."""
        shown = page.compose(_looked_at(request, decision_id), with_token=False)
        return Response(CustomerText(answer.said(shown)).data)


def _looked_at(request: Request, decision_id: str) -> Decision:
    d = found(decision_id)
    looks.note(request, d.app, f"decision {d.name} over the API")
    return d
