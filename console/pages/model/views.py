"""The page that shows ML owners what a model uses."""

from __future__ import annotations

from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from console.frame.permissions import READ
from console.pages.model import page


@require_GET
@permission_required(READ, raise_exception=True)
def explanations(request: HttpRequest) -> HttpResponse:
    """Show what a model used, over the last day's decisions."""
    shown = page.model_page(
        request.GET.get("model", ""), request.GET.get("tier", ""), request.GET.get("feature", "")
    )
    return render(request, "explain/global.html", {"page": "models", "g": shown})
