"""The page of an app: its gauges, notes and looks, and the form that fills one of its buckets."""

from __future__ import annotations

import time

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from console.display import format as fmt
from console.frame import app_looks
from console.frame.fragments import htmx_details, redirect_to
from console.frame.people import person
from console.frame.permissions import READ, require
from console.pages.app import gauges as app_gauges
from console.pages.app import page as app_page
from control.audit import app_looks as control_looks
from control.audit import look_months
from control.audit.actors import Actor
from control.config import documents
from control.deciders import buckets
from control.deciders.buckets import BucketKind, Node, Peek
from control.directory import apps as directory
from control.directory import notes
from control.errors import ControlError, Refused
from control.policies.effective import Subject
from decisions.outcomes import reports

# Shown on the page, latest first. Chosen: what fits beside the disputes without scrolling.
OUTCOMES = 8


@require_GET
@permission_required(READ, raise_exception=True)
def page(request: HttpRequest, app_id: str) -> HttpResponse:
    """Show whether this app is well. An app that nobody registered has a page, too."""
    shown, later = (
        app_page.app_page(person(request), app_id),
        list(reports.of_app(app_id, OUTCOMES)),
    )
    app_looks.note_known(
        request, app_id, "the page", shown=bool(later or shown.notes or shown.gauges.tiles)
    )
    context = {"page": "lookup", "p": shown, "outcomes": later}
    return render(request, "decisions/app.html", context)


@require_GET
@permission_required(READ, raise_exception=True)
def gauges(request: HttpRequest, app_id: str) -> HttpResponse:
    """Show the panel of buckets, which refreshes itself."""
    return render(request, "decisions/app_gauges.html", {"g": _gauges(request, app_id)})


def _gauges(request: HttpRequest, app_id: str) -> app_gauges.Gauges:
    """Read the buckets, and note the look at them."""
    found = app_gauges.read_gauges(person(request), app_id, _subject(app_id), documents.newest())
    app_looks.note_known(request, app_id, "the buckets", shown=bool(found.tiles))
    return found


def _subject(app_id: str) -> Subject:
    """Return the app, tenant and tier by which the policy of an app is found."""
    known = directory.app(app_id) if "\x00" not in app_id else None
    return (
        Subject(app_id, known.tenant, known.tenant_name, known.tier)
        if known
        else Subject(app_id, "", "", None)
    )


@require_POST
@permission_required((READ, notes.PERMISSION), raise_exception=True)
def add_note(request: HttpRequest, app_id: str) -> HttpResponse:
    """Keep a note and go back to the page."""
    try:
        notes.add(by=Actor.of(person(request)), app=app_id, text=request.POST.get("text", ""))
    except Refused as error:
        messages.error(request, str(error))
    return redirect(reverse("app", args=[app_id]) + "#notes")


@require_GET
@permission_required(control_looks.PERMISSION, raise_exception=True)
def looked(request: HttpRequest, app_id: str) -> HttpResponse:
    """Show who looked at this app's data, and which months of looks were dropped and when."""
    name = directory.names([app_id])[app_id] if "\x00" not in app_id else app_id
    context = {
        "page": "lookup",
        "id": app_id,
        "name": name,
        "looks": control_looks.latest_looks(app_id),
        "dropped": look_months.dropped(),
        "keep_days": settings.SLUICE_KEEP_LOOKS_DAYS,
    }
    return render(request, "decisions/looks.html", context)


@require_http_methods(["GET", "POST"])
@vary_on_headers("HX-Request")
@permission_required(READ, raise_exception=True)
def reset(request: HttpRequest, app_id: str, bucket: str) -> HttpResponse:
    """Show the form that asks before a bucket is filled, and have it filled when it is posted.

    The form is a sheet for htmx, and a page without script. Raise PermissionDenied without the
    permission, Http404 for a bucket that does not exist.
    """
    kind, error = _kind(request, bucket), ""
    reason = request.POST.get("reason", "")
    if request.method == "POST":
        try:
            _tell(
                request,
                kind,
                buckets.reset(kind.name, app=app_id, by=Actor.of(person(request)), reason=reason),
            )
        except ControlError as refused:
            error = str(refused)
        else:
            there = reverse("app", args=[app_id])
            return redirect_to(request, there)
    context = {
        "page": "lookup",
        "kind": kind,
        "g": _gauges(request, app_id),
        "reason": reason,
        "error": error,
        "at": time.time(),
    }
    template = "decisions/reset_sheet.html" if htmx_details(request) else "decisions/reset.html"
    return render(request, template, context, status=422 if error else 200)


def _kind(request: HttpRequest, bucket: str) -> BucketKind:
    """Return the bucket of the address. Raise PermissionDenied, and Http404 for an unknown one."""
    require(request, buckets.check_may_reset, buckets.PERMISSION)
    try:
        return buckets.kind(bucket)
    except Refused as error:
        raise Http404(str(error)) from error


def _tell(request: HttpRequest, kind: BucketKind, found: Peek) -> None:
    """Add what each decider did as messages of the next page."""
    if not found.done:
        messages.warning(request, f"{kind.label}: no decider filled it.")
    for node in found.nodes:
        level = messages.INFO if node.answer is not None and node.answer.done else messages.WARNING
        messages.add_message(request, level, f"{node.name}: {_said(kind, node)}.")


def _said(kind: BucketKind, node: Node) -> str:
    """Say in a clause what a decider did."""
    answer = node.answer
    if answer is None:
        return "did not answer, so it is not known whether it filled the bucket"
    if not answer.done or answer.view is None or answer.before is None:
        return answer.error or "filled nothing"
    if kind.name == "burst":
        return (
            f"filled the burst bucket, {fmt.whole_left(answer.before.tokens)} to"
            f" {fmt.whole_left(answer.view.tokens)} tokens"
        )
    if not answer.view.spending:
        return "its tier has no false-throttle budget, so there was nothing to forget"
    before, after = (
        fmt.number(answer.before.errors_left, 2),
        fmt.number(answer.view.errors_left, 2),
    )
    return f"forgot what was spent of the false-throttle budget, {before} to {after} left"
