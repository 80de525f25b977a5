"""Addresses of the REST API, version 1. Each room answers its own."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.views import SpectacularAPIView

from console.api import tokens


class Schema(SpectacularAPIView):
    """The OpenAPI document of this API."""

    permission = "decisions.view_decision"


urlpatterns = [
    path("schema", Schema.as_view(), name="api-schema"),
    path("tokens", tokens.Tokens.as_view(), name="api-tokens"),
    path("tokens/<str:token>", tokens.TokenDetail.as_view(), name="api-token"),
]
