"""Addresses of the REST API, version 1. The operations are in console/pages/<noun>/api.py."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from console.api import status
from console.pages.app import api as app_api
from console.pages.app import import_api
from console.pages.approvals import api as approvals_api
from console.pages.decision import api as explain
from console.pages.declaration import api as declaration
from console.pages.lookup import api as decisions
from console.pages.lookup import export_api
from console.pages.lookup import saved_api as searches
from console.pages.lookup import text_api as lookup
from console.pages.model import api as models
from console.pages.outcomes import api as outcomes_api
from console.pages.people import api as people_api
from console.pages.receipts import api as receipts_api
from console.pages.storing import api as storing_api
from console.pages.switches import api as switches_api
from console.pages.tokens import api as tokens_api


class Schema(SpectacularAPIView):
    """The OpenAPI document of this API."""

    permission = "decisions.view_decision"

    @extend_schema(
        exclude=True, parameters=[OpenApiParameter("format", str, enum=["json", "yaml"])]
    )
    def get(self, request: Request) -> Response:
        """Return the document."""
        answer: Response = super().get(request)  # type: ignore[no-untyped-call]  # untyped
        return answer


_DECISION = "decisions/<str:decision_id>"
# An app id may hold slashes, so addresses that go on after it come before the plain one.
_APP = "apps/<path:app>"
_PERSON = "people/<int:number>"
_APPROVAL = "approvals/<int:number>"

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
    path("declaration", declaration.Declaration.as_view(), name="api-declaration"),
    path("declaration/plan", declaration.DeclarationPlan.as_view(), name="api-declaration-plan"),
    path("declaration/apply", declaration.DeclarationApply.as_view(), name="api-declaration-apply"),
    path("app-imports", import_api.AppImports.as_view(), name="api-app-imports"),
    path("lookup", lookup.Lookup.as_view(), name="api-lookup"),
    path("receipts", receipts_api.Receipts.as_view(), name="api-receipts"),
    path("exports/decisions", export_api.Export.as_view(), name="api-export"),
    path(f"{_APP}/policy", app_api.AppPolicy.as_view(), name="api-app-policy"),
    path(f"{_APP}/forecast", app_api.AppForecast.as_view(), name="api-app-forecast"),
    path(f"{_APP}/buckets", app_api.AppBuckets.as_view(), name="api-app-buckets"),
    path(f"{_APP}/buckets/<str:bucket>/reset", app_api.BucketReset.as_view(), name="api-app-reset"),
    path(f"{_APP}/notes", app_api.AppNotes.as_view(), name="api-app-notes"),
    path(f"{_APP}/looks", app_api.AppLooks.as_view(), name="api-app-looks"),
    path(_APP, app_api.AppDetail.as_view(), name="api-app"),
    path("outcomes", outcomes_api.Outcomes.as_view(), name="api-outcomes"),
    path("disputes", outcomes_api.Disputes.as_view(), name="api-disputes"),
    path("disputes/<int:number>", outcomes_api.DisputeDetail.as_view(), name="api-dispute"),
    path("disputes/<int:number>/verdict", outcomes_api.Verdict.as_view(), name="api-verdict"),
    path("approvals", approvals_api.Approvals.as_view(), name="api-approvals"),
    path(_APPROVAL, approvals_api.ApprovalDetail.as_view(), name="api-approval"),
    path(f"{_APPROVAL}/approve", approvals_api.Approve.as_view(), name="api-approve"),
    path(f"{_APPROVAL}/veto", approvals_api.Veto.as_view(), name="api-veto"),
    path(f"{_APPROVAL}/withdraw", approvals_api.Withdraw.as_view(), name="api-withdraw"),
    path(f"{_APPROVAL}/rebase", approvals_api.Rebase.as_view(), name="api-rebase"),
    path("switches", switches_api.Switches.as_view(), name="api-switches"),
    path("switches/<slug:name>/engage", switches_api.Engage.as_view(), name="api-engage"),
    path("switches/<slug:name>/extend", switches_api.Extend.as_view(), name="api-extend"),
    path("switches/<slug:name>/clear", switches_api.Clear.as_view(), name="api-clear"),
    path("searches", searches.Searches.as_view(), name="api-searches"),
    path("searches/<int:number>", searches.SearchDetail.as_view(), name="api-search"),
    path("models/explanations", models.ModelExplanations.as_view(), name="api-models"),
    path("storing", storing_api.Account.as_view(), name="api-storing"),
    path("buried", storing_api.Buried.as_view(), name="api-buried"),
    path("buried/replay", storing_api.Replay.as_view(), name="api-buried-replay"),
    path("buried/discard", storing_api.Discard.as_view(), name="api-buried-discard"),
    path("status", status.Status.as_view(), name="api-status"),
    path("people", people_api.People.as_view(), name="api-people"),
    path(_PERSON, people_api.PersonDetail.as_view(), name="api-person"),
    path(f"{_PERSON}/deactivate", people_api.Deactivate.as_view(), name="api-person-deactivate"),
    path(f"{_PERSON}/activate", people_api.Activate.as_view(), name="api-person-activate"),
    path(f"{_PERSON}/roles/give", people_api.GiveRole.as_view(), name="api-role-give"),
    path(f"{_PERSON}/roles/take", people_api.TakeRole.as_view(), name="api-role-take"),
    path("tokens", tokens_api.Tokens.as_view(), name="api-tokens"),
    path("tokens/<str:token>", tokens_api.TokenDetail.as_view(), name="api-token"),
]
