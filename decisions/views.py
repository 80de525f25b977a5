"""Lookup."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_http_methods

from decider.vocabulary import Action, Stage, Tier

from . import listing, lookup
from .lookup import RANGES, READINGS, Filters

READ = "decisions.view_decision"
LONGEST_TEXT = 200


@require_http_methods(["GET", "HEAD", "POST"])
@permission_required(READ, raise_exception=True)
def lookup_page(request: HttpRequest) -> HttpResponse:
    """Finds decisions by what was typed. A request by htmx gets the results alone.

    A posted text becomes an address when it was read as something; what was not could be a credential and goes nowhere.
    """
    given = request.POST if request.method == "POST" else request.GET
    text, insist = given.get("q", "").strip()[:LONGEST_TEXT], given.get("as", "")
    if insist not in ("", *READINGS):
        raise BadRequest(f"“as” is one of {', '.join(READINGS)}.")
    filters, before = _filters(given), _cursor(given.get("before", ""))
    reading = lookup.read(text, insist)
    if request.method == "POST" and reading.kind != "nothing":
        return redirect(listing.address(text, filters, insist=insist))
    response = render(request, _template(request), _context(request, reading, filters, before, insist))
    patch_vary_headers(response, ["HX-Request"])
    return response


def _template(request: HttpRequest) -> str:
    if not request.htmx or request.htmx.history_restore_request:
        return "decisions/lookup.html"
    return "decisions/results.html" if request.GET.get("part") == "results" else "decisions/found.html"


def _context(
    request: HttpRequest, reading: lookup.Reading, filters: Filters, before: uuid.UUID | None, insist: str
) -> dict[str, object]:
    now = time.time()
    found = listing.compose(reading, filters, now, before=before, insist=insist)
    text = "" if request.method == "POST" else reading.text
    may_live = before is None and found.counted
    return {
        "page": "lookup",
        "found": found,
        "text": text,
        "insist": insist,
        "before": before,
        "may_live": may_live,
        "live": may_live and request.GET.get("live", "1") != "0",
        "ranges": [
            (words, listing.address(text, replace(filters, range=key), insist=insist), key == filters.range)
            for key, words in lookup.SHORT_RANGES.items()
        ],
        "here": listing.address(text, filters, insist=insist),
        "clear": listing.address(text, Filters("all"), insist=insist),
        "kept_how_often": "" if found.rows else listing.kept_how_often(),
        "at": now,
    }


def _filters(given: QueryDict) -> Filters:
    """Filters from an address; a first visit shows what was not admitted. Raises BadRequest for a value that does not exist."""
    span = given.get("range") or "1h"
    if span not in RANGES:
        raise BadRequest(f"“range” is one of {', '.join(RANGES)}.")
    actions = _chosen(given, "action", {a.word: int(a) for a in Action})
    return Filters(
        range=span,
        actions=actions if "f" in given or actions else listing.REFUSED,
        stages=_chosen(given, "stage", {s.name.lower(): int(s) for s in Stage}),
        tiers=_chosen(given, "tier", {t.word: int(t) for t in Tier}),
        services=frozenset(s[:128] for s in given.getlist("service") if s and "\x00" not in s),
    )


def _chosen(given: QueryDict, name: str, known: Mapping[str, int]) -> frozenset[int]:
    try:
        return frozenset(known[word] for word in given.getlist(name))
    except KeyError as error:
        raise BadRequest(f"“{name}” is one of {', '.join(known)}.") from error


def _cursor(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text) if text else None
    except ValueError as error:
        raise BadRequest("“before” is the id of a decision.") from error
