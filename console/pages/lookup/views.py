"""The lookup page and its live tail."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods
from django_htmx.http import HttpResponseClientRedirect, push_url

from console.frame import app_looks
from console.frame.fragments import htmx_details, redirect_to
from console.frame.people import person
from console.frame.permissions import EXPORT, READ, SEE_DIGEST
from console.pages.lookup import asked_filters, live_tail, page, pasted_text, saved_searches
from console.pages.lookup.asked_filters import Asked
from decider.contracts.ids import format_decision_id
from decisions.search import lookup
from decisions.search.filters import Filters
from decisions.search.lookup import READINGS, QueryReading

# What the data-access log says was looked at in a search. The tail uses the same text, so that rows
# which it adds are not another look at the same app.
LOOK = "lookup results"


@sensitive_post_parameters("q")
@require_http_methods(["GET", "HEAD", "POST"])
@permission_required(READ, raise_exception=True)
def lookup_page(request: HttpRequest) -> HttpResponse:
    """Find decisions by what was typed. htmx gets the results alone.

    A posted text that was understood becomes part of an address. Any other text could be a
    credential, so no address repeats it.
    """
    given = request.POST if request.method == "POST" else request.GET
    insist = given.get("as", "")
    asked = asked_filters.read_filters(given)
    if insist not in ("", *READINGS):
        problems = (
            *asked.problems,
            f"“as” must be one of {', '.join(READINGS)}, so it was ignored.",
        )
        asked, insist = replace(asked, problems=problems), ""
    if request.method == "POST":
        return _posted(request, given, asked, insist)
    found = _in_address(request, insist)
    return (
        _withheld(request, found, asked)
        if found.withheld
        else _page(request, _seen_by(request, found.reading), asked, insist)
    )


def _in_address(request: HttpRequest, insist: str) -> pasted_text.PastedText:
    """Read the text of the address; a credential or a receipt in it is withheld."""
    return pasted_text.read_in_address(
        request.GET.get("q", ""), insist, with_token=request.user.has_perm(SEE_DIGEST)
    )


def _withheld(request: HttpRequest, found: pasted_text.PastedText, asked: Asked) -> HttpResponse:
    """Redirect to an address without the credential of this one, so that nothing repeats it."""
    if htmx_details(request) and not found.elsewhere:
        return push_url(
            _page(request, found.reading, asked, ""),
            page.lookup_address(found.reading.text, asked.filters),
        )
    if found.reading.hint:
        messages.error(
            request,
            f"{found.reading.hint} It stood in an address: whoever can read logs has it, so have it"
            " replaced.",
        )
    there = found.elsewhere or page.lookup_address(found.reading.text, asked.filters)
    return redirect_to(request, there)


def _posted(request: HttpRequest, given: QueryDict, asked: Asked, insist: str) -> HttpResponse:
    """Answer a typed or pasted text; leave no trace of a text that was not understood."""
    found = pasted_text.read_pasted(
        given.get("q", ""), insist, with_token=request.user.has_perm(SEE_DIGEST)
    )
    if found.elsewhere:
        return (
            HttpResponseClientRedirect(found.elsewhere)
            if htmx_details(request)
            else redirect(found.elsewhere)
        )
    # also for a decision that is not stored: its page says why
    if found.reading.decision is not None:
        there = reverse("decision", args=[format_decision_id(found.reading.decision.bytes)])
        return redirect_to(request, there)
    address = page.lookup_address(found.reading.text, asked.filters, insist=insist)
    if found.reading.kind == "nothing":
        return _page(request, found.reading, asked, insist)
    if not htmx_details(request):
        return redirect(address)
    return push_url(_page(request, found.reading, asked, insist), address)


def _seen_by(request: HttpRequest, reading: QueryReading) -> QueryReading:
    """Return the reading as this person may see it: a token's digest is not for every role."""
    if reading.kind == "token" and not request.user.has_perm(SEE_DIGEST):
        return QueryReading("nothing", "", hint=pasted_text.NOT_YOURS)
    return reading


def _page(request: HttpRequest, reading: QueryReading, asked: Asked, insist: str) -> HttpResponse:
    """Render the results; status 422 when filters could not be read."""
    # When the reader goes back in history, htmx may ask for a page again, and needs all of it.
    whole = not htmx_details(request) or htmx_details(request).history_restore_request
    status = 422 if asked.problems else 200
    template = "decisions/lookup.html" if whole else "decisions/found.html"
    response = render(request, template, _context(request, reading, asked, insist), status=status)
    # A cache must not give the results alone to someone who opens the page.
    patch_vary_headers(response, ["HX-Request"])
    return response


def _context(
    request: HttpRequest, reading: QueryReading, asked: Asked, insist: str
) -> dict[str, object]:
    """Return the template variables of the page, and note the looks at the apps it shows."""
    now, filters = time.time(), asked.filters
    found = page.search_results(reading, filters, now, before=asked.before, insist=insist)
    app_looks.note_apps(request, found.shown_apps, LOOK)
    # No new rows can come to an older page, a past time range or a search for single ids.
    may_live = asked.before is None and found.counted and filters.start is None
    here = page.lookup_address(reading.text, filters, insist=insist)
    return {
        "page": "lookup",
        "found": found,
        "text": reading.text,
        "insist": insist,
        "before": asked.before,
        "problems": asked.problems,
        "may_live": may_live,
        "live": may_live and request.GET.get("live") == "1",
        "tail_href": live_tail.tail_address(reading.text, filters, insist, found.newest, now),
        "ranges": _ranges(reading, filters, insist),
        "filled": filters.query(),
        "here": here,
        "query": here.partition("?")[2],
        "clear": page.lookup_address(reading.text, Filters("all"), insist=insist),
        "csv_href": page.lookup_address(reading.text, filters, insist=insist, page="lookup-csv"),
        "may_export": request.user.has_perm(EXPORT),
        "saved": saved_searches.visible_searches(person(request)),
        "kept_how_often": page.kept_how_often(),
        "at": now,
    }


def _ranges(reading: QueryReading, filters: Filters, insist: str) -> list[tuple[str, str, bool]]:
    """Return the time ranges to choose from: words, address, and whether it is in force."""
    own = filters.start is not None
    return [
        (
            words,
            page.lookup_address(
                reading.text, replace(filters, range=key, start=None, end=None), insist=insist
            ),
            key == filters.range and not own,
        )
        for key, words in lookup.SHORT_RANGES.items()
    ]


@require_GET
@permission_required(READ, raise_exception=True)
def lookup_tail(request: HttpRequest) -> HttpResponse:
    """Show what was stored since the newest row on the page; with `hold`, only how many wait.

    Raise BadRequest for an address that the page did not make.
    """
    asked, insist = asked_filters.read_filters(request.GET), request.GET.get("as", "")
    try:
        after = uuid.UUID(request.GET.get("after", ""))
    except ValueError as error:
        raise BadRequest("“after” must be the UUID of a decision.") from error
    if asked.problems or insist not in ("", *READINGS):
        raise BadRequest(" ".join(asked.problems) or f"“as” must be one of {', '.join(READINGS)}.")
    reading = _seen_by(request, _in_address(request, insist).reading)
    hold = request.GET.get("hold") == "1"
    found = live_tail.newer_decisions(reading, asked.filters, after, time.time(), hold=hold)
    app_looks.note_rows(request, (row.decision for row in found.rows), LOOK)
    href = live_tail.tail_address(reading.text, asked.filters, insist, found.newest, found.at)
    return render(
        request, "decisions/tail.html", {"found": found, "tail_href": href, "at": found.at}
    )
