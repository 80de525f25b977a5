"""Exporting decisions as a CSV file, with an entry in the audit log."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET

from console.frame import app_looks
from console.frame.people import person
from console.frame.permissions import EXPORT, READ, SEE_DIGEST
from console.pages.lookup import asked_filters, page, pasted_text
from control.audit import chain
from control.audit.actors import Actor
from decisions.models import Decision
from decisions.search import export, lookup
from decisions.search.filters import Filters
from decisions.search.lookup import READINGS, QueryReading

NOTHING = "There is nothing to export: the search matches nothing here."


@require_GET
@permission_required((READ, EXPORT), raise_exception=True)
def lookup_csv(request: HttpRequest) -> HttpResponseBase:
    """Stream everything that a search finds as CSV.

    Before the first line is sent, the audit log records who exported what. Raise BadRequest for
    filters that cannot be read, and for a search text that was not understood.
    """
    asked, insist = asked_filters.read_filters(request.GET), request.GET.get("as", "")
    if asked.problems or insist not in ("", *READINGS):
        raise BadRequest(" ".join(asked.problems) or f"“as” must be one of {', '.join(READINGS)}.")
    found = pasted_text.read_in_address(request.GET.get("q", ""), insist, with_token=False)
    if found.withheld:
        raise BadRequest(pasted_text.IN_ADDRESS)
    reading = found.reading
    if reading.kind == "nothing" or (
        reading.kind == "token" and not request.user.has_perm(SEE_DIGEST)
    ):
        raise BadRequest(NOTHING)
    now = time.time()
    rows = lookup.rows(reading, asked.filters, now)
    app_looks.note_apps(request, apps_of(reading, rows), "a CSV export")
    record_export(
        by=Actor.of(person(request)),
        what=reading.label or "every app",
        filters=asked.filters,
        apps=reading.apps,
    )
    # In UTC and without a colon, so that the name is valid on every file system.
    name = f"decisions-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingHttpResponse(
        export.lines(rows), content_type="text/csv; charset=utf-8", headers=headers
    )


def apps_of(reading: QueryReading, rows: QuerySet[Decision]) -> tuple[str, ...]:
    """Return the apps whose decisions an export holds, for the data-access log."""
    # A single id has few rows, so its apps are listed. Other searches would have to be read twice.
    if reading.kind in ("request", "decision"):
        return tuple(rows.order_by("app").values_list("app", flat=True).distinct())
    return reading.apps or (app_looks.EVERY_APP,)


def record_export(*, by: Actor, what: str, filters: Filters, apps: tuple[str, ...]) -> None:
    """Record in the audit log which apps' decisions were exported, and with which filters."""
    address = page.lookup_address("", filters).partition("?")[2]
    chain.append(
        by=by,
        reason="Export from lookup",
        action="decisions.export",
        # A label may have any length; the columns of the audit log have a limit.
        subject=what[:200],
        summary=f"exported decisions of {what[:300]} as CSV",
        after={"filters": address, "apps": list(apps)},
    )
