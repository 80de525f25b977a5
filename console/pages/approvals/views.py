"""The pages of approvals: what waits for a second person, one request, the mode, and reviews."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from console.frame import roles
from console.frame.people import person
from console.frame.permissions import record_refusal, require
from console.frame.sign_in import reauthentication
from console.pages.approvals import deciding, noticing, page
from console.pages.approvals.forms import DecideForm, ModeForm, ReasonForm
from control.approvals import mode as four_eyes
from control.approvals import requests, reviews
from control.approvals.lifecycle import State
from control.approvals.models import Request, Review, Vote
from control.approvals.requests import Ballot
from control.config import gate, requested
from control.errors import NotAllowed, Refused

VIEW = "approvals.view_request"


@require_GET
@permission_required(VIEW, raise_exception=True)
def queue(request: HttpRequest) -> HttpResponse:
    """Show what waits for a second person: what this one may decide first."""
    shown = page.approvals_page(person(request))
    return render(request, "control/approvals.html", {"page": "approvals", "p": shown})


@require_http_methods(["GET", "POST"])
@permission_required(VIEW, raise_exception=True)
def approval(request: HttpRequest, number: int) -> HttpResponse:
    """Show one request, and approve, veto, withdraw or rebase it when the form is posted. Raise
    PermissionDenied, Http404.
    """
    row, user = _found(number), person(request)
    form = DecideForm(request.POST if request.method == "POST" else None)
    proved = reauthentication.recently_authenticated(request)
    if request.method == "POST" and form.is_valid() and not (proved or _is_safe(form)):
        # the reason stays in the form
        form.add_error(None, "Give your password again first, then approve.")
    elif request.method == "POST" and form.is_valid():
        try:
            done = _decide(row, form, user)
        except NotAllowed as error:
            needed = sorted(gate.permissions_of(row))
            raise PermissionDenied(f"{error} {roles.who_can(needed[0])}.") from error
        except Refused as error:
            record_refusal(request, str(error))
            form.add_error(None, str(error))
            row = _found(number)
        else:
            messages.info(request, _said(done))
            return (
                redirect("approval", done.pk) if done.state == State.OPEN else redirect("approvals")
            )
    context = {
        "page": "approvals",
        "card": page.card_of(row, user, timezone.now()),
        "form": form,
        "proved": proved,
        "four_eyes": four_eyes.is_on(),
    }
    return render(request, "control/approval.html", context, status=422 if form.errors else 200)


def _is_safe(form: DecideForm) -> bool:
    """Return whether what the form asks for lets no change through."""
    return bool(form.cleaned_data["do"] != "approve")


def _decide(row: Request, form: DecideForm, user: User) -> Request:
    """Do what the form says with a request, and return the one to show next. Raise NotAllowed,
    Refused.
    """
    given = form.cleaned_data
    if given["do"] == "withdraw":
        return requests.withdraw(row.pk, by=user, reason=given["reason"])
    if given["do"] == "rebase":
        return requested.rebase(row, by=user, reason=given["reason"])
    verdict = Vote.Verdict(given["do"])
    ballot = Ballot(verdict, given["digest"], given["reason"])
    if verdict == Vote.Verdict.VETO:
        return deciding.veto(row.pk, ballot, by=user)
    return deciding.approve(row.pk, ballot, by=user)


def _said(row: Request) -> str:
    """Return what became of a request, a sentence."""
    if row.state == State.OPEN:
        return f"Request {row.pk} waits for a second person."
    ends = f" {row.outcome}" if row.outcome else ""
    return f"{page.title(row)}: {State(row.state).label.lower()}.{ends}"


@require_GET
@permission_required(VIEW, raise_exception=True)
def noticed(request: HttpRequest, number: int) -> HttpResponse:
    """Show who would notice a change, as far as a preview can count it."""
    row = _found(number)
    card = page.card_of(row, person(request), timezone.now())
    counted = None
    if card.is_open and card.is_counted and not card.overtaken:
        counted = noticing.seen(request, row)
    return render(request, "control/approval_noticed.html", {"preview": counted, "card": card})


@require_http_methods(["GET", "POST"])
@permission_required(VIEW, raise_exception=True)
def mode(request: HttpRequest) -> HttpResponse:
    """Show the form that asks to turn four eyes on or off, and ask when it is posted. Raise
    PermissionDenied without the permission.
    """
    require(request, four_eyes.check_may_ask, four_eyes.PERMISSION)
    form = ModeForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            made = four_eyes.ask(given["on"], by=person(request), reason=given["reason"])
        except Refused as error:
            form.add_error(None, str(error))
        else:
            messages.info(request, "Asked. Someone else who may decide it must approve.")
            return redirect("approval", made.pk)
    context = {"page": "approvals", "form": form, "four_eyes": four_eyes.is_on()}
    return render(request, "control/four_eyes.html", context, status=422 if form.errors else 200)


@require_http_methods(["GET", "POST"])
@permission_required(VIEW, raise_exception=True)
def review(request: HttpRequest, number: int) -> HttpResponse:
    """Show a change that was made while nobody could be asked, and close its review when the form
    is posted. Raise PermissionDenied, Http404.
    """
    row = Review.objects.filter(pk=number).first()
    if row is None:
        raise Http404(f"There is no review {number}.")
    user, needed = person(request), gate.permissions_for(row.payload)
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            reviews.close(number, by=user, reason=form.cleaned_data["reason"], permissions=needed)
        except NotAllowed as error:
            raise PermissionDenied(f"{error} {roles.who_can(min(needed))}.") from error
        except Refused as error:
            record_refusal(request, str(error))
            form.add_error(None, str(error))
        else:
            messages.info(request, "The review is closed.")
            return redirect(reverse("approvals"))
    context = {
        "page": "approvals",
        "review": row,
        "form": form,
        "may_close": row.closed_at is None and requested.may_close(user, row),
        "who_can": " ".join(f"{roles.who_can(name)}." for name in sorted(needed)),
        "said": page.said_of(row.payload),
    }
    return render(
        request, "control/approval_review.html", context, status=422 if form.errors else 200
    )


def _found(number: int) -> Request:
    """Return a request. Raise Http404 when no request has this number."""
    try:
        return requests.found(number)
    except Refused as error:
        raise Http404(str(error)) from error
