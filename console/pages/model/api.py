"""What a model uses, over REST: the figures behind the page."""

from __future__ import annotations

import numpy as np
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from console.frame.permissions import READ
from console.pages.model import page
from console.pages.model.page import ModelPage
from decider.contracts.features import INDEX
from decider.contracts.vocabulary import Tier

# The middle half and the middle nine tenths: enough to draw a spread.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class UsedFeature(serializers.Serializer[object]):
    """One feature's part in the scores, over the traffic."""

    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]  # a REST field called label
    importance = serializers.FloatField(help_text="Mean absolute contribution, log-odds.")
    tends = serializers.ChoiceField(
        ["raise", "lower", "both"], help_text="What higher values do to the risk."
    )
    quantiles = serializers.DictField(
        child=serializers.FloatField(), help_text="Of its contributions, log-odds, weighted."
    )


class TenthOut(serializers.Serializer[object]):
    """A tenth of the traffic by the feature's value."""

    low = serializers.CharField()
    high = serializers.CharField()
    mean = serializers.FloatField(help_text="Contribution, log-odds.")


class DependenceOut(serializers.Serializer[object]):
    """How one feature's contribution follows its value."""

    feature = serializers.CharField(source="feature.name")
    bins = TenthOut(many=True)
    unknown = serializers.FloatField(
        help_text="Share of the traffic for which the value was not known."
    )


class ModelUse(serializers.Serializer[object]):
    """What a model used over the newest explained decisions of the last day."""

    model = serializers.CharField(allow_blank=True)
    headline = serializers.CharField()
    decisions = serializers.IntegerField()
    stands_for = serializers.FloatField(help_text="Decisions of the traffic that they stand for.")
    since = serializers.DateTimeField(allow_null=True)
    features = UsedFeature(many=True, help_text="The most important first.")
    dependence = DependenceOut(allow_null=True)


class ModelExplanations(APIView):
    """What a model uses."""

    permission = READ
    throttle_scope = "heavy"

    @extend_schema(
        operation_id="models_explanations",
        responses=ModelUse,
        parameters=[
            OpenApiParameter(
                "model",
                str,
                description="Beginning of the model's digest; default: of the most used model.",
            ),
            OpenApiParameter(
                "tier", str, enum=[t.word for t in Tier], description="Only decisions of this tier."
            ),
            OpenApiParameter(
                "feature",
                str,
                enum=list(INDEX),
                description="Feature whose dependence to return; default: the most important.",
            ),
        ],
    )
    def get(self, request: Request) -> Response:
        """Return the features' importance, the spread of contributions, and one dependence.

        All are weighted by 1/inclusion probability, so that they stand for the traffic.
        """
        asked = (request.query_params.get(name, "") for name in ("model", "tier", "feature"))
        return Response(ModelUse(_told(page.model_page(*asked))).data)


def _told(shown: ModelPage) -> dict[str, object]:
    """Return the values of `ModelUse`."""
    sample = shown.sample
    features = []
    for row in (one.row for one in shown.rows):
        mine = sample.contributions[:, INDEX[row.feature.name]]
        features.append(
            {
                "name": row.feature.name,
                "label": row.feature.label,
                "importance": row.importance,
                "tends": row.tends,
                "quantiles": {f"{q:g}": _quantile(mine, sample.weights, q) for q in QUANTILES},
            }
        )
    return {
        "model": shown.model,
        "headline": shown.headline,
        "decisions": len(sample),
        "stands_for": shown.standing_for,
        "since": sample.since,
        "features": features,
        "dependence": shown.dependence,
    }


def _quantile(values: np.ndarray, weights: np.ndarray, q: float) -> float:
    """Return the smallest value with at least a share `q` of the weight at or below it."""
    order = np.argsort(values)
    mass = np.cumsum(weights[order])
    return float(values[order][min(len(values) - 1, int(np.searchsorted(mass, q * mass[-1])))])
