"""The page about storing: the account of sampled decisions, and those that could not be stored."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from console.frame.people import person
from console.frame.permissions import require
from console.pages.storing.forms import SettleForm
from console.pages.storing.page import Storing, storing_page
from control.audit.actors import Actor
from control.errors import Refused
from decisions.store import buried


@require_http_methods(["GET", "POST"])
@permission_required(buried.SEE, raise_exception=True)
def storing(request: HttpRequest) -> HttpResponse:
    """Show the page; replay or discard buried events when its form is posted. Raise
    PermissionDenied.
    """
    if request.method == "POST":
        require(request, buried.check_may_settle, buried.PERMISSION)
    page = storing_page()
    form = SettleForm(
        request.POST if request.method == "POST" else None, [row.pk for row in page.buried]
    )
    if request.method == "POST" and form.is_valid():
        try:
            messages.info(request, _settle(request, form.cleaned_data))
        except Refused as error:
            form.add_error(None, str(error))
            page = storing_page()
        else:
            return redirect("storing")
    return _shown(request, page, form)


def _settle(request: HttpRequest, given: dict[str, object]) -> str:
    """Replay or discard as the form says, and say what was done. Raise Refused."""
    numbers, by, reason = given["number"], Actor.of(person(request)), str(given["reason"])
    assert isinstance(numbers, list)
    if given["do"] == "discard":
        return f"Discarded: {buried.discard(numbers, by=by, reason=reason):,}."
    done = buried.replay(numbers, by=by, reason=reason)
    rest = f" {done.kept:,} still cannot be stored." if done.kept else ""
    return f"Stored: {done.stored:,}.{rest}"


def _shown(request: HttpRequest, page: Storing, form: SettleForm) -> HttpResponse:
    chosen = {str(n) for n in form["number"].value() or []}
    context = {
        "page": "storing",
        "s": page,
        "form": form,
        "chosen": chosen,
        "may_settle": request.user.has_perm(buried.PERMISSION),
    }
    return render(request, "decisions/storing.html", context, status=422 if form.errors else 200)
