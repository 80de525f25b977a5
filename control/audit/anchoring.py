"""Anchoring as the worker does it: makes the next anchor, sends what is not sent yet to where
SLUICE_AUDIT_ANCHOR_URL says, and keeps how that went for the pages.
"""

from __future__ import annotations

import http.client
import logging
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from control.audit import anchors
from control.errors import ControlError
from control.models import AnchorReport

# Seconds for the receiver to take one anchor. Chosen: one that lives takes milliseconds, and what
# is not sent is sent ten minutes later.
WITHIN_S = 5.0
# Anchors sent in one run. Chosen: a day of them, so that a receiver that was away for long is not
# flooded, and the worker is soon free again.
MOST_SENT = 100
# Characters of a reason, as wide as its column.
MOST_WHY = 300

log = logging.getLogger("sluice.anchors")


def run(now: datetime | None = None) -> AnchorReport:
    """Make the next anchor and send what waits. Return how that went, which is also kept."""
    now = now or datetime.now(UTC)
    report, _ = AnchorReport.objects.get_or_create(pk=1)
    problems = []
    try:
        if (made := anchors.append(now)) is not None:
            log.info("entry %d of the audit log is anchored", made.seq)
        report.anchored_at = now
    except ControlError as error:
        problems.append(str(error))
    try:
        _send(report)
    except (ControlError, ImproperlyConfigured, OSError, http.client.HTTPException) as error:
        problems.append(f"Anchors cannot be sent: {error}")
    report.why = " ".join(problems)[:MOST_WHY]
    report.failing_since = (report.failing_since or now) if problems else None
    for problem in problems:
        log.error("%s", problem)
    report.save()
    return report


def _send(report: AnchorReport) -> None:
    """Send the anchors that were not sent yet, in order, and count them in the report. Raise
    OSError or HTTPException when the receiver does not take one, AnchorError, and
    ImproperlyConfigured.
    """
    report.waiting = 0
    if not settings.SLUICE_AUDIT_ANCHOR_URL:
        return
    place, known = receiver(settings.SLUICE_AUDIT_ANCHOR_URL), anchors.lines()
    # a file that was moved away begins anew
    report.sent = min(report.sent, len(known))
    report.waiting = len(known) - report.sent
    for line in known[report.sent : report.sent + MOST_SENT]:
        _post(place, line)
        report.sent += 1
        report.waiting -= 1


def receiver(url: str) -> SplitResult:
    """Return where anchors are sent. Raise ImproperlyConfigured when it is no address of HTTP."""
    try:
        place = urlsplit(url)
        if place.scheme in {"http", "https"} and place.hostname and (place.port or 1) > 0:
            return place
    except ValueError:
        pass
    raise ImproperlyConfigured(
        "SLUICE_AUDIT_ANCHOR_URL must be an address such as https://anchors.example.org/sluice."
    )


def _post(place: SplitResult, line: bytes) -> None:
    """Send one anchor; a redirect is an answer like any other that is no success."""
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    to = kind(str(place.hostname), place.port, timeout=WITHIN_S)
    try:
        path = (place.path or "/") + (f"?{place.query}" if place.query else "")
        to.request("POST", path, body=line, headers={"content-type": "application/json"})
        status = to.getresponse().status
    finally:
        to.close()
    if not 200 <= status < 300:
        raise OSError(f"the receiver answered {status}")
