"""The page of outcomes: what was reported lately, and uploading a file of outcomes."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from console.frame import app_looks
from console.frame.people import person
from console.frame.permissions import require
from control.audit import chain
from control.audit.actors import Actor
from control.errors import Refused
from decisions.models.outcome import MOST_WEIGHT, REPORTABLE
from decisions.outcomes import csv_file, report_input, reports, ties
from decisions.outcomes.csv_file import LineProblem

_VIEW = "decisions.view_outcome"
# What the list may be narrowed to.
FILTERS = {"": "All", "unknown": "App unknown"}
# Rows of the list. Chosen: a screen full; the REST list has pages.
LATEST = 25
# Most problems of a file that are shown. Chosen: a wrong column causes one in each line, and fifty
# show that, too.
SHOWN = 50


class UploadForm(forms.Form):
    """The form for a file of outcomes, with a field for where they are from."""

    file = forms.FileField(allow_empty_file=True, error_messages={"required": "Choose a file."})
    reason = forms.CharField(
        max_length=chain.REASON_MAX,
        error_messages={"required": "Say where these outcomes are from."},
    )


@require_http_methods(["GET", "POST"])
@permission_required(_VIEW, raise_exception=True)
def outcomes_page(request: HttpRequest) -> HttpResponse:
    """Show the latest outcomes and those whose app is not known, and store an uploaded file.

    Raise PermissionDenied when the person may not upload, BadRequest for a list that does not
    exist.
    """
    which = request.GET.get("show", "")
    if which not in FILTERS:
        raise BadRequest("“show” must be unknown, or not be there.")
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    problems: tuple[LineProblem, ...] = ()
    if request.method == "POST":
        require(request, reports.check_may_report, reports.PERMISSION)
        if form.is_valid():
            try:
                return _stored(request, form)
            except Refused as error:
                problems = csv_file.problems_of(error)
    bad = bool(problems or form.errors)
    latest = list(reports.latest(tie=which)[:LATEST])
    app_looks.note_apps(request, (one.tie.app for one in latest if one.tie.app), "outcomes")
    context = _context(request, form, problems) | {"latest": latest, **_unknown(which)}
    return render(request, "decisions/outcomes.html", context, status=422 if bad else 200)


def _stored(request: HttpRequest, form: UploadForm) -> HttpResponse:
    """Store an uploaded file and say how many outcomes were new. Raise Refused for a wrong line."""
    file = form.cleaned_data["file"]
    # before it is read, so that the sentence has its true size
    csv_file.check_size(file.size)
    done = csv_file.upload(
        file.read(), by=Actor.of(person(request)), reason=form.cleaned_data["reason"]
    )
    known = f", {done.repeated:,} known already" if done.repeated else ""
    messages.info(
        request, f"{done.stored:,} outcome{'' if done.stored == 1 else 's'} stored{known}."
    )
    return redirect("outcomes")


def _unknown(which: str) -> dict[str, object]:
    """Return the template variables about outcomes whose app is not known."""
    return {
        "which": which,
        "filters": [
            (key, label, f"{reverse('outcomes')}{f'?show={key}' if key else ''}")
            for key, label in FILTERS.items()
        ],
        "reporters": ties.unknown_by_reporter(),
        "unknown": ties.count_unknown(),
        "trying_days": ties.KEEP_TRYING.days,
    }


def _context(
    request: HttpRequest, form: UploadForm, problems: tuple[LineProblem, ...]
) -> dict[str, object]:
    """Return the template variables of the page, except the latest outcomes."""
    return {
        "page": "disputes",
        "form": form,
        "problems": problems[:SHOWN],
        "problem_count": len(problems),
        "may_report": reports.may_report(person(request)),
        "columns": report_input.FIELDS,
        "required": report_input.REQUIRED,
        "kinds": [kind.value for kind in REPORTABLE],
        "most_weight": MOST_WEIGHT,
        "largest": csv_file.LARGEST,
        "most": reports.MOST,
    }
