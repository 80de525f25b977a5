"""Decisions as a file: who may, what was taken, and that it is on record."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from django.contrib.auth.decorators import permission_required
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.views.decorators.http import require_GET

from control import audit
from control.actors import Actor
from decisions import asking, export, listing, lookup
from decisions.looks import note as look
from decisions.lookup import READINGS
from decisions.views import EXPORT, READ, SEE_DIGEST


@require_GET
@permission_required((READ, EXPORT), raise_exception=True)
def lookup_csv(request: HttpRequest) -> HttpResponseBase:
    """What a search finds, all of it, as CSV. The audit log has who took what before the first line leaves."""
    asked, insist = asking.read(request.GET), request.GET.get("as", "")
    if asked.problems or insist not in ("", *READINGS):
        raise BadRequest(" ".join(asked.problems) or f"“as” is one of {', '.join(READINGS)}.")
    reading = lookup.read(request.GET.get("q", "").strip()[:200], insist)
    if reading.kind == "nothing" or (reading.kind == "token" and not request.user.has_perm(SEE_DIGEST)):
        raise BadRequest("There is nothing to export: the search was read as nothing that is known here.")
    now = time.time()
    rows = lookup.rows(reading, asked.filters, now)
    for app in reading.apps:
        look(request, app, "a CSV export")
    record(by=Actor.of(request.user), what=reading.label or "every app", filters=asked.filters, apps=reading.apps)
    name = f"decisions-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(export.lines(rows), content_type="text/csv; charset=utf-8", headers=headers)


def record(*, by: Actor, what: str, filters: lookup.Filters, apps: tuple[str, ...]) -> None:
    """Writes into the audit log that decisions were exported: whose, and by which filters."""
    address = listing.address("", filters).partition("?")[2]
    audit.append(
        by=by, reason="Export from lookup", action="decisions.export", subject=what[:200],
        summary=f"exported decisions of {what[:300]} as CSV", after={"filters": address, "apps": list(apps[:50])},
    )  # fmt: skip
