"""The decision page and the parts of it that load by themselves."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace

from celery import current_app
from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.utils.http import urlencode
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from kombu.exceptions import OperationalError as BrokerError

from console.frame import app_looks
from console.frame.app_looks import note as look
from console.frame.permissions import READ
from console.frame.stored import decision_or_404
from console.pages.decision import answer, not_kept, page, panels
from decider.contracts.ids import format_decision_id, parse_decision_id
from decisions.models import Decision
from decisions.search import lookup
from explain.comparison import scenarios
from explain.forecast import outlook as forecasts
from explain.forecast import track_record

log = logging.getLogger("sluice.explain")

# How often an open page asks for its explanation before it says that none comes.
POLLS = 45


@sensitive_post_parameters("app")
@require_http_methods(["GET", "HEAD", "POST"])
@permission_required(READ, raise_exception=True)
def decision(request: HttpRequest, decision_id: str) -> HttpResponse:
    """Why was this decided? Of a decision that was not kept, an app can be named: posted, as it may
    be a credential by mistake.
    """
    raw = parse_decision_id(decision_id)
    if raw is not None and lookup.find(uuid.UUID(bytes=raw)) is None:
        return _not_kept(request, raw)
    if request.method == "POST":
        return redirect("decision", decision_id)
    found = decision_or_404(decision_id)
    if found.name != decision_id:
        return redirect("decision", found.name, permanent=True)
    look(request, found.app, f"decision {found.name}")
    with_token = request.user.has_perm("decisions.view_token_digest")
    shown = page.compose(found, with_token=with_token)
    context = {
        "page": "lookup",
        "p": shown,
        "d": found,
        "with_token": with_token,
        "at": timezone.now(),
        "polls": 0,
    }
    context |= panels.beside(found, shown) | {
        "answer": answer.compose(shown),
        "here": request.build_absolute_uri(),
    }
    return render(request, "explain/decision.html", context)


def _not_kept(request: HttpRequest, raw: bytes) -> HttpResponse:
    """What is known of its minute; a posted app leads to the address of its id."""
    named, unknown = request.GET.get("app", ""), False
    if request.method == "POST":
        named = not_kept.app_of(request.POST.get("app", ""))
        if named:
            return redirect(
                f"{reverse('decision', args=[format_decision_id(raw)])}?{urlencode({'app': named})}"
            )
        unknown = bool(request.POST.get("app"))
    missing = not_kept.compose(raw, named, time.time())
    missing = replace(missing, unknown=unknown or missing.unknown)
    app_looks.note_apps(request, missing.shown_apps, f"the minute of decision {missing.id}")
    status = 200 if missing.app else 404  # about one app it is an answer, and the look is on record
    return render(request, "explain/not_kept.html", {"page": "lookup", "p": missing}, status=status)


@require_GET
@permission_required(READ, raise_exception=True)
def printed(request: HttpRequest, decision_id: str) -> HttpResponse:
    """The decision on paper: verdict, facts, reasons, and what the customer may be told."""
    found = decision_or_404(decision_id)
    look(request, found.app, f"decision {found.name}, to print")
    shown = page.compose(found, with_token=False)
    context = {
        "page": "lookup",
        "p": shown,
        "d": found,
        "answer": answer.compose(shown),
        "at": timezone.now(),
    }
    return render(
        request,
        "explain/print.html",
        {**context, "here": request.build_absolute_uri(reverse("decision", args=[found.name]))},
    )


@require_GET
@permission_required(READ, raise_exception=True)
def explanation(request: HttpRequest, decision_id: str) -> HttpResponse:
    """The panels that wait for the explanation; they ask again until it is there or nobody makes
    one.
    """
    found = decision_or_404(decision_id)
    look(request, found.app, f"decision {found.name}")
    try:
        polls = min(POLLS, max(0, int(request.GET.get("n", "0"))))
    except ValueError:
        polls = 0
    shown = page.compose(found, with_token=False)
    if shown.explained.state == "pending" and polls == 0:
        _ask_for(found)
    context = {
        "p": shown,
        "d": found,
        "polls": polls + 1,
        "gave_up": polls >= POLLS,
        "swap": True,
        "said": answer.said(shown),
    }
    return render(request, "explain/explanation.html", context)


def _ask_for(found: Decision) -> None:
    """Has the decision someone looks at explained at once. Without a broker the periodic run still
    comes to it.
    """
    try:
        current_app.send_task("explain.tasks.explain_one", [str(found.id)], retry=False)
    except BrokerError as error:
        log.warning("nobody could be asked to explain %s: %s", found.name, error)


@require_POST
@permission_required(READ, raise_exception=True)
def now(request: HttpRequest, decision_id: str) -> HttpResponse:
    """The same request in the three worlds, as of now. Nothing is changed."""
    found = decision_or_404(decision_id)
    look(request, found.app, f"decision {found.name}")
    context = {"d": found, "worlds": scenarios.decide_scenarios(found), "at": timezone.now()}
    return _panel(request, found, "Then, now, and by another model", "explain/now.html", context)


@require_GET
@permission_required(READ, raise_exception=True)
def around(request: HttpRequest, decision_id: str) -> HttpResponse:
    """The decision among its peers, and who else loaded the limit that fired."""
    found = decision_or_404(decision_id)
    look(request, found.app, f"decision {found.name}")
    return _panel(
        request,
        found,
        "Similar apps and shared load",
        "explain/around_panels.html",
        panels.around(found),
    )


@require_GET
@permission_required(READ, raise_exception=True)
def forecast(request: HttpRequest, app_id: str) -> HttpResponse:
    """What is to be expected of an app's next hour, and how often that was right."""
    if "\x00" in app_id:
        raise Http404("That is no app id.")
    at = timezone.now()
    now = at.timestamp()
    app_looks.note_known(request, app_id, "the forecast")
    found = forecasts.forecast_app(app_id, now)
    track_record.store_forecast(app_id, found, now)
    context = {
        "app_id": app_id,
        "outlook": found,
        "record": track_record.summarise_record(app_id, now),
        "at": at,
    }
    return _alone(
        request,
        (reverse("app", args=[app_id]), app_id),
        "The next hour",
        "explain/forecast.html",
        context,
    )


def _panel(
    request: HttpRequest, found: Decision, title: str, template: str, context: dict[str, object]
) -> HttpResponse:
    return _alone(
        request, (reverse("decision", args=[found.name]), found.name), title, template, context
    )


def _alone(
    request: HttpRequest,
    back: tuple[str, str],
    title: str,
    template: str,
    context: dict[str, object],
) -> HttpResponse:
    """A panel by itself: a fragment for htmx, a page without script. `back`: address and text of
    the page it belongs to.
    """
    if request.htmx:
        response = render(request, template, context)
    else:
        of_page = {
            "page": "lookup",
            "title": title,
            "back": back[0],
            "back_text": back[1],
            "fragment": template,
        }
        response = render(request, "explain/panel_page.html", {**context, **of_page})
    patch_vary_headers(response, ["HX-Request"])
    return response
