"""The pages of disputes: opening one about a refusal, the queue, and deciding one as a second
person.
"""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.core.paginator import Page, Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods
from django.views.decorators.vary import vary_on_headers

from console.frame import app_looks
from console.frame.fragments import htmx_details, redirect_to
from console.frame.people import person
from console.frame.permissions import require
from console.frame.stored import decision_or_404
from console.pages.disputes import page
from console.pages.disputes.forms import OpenForm, VerdictForm
from control.audit.actors import Actor
from control.directory import apps as directory
from control.errors import Refused
from decider.contracts import units
from decisions.models import Dispute
from decisions.outcomes import disputes

_VIEW = "decisions.view_dispute"
FILTERS = {"open": "Open", "mine": "Mine", "decided": "Decided"}
# Rows of a page. Chosen: a screen full.
ROWS = 25


@require_GET
@permission_required(_VIEW, raise_exception=True)
def queue(request: HttpRequest) -> HttpResponse:
    """Show a queue of disputes, oldest first. Raise BadRequest for a queue that does not exist."""
    which = request.GET.get("show", "open")
    if which not in FILTERS:
        raise BadRequest(f"“show” must be one of {', '.join(FILTERS)}.")
    some = Paginator(disputes.queue(which, request.user.get_username()), ROWS).get_page(
        request.GET.get("page")
    )
    waiting = disputes.waiting()
    rows = page.dispute_rows(list(some), person(request))
    app_looks.note_rows(request, (row.dispute for row in rows), "the queue of disputes")
    context = {
        "page": "disputes",
        "which": which,
        "filters": [
            (key, label, f"{reverse('disputes')}?show={key}") for key, label in FILTERS.items()
        ],
        "rows": rows,
        "some": some,
        "pages": _pages(some, which),
        "waiting": waiting,
        "headline": _headline(waiting),
        "may_decide": request.user.has_perm(disputes.ADJUDICATE_PERMISSION),
    }
    return render(request, "decisions/disputes.html", context)


def _pages(some: Page[Dispute], which: str) -> dict[str, str]:
    """Return the addresses of the pages before and after this one, empty where there is none."""
    here = f"{reverse('disputes')}?show={which}&page="
    return {
        "before": f"{here}{some.previous_page_number()}" if some.has_previous() else "",
        "after": f"{here}{some.next_page_number()}" if some.has_next() else "",
    }


def _headline(waiting: disputes.Waiting) -> str:
    """Say how many disputes wait, and for how long the oldest."""
    if not waiting.open or waiting.oldest_at is None:
        return "No dispute waits for a verdict"
    count, age = waiting.open, units.span(timezone.now() - waiting.oldest_at)
    return (
        f"{count:,} dispute{'s wait' if count > 1 else ' waits'} for a second person, the oldest"
        f" for {age}"
    )


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
@permission_required(_VIEW, raise_exception=True)
def open_dispute(request: HttpRequest, decision_id: str) -> HttpResponse:
    """Show the form that asks why a refusal was wrong, and open a dispute when it is posted.

    The form is a sheet for htmx, and a page without script. Raise PermissionDenied without the
    permission, Http404 for a decision that is not stored.
    """
    require(request, disputes.check_may_open, disputes.OPEN_PERMISSION)
    found = decision_or_404(decision_id)
    app_looks.note(request, found.app, f"decision {found.name}, to dispute it")
    form = OpenForm(
        request.POST if request.method == "POST" else None,
        initial={"ticket": app_looks.ticket(request)},
    )
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            disputes.open_dispute(
                found, by=Actor.of(person(request)), reason=given["reason"], ticket=given["ticket"]
            )
        except Refused as error:
            form.add_error(None, str(error))
        else:
            messages.info(request, "The dispute is open. A second person decides it.")
            return redirect_to(request, reverse("decision", args=[found.name]))
    context = {
        "page": "disputes",
        "d": found,
        "form": form,
        "name": directory.names([found.app])[found.app],
    }
    # a sheet for htmx, a page without script
    name = "open_dispute_sheet.html" if htmx_details(request) else "open_dispute.html"
    status = 422 if form.errors else 200
    return render(request, f"decisions/{name}", context, status=status)


@require_http_methods(["GET", "POST"])
@permission_required(_VIEW, raise_exception=True)
def dispute(request: HttpRequest, number: int) -> HttpResponse:
    """Show the evidence about one dispute, and decide it when the form is posted. Raise
    PermissionDenied, Http404.
    """
    found = _dispute(number)
    form = VerdictForm(request.POST if request.method == "POST" else None)
    if request.method == "POST":
        require(request, disputes.check_may_adjudicate, disputes.ADJUDICATE_PERMISSION)
        if form.is_valid():
            given = form.cleaned_data
            try:
                done = disputes.adjudicate(
                    number, given["verdict"], by=Actor.of(person(request)), reason=given["reason"]
                )
            except Refused as error:
                form.add_error(None, str(error))
                found = _dispute(number)
            else:
                messages.info(request, f"The verdict is kept: {done.get_state_display().lower()}.")
                return redirect_to(request, reverse("disputes"))
    elif htmx_details(request):
        # a page that was open before an update asks for the sheet that used to be here
        return redirect_to(request, reverse("dispute", args=[number]))
    app_looks.note(request, found.app, f"dispute {number}")
    shown = page.dispute_page(found, person(request))
    context: dict[str, object] = {
        "page": "disputes",
        "s": shown,
        "row": shown.row,
        "dispute": found,
        "form": form,
    }
    if shown.evidence:
        # the names by which the panels of the decision page know these
        context |= {
            "p": shown.evidence.shown,
            "d": shown.evidence.shown.d,
            "way": shown.evidence.way,
            "happened": shown.evidence.happened,
            "polls": 0,
        }
    status = 422 if form.errors else 200
    return render(request, "decisions/dispute.html", context, status=status)


def _dispute(number: int) -> Dispute:
    """Return a dispute. Raise Http404 when no dispute has this number."""
    try:
        return disputes.by_number(number)
    except Refused as error:
        raise Http404(str(error)) from error
