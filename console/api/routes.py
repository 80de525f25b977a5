"""Addresses of the REST API, version 1. Each room answers its own."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from console.api import apps, exports, outcomes, receipts, status, tokens
from decisions import api as decisions
from decisions import lookup_api as lookup
from decisions import search_api as searches
from explain import api as explain
from explain import model_api as models


class Schema(SpectacularAPIView):
    """The OpenAPI document of this API."""

    permission = "decisions.view_decision"


_DECISION = "decisions/<str:decision_id>"
_APP = "apps/<path:app>"
"""An app id may hold slashes, so what follows it is tried first."""

urlpatterns = [
    path("schema", Schema.as_view(), name="api-schema"),
    path("decisions", decisions.Decisions.as_view(), name="api-decisions"),
    path("decisions/counts", decisions.DecisionCounts.as_view(), name="api-counts"),
    path(_DECISION, explain.DecisionDetail.as_view(), name="api-decision"),
    path(f"{_DECISION}/record", explain.DecisionRecord.as_view(), name="api-record"),
    path(f"{_DECISION}/explanation", explain.ExplanationDetail.as_view(), name="api-explanation"),
    path(f"{_DECISION}/counterfactual", explain.WayBackDetail.as_view(), name="api-counterfactual"),
    path(f"{_DECISION}/replay", explain.Replay.as_view(), name="api-replay"),
    path(f"{_DECISION}/limits", explain.LimitList.as_view(), name="api-limits"),
    path(f"{_DECISION}/around", explain.Around.as_view(), name="api-around"),
    path(f"{_DECISION}/minute", explain.Minute.as_view(), name="api-minute"),
    path(
        f"{_DECISION}/customer-text", explain.CustomerTextDetail.as_view(), name="api-customer-text"
    ),
    path("lookup", lookup.Lookup.as_view(), name="api-lookup"),
    path("receipts", receipts.Receipts.as_view(), name="api-receipts"),
    path("exports/decisions", exports.Export.as_view(), name="api-export"),
    path(f"{_APP}/policy", apps.AppPolicy.as_view(), name="api-app-policy"),
    path(f"{_APP}/forecast", apps.AppForecast.as_view(), name="api-app-forecast"),
    path(f"{_APP}/buckets", apps.AppBuckets.as_view(), name="api-app-buckets"),
    path(f"{_APP}/buckets/<str:bucket>/reset", apps.BucketReset.as_view(), name="api-app-reset"),
    path(f"{_APP}/notes", apps.AppNotes.as_view(), name="api-app-notes"),
    path(f"{_APP}/looks", apps.AppLooks.as_view(), name="api-app-looks"),
    path(_APP, apps.AppDetail.as_view(), name="api-app"),
    path("outcomes", outcomes.Outcomes.as_view(), name="api-outcomes"),
    path("disputes", outcomes.Disputes.as_view(), name="api-disputes"),
    path("disputes/<int:number>", outcomes.DisputeDetail.as_view(), name="api-dispute"),
    path("disputes/<int:number>/verdict", outcomes.Verdict.as_view(), name="api-verdict"),
    path("searches", searches.Searches.as_view(), name="api-searches"),
    path("searches/<int:number>", searches.SearchDetail.as_view(), name="api-search"),
    path("models/explanations", models.ModelExplanations.as_view(), name="api-models"),
    path("status", status.Status.as_view(), name="api-status"),
    path("tokens", tokens.Tokens.as_view(), name="api-tokens"),
    path("tokens/<str:token>", tokens.TokenDetail.as_view(), name="api-token"),
]
