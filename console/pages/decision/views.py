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
from console.frame.fragments import htmx_details
from console.frame.permissions import READ, SEE_DIGEST
from console.frame.stored import decision_or_404, raw_id_or_404
from console.pages.decision import customer_panels, not_kept, page, replay_panels
from decider.contracts.ids import format_decision_id
from decisions.models import Decision
from decisions.search import lookup
from explain.comparison import scenarios
from explain.forecast import outlook as forecasts
from explain.forecast import track_record

log = logging.getLogger("sluice.explain")

# How often an open page asks for its explanation before it says that there is none.
POLLS = 45


@sensitive_post_parameters("app")
@require_http_methods(["GET", "HEAD", "POST"])
@permission_required(READ, raise_exception=True)
def decision(request: HttpRequest, decision_id: str) -> HttpResponse:
    """Show why a decision was made.

    For a decision that is not stored, the reader can name an app. The app is posted, because it may
    be a credential pasted by mistake and must not get into an address. Raise Http404 for a text
    that is not a decision id.
    """
    raw = raw_id_or_404(decision_id)
    found = lookup.find(uuid.UUID(bytes=raw))
    if found is None:
        return _not_kept(request, raw)
    if request.method == "POST":
        return redirect("decision", decision_id)
    # One address per decision: upper case and other spellings lead to it.
    if found.name != decision_id:
        return redirect("decision", found.name, permanent=True)
    app_looks.note(request, found.app, f"decision {found.name}")
    # The record holds the digest of the credential only for those who may see it.
    with_token = request.user.has_perm(SEE_DIGEST)
    shown = page.decision_page(found, with_token=with_token)
    context = {
        "page": "lookup",
        "p": shown,
        "d": found,
        "with_token": with_token,
        "at": timezone.now(),
        "polls": 0,
        "answer": customer_panels.customer_answer(shown),
        "here": request.build_absolute_uri(),
        **replay_panels.replayed_panels(found, shown),
    }
    return render(request, "explain/decision.html", context)


def _not_kept(request: HttpRequest, raw: bytes) -> HttpResponse:
    """Show what is known of the minute of a decision that is not stored.

    A posted app redirects to the address with the id of that app.
    """
    named, unknown = request.GET.get("app", ""), False
    if request.method == "POST":
        named = not_kept.app_of(request.POST.get("app", ""))
        if named:
            return redirect(
                f"{reverse('decision', args=[format_decision_id(raw)])}?{urlencode({'app': named})}"
            )
        unknown = bool(request.POST.get("app"))
    missing = not_kept.missing_decision(raw, named, time.time())
    missing = replace(missing, unknown=unknown or missing.unknown)
    app_looks.note_apps(request, missing.shown_apps, f"the minute of decision {missing.id}")
    # 200 for one app, because the page then answers a question, and the look is recorded.
    status = 200 if missing.app else 404
    return render(request, "explain/not_kept.html", {"page": "lookup", "p": missing}, status=status)


@require_GET
@permission_required(READ, raise_exception=True)
def printed(request: HttpRequest, decision_id: str) -> HttpResponse:
    """Show the page for printing: verdict, facts, reasons, and what the customer may be told."""
    found = decision_or_404(decision_id)
    app_looks.note(request, found.app, f"decision {found.name}, to print")
    shown = page.decision_page(found, with_token=False)
    context = {
        "page": "lookup",
        "p": shown,
        "d": found,
        "answer": customer_panels.customer_answer(shown),
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
    """Show the panels that wait for the explanation.

    They ask again until the explanation is there, or until `POLLS` requests have found none.
    """
    found = decision_or_404(decision_id)
    app_looks.note(request, found.app, f"decision {found.name}")
    try:
        polls = min(POLLS, max(0, int(request.GET.get("n", "0"))))
    except ValueError:
        polls = 0
    shown = page.decision_page(found, with_token=False)
    # Only the first poll asks: more requests would queue the same work again.
    if shown.explained.state == "pending" and polls == 0:
        _ask_for(found)
    context = {
        "p": shown,
        "d": found,
        "polls": polls + 1,
        "gave_up": polls >= POLLS,
        "swap": True,
        "said": customer_panels.customer_texts(found, shown.known, shown.explained),
    }
    return render(request, "explain/explanation.html", context)


def _ask_for(found: Decision) -> None:
    """Ask a worker to explain this decision now.

    Without a broker nothing is lost: the periodic run comes to the decision later.
    """
    try:
        current_app.send_task("explain.tasks.explain_one", [str(found.id)], retry=False)
    except BrokerError as error:
        log.warning(
            "The broker did not take the request to explain %s (%s); the periodic run will do it.",
            found.name,
            error,
        )


@require_POST
@permission_required(READ, raise_exception=True)
def now(request: HttpRequest, decision_id: str) -> HttpResponse:
    """Decide the same request again: as then, as now, and by another model. Change nothing."""
    found = decision_or_404(decision_id)
    app_looks.note(request, found.app, f"decision {found.name}")
    context: dict[str, object] = {
        "d": found,
        "worlds": scenarios.decide_scenarios(found),
        "at": timezone.now(),
    }
    return _panel(request, found, "Then, now, and by another model", "explain/now.html", context)


@require_GET
@permission_required(READ, raise_exception=True)
def around(request: HttpRequest, decision_id: str) -> HttpResponse:
    """Show the decision among its peers, and who else loaded the limit that fired."""
    found = decision_or_404(decision_id)
    app_looks.note(request, found.app, f"decision {found.name}")
    near = replay_panels.surroundings(found)
    return _panel(
        request,
        found,
        "Peers of that hour",
        "explain/around_panels.html",
        {
            "d": found,
            "name": near.name,
            "peers": near.peers,
            "shared": near.shared,
            "ordinary": near.ordinary,
        },
    )


@require_GET
@permission_required(READ, raise_exception=True)
def forecast(request: HttpRequest, app_id: str) -> HttpResponse:
    """Show an app's forecast and how often such were right. Raise Http404 for an id with a NUL."""
    if "\x00" in app_id:
        raise Http404("This is not an app id: it holds a NUL character.")
    at = timezone.now()
    now = at.timestamp()
    app_looks.note_known(request, app_id, "the forecast")
    found = forecasts.forecast_app(app_id, now)
    # A forecast that is shown is kept, so that its own record counts it later.
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
    """Render a panel of a decision with a link back to its page."""
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
    """Render a panel by itself: a fragment for htmx, a whole page without script.

    `back` holds the address and the text of the page that the panel belongs to.
    """
    if htmx_details(request):
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
    # A cache must not give a fragment to someone who reloads the whole page.
    patch_vary_headers(response, ["HX-Request"])
    return response
