"""Decisions as a file: who may, what was taken, and that it is on record."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET

from console.frame import app_looks
from console.frame.permissions import EXPORT, READ, SEE_DIGEST
from console.pages.lookup import page, pasted, query
from control.audit import chain
from control.audit.actors import Actor
from decisions.models import Decision
from decisions.search import export, lookup
from decisions.search.lookup import READINGS, QueryReading

NOTHING = "There is nothing to export: the search was read as nothing that is known here."


@require_GET
@permission_required((READ, EXPORT), raise_exception=True)
def lookup_csv(request: HttpRequest) -> HttpResponseBase:
    """What a search finds, all of it, as CSV. The audit log has who took what before the first line
    leaves.
    """
    asked, insist = query.read(request.GET), request.GET.get("as", "")
    if asked.problems or insist not in ("", *READINGS):
        raise BadRequest(" ".join(asked.problems) or f"“as” is one of {', '.join(READINGS)}.")
    found = pasted.in_address(request.GET.get("q", ""), insist, with_token=False)
    if found.withheld:
        raise BadRequest(pasted.IN_ADDRESS)
    reading = found.reading
    if reading.kind == "nothing" or (
        reading.kind == "token" and not request.user.has_perm(SEE_DIGEST)
    ):
        raise BadRequest(NOTHING)
    now = time.time()
    rows = lookup.rows(reading, asked.filters, now)
    app_looks.note_apps(request, apps_of(reading, rows), "a CSV export")
    record(
        by=Actor.of(request.user),
        what=reading.label or "every app",
        filters=asked.filters,
        apps=reading.apps,
    )
    name = f"decisions-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(
        export.lines(rows), content_type="text/csv; charset=utf-8", headers=headers
    )


def apps_of(reading: QueryReading, rows: QuerySet[Decision]) -> tuple[str, ...]:
    """Whose decisions an export holds, as it is written into the log of looks."""
    if reading.kind in ("request", "decision"):
        return tuple(rows.order_by("app").values_list("app", flat=True).distinct())
    return reading.apps or (app_looks.EVERY_APP,)


def record(*, by: Actor, what: str, filters: lookup.Filters, apps: tuple[str, ...]) -> None:
    """Writes into the audit log that decisions were exported: whose, and by which filters."""
    address = page.address("", filters).partition("?")[2]
    chain.append(
        by=by,
        reason="Export from lookup",
        action="decisions.export",
        subject=what[:200],
        summary=f"exported decisions of {what[:300]} as CSV",
        after={"filters": address, "apps": list(apps)},
    )
