"""The pages of people and roles: everyone with the access review, and one person."""

from __future__ import annotations

import csv
from io import StringIO

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from console.frame.people import person
from console.frame.permissions import require
from console.pages.people import page
from console.pages.people.forms import ChangeForm, PersonForm, ReviewForm
from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from control.people import accounts, grants, review


@require_http_methods(["GET", "POST"])
@permission_required(grants.VIEW, raise_exception=True)
def people(request: HttpRequest) -> HttpResponse:
    """Show everyone with their roles, and make a person when the form is posted."""
    form = PersonForm()
    if request.method == "POST":
        by = require(request, grants.check_may_manage, grants.MANAGE)
        form = PersonForm(request.POST)
        if form.is_valid():
            try:
                made = accounts.make(by=by, **form.cleaned_data)
            except Refused as error:
                form.add_error(None, str(error))
            else:
                return redirect("person", made.pk)
    context = {"page": "people", "form": form, "everyone": page.people_page()}
    return render(request, "control/people.html", context, status=422 if form.errors else 200)


@require_GET
@permission_required(grants.VIEW, raise_exception=True)
def export(request: HttpRequest) -> HttpResponse:
    """Answer everyone's roles as a CSV file. The audit log keeps who took it."""
    chain.append(
        by=Actor.of(person(request)),
        reason="Exported from the page of people and roles.",
        action="access.export",
        subject=review.SUBJECT,
        summary="exported everyone's roles",
    )
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(page.HEADER)
    writer.writerows(page.export_rows(review.everyone()))
    name = f"sluice-access-{timezone.now():%Y-%m-%d}.csv"
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@require_POST
@permission_required(grants.REVIEW, raise_exception=True)
def reviewed(request: HttpRequest) -> HttpResponse:
    """Record that someone looked through everyone's roles."""
    form = ReviewForm(request.POST)
    said = [str(sentence) for sentence in form.errors.get("reason", ())]
    if not said:
        try:
            entry = review.record(by=person(request), reason=form.cleaned_data["reason"])
            messages.info(request, f"The review is entry {entry.seq} of the audit log.")
        except Refused as error:
            said = [str(error)]
    for sentence in said:
        messages.error(request, sentence)
    return redirect("people")


@require_GET
@permission_required(grants.VIEW, raise_exception=True)
def one(request: HttpRequest, number: int) -> HttpResponse:
    """Show one person. Raise Http404 when there is no such person."""
    return _shown(request, person_or_404(number), ChangeForm())


@require_POST
# The link sets a password, so an error report must not hold it.
@sensitive_variables("link")
@permission_required(grants.MANAGE, raise_exception=True)
def change(request: HttpRequest, number: int) -> HttpResponse:
    """Change one person as the form says. Only the answer to a request for a link shows it."""
    found, form = person_or_404(number), ChangeForm(request.POST)
    if not form.is_valid():
        return _shown(request, found, form, status=422)
    try:
        link = apply(
            person(request),
            found,
            form.cleaned_data["what"],
            form.cleaned_data["role"],
            form.cleaned_data["reason"],
        )
    except Refused as error:
        form.add_error(None, str(error))
        return _shown(request, found, form, status=422)
    if link is not None:
        address = reverse("invitation", args=[link.person, link.token])
        return _shown(request, found, ChangeForm(), link=request.build_absolute_uri(address))
    messages.info(request, "Done. It is in the audit log.")
    return redirect("person", number)


def apply(by: User, found: User, what: str, role: str, reason: str) -> accounts.Invitation | None:
    """Make one change of a person, and return the link if one was asked for. Raise Refused."""
    if what == "give":
        grants.give(by=by, person=found, role=role, reason=reason)
    elif what == "take":
        grants.take(by=by, person=found, role=role, reason=reason)
    elif what == "deactivate":
        accounts.deactivate(by=by, person=found, reason=reason)
    elif what == "activate":
        accounts.activate(by=by, person=found, reason=reason)
    else:
        return accounts.invite(by=by, person=found, reason=reason)
    return None


def person_or_404(number: int) -> User:
    """Return a person by number. Raise Http404 when there is none."""
    # 63 bits, as wide as the column
    found = User.objects.filter(pk=number).first() if number < 1 << 63 else None
    if found is None:
        raise Http404("There is no such person.")
    return found


def _shown(
    request: HttpRequest, found: User, form: ChangeForm, *, status: int = 200, link: str = ""
) -> HttpResponse:
    context = {
        "page": "people",
        "form": form,
        "one": page.person_page(found, person(request)),
        "link": link,
    }
    return render(request, "control/person.html", context, status=status)
