"""Who would notice a change that is asked for: the last hour's decisions, decided again."""

from __future__ import annotations

import time

from django.http import HttpRequest

from console.frame import app_looks
from console.pages.switches.flip_preview import preview_for
from control.approvals.models import Request
from control.config import changes, parts, requested
from decisions import preview

# Sections of the config document whose rules a stored decision can be decided again under. Routes,
# capacities, weights and what unknown apps may do are not in it; nor is another model's score.
_COUNTED = frozenset({"tiers", "overrides", "lists"})


def is_counted(row: Request) -> bool:
    """Return whether a preview can say who would notice a request's change."""
    paths = [found.path for found in requested.parts_of(row)]
    if paths == [("switches", "all_ml")]:
        return True
    # an address is not kept with a decision, so rules about addresses cannot be tried on it
    by_address = any(path[0] == "lists" and " source " in path[-1] for path in paths)
    return not by_address and all(path[0] in _COUNTED for path in paths)


def seen(request: HttpRequest, row: Request) -> preview.Preview:
    """Return the preview of a request's change, and note the looks at the apps of its examples.
    Raise Overtaken, Refused for a change that does not fit the document any more.
    """
    found = requested.parts_of(row)
    if found[0].path[0] == "switches":
        return preview_for(request, "clear")
    before = changes.current()
    after = parts.patch(before, found, time.time())
    counted = preview.preview_change(before, after, preview.live_model(before.model))
    apps = (example.app for example in counted.examples if example.app)
    app_looks.note_apps(request, apps, f"an example of what request {row.pk} would change")
    return counted
