"""Pages say here whose data they show; the console writes it into the audit log before the answer leaves.

The log stands above this room, so a page only leaves a note on its request (`note`), and the console's middleware records it.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest

_KEY = "sluice_looks"


def note(request: HttpRequest, app: str, what: str) -> None:
    """Marks that the answer to this request shows data of an app.

    `what` continues "looked at … of app": "the page", "decision dec_…", "lookup results", "a CSV export".
    """
    plain = getattr(request, "_request", request)  # the REST framework wraps Django's request
    plain.__dict__.setdefault(_KEY, []).append((app, what))


def noted(request: HttpRequest) -> Sequence[tuple[str, str]]:
    """What was marked: app and what, each once, in order."""
    return tuple(dict.fromkeys(request.__dict__.get(_KEY, ())))
