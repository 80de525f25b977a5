"""Updates of app profiles with facts that were found out later."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction
from django.db.models import Q

from control.deciders import publish
from control.models import App


@transaction.atomic
def tell_found_wrong(found: Mapping[str, int]) -> int:
    """Set how many refusals of each app were found wrong, 0 for apps not in `found`; publish the
    profiles that changed.

    Return how many changed. Skip apps that nobody registered: they have no profile. Raise
    StoreUnavailable; then nothing is stored, and the next call publishes the same again.
    """
    # locked in the order of ids, so that two runs cannot wait for each other
    rows = (
        App.objects.select_for_update()
        .filter(Q(id__in=list(found)) | Q(found_wrong__gt=0))
        .order_by("id")
    )
    changed = [app for app in rows if app.found_wrong != found.get(app.id, 0)]
    for app in changed:
        app.found_wrong = found.get(app.id, 0)
    App.objects.bulk_update(changed, ["found_wrong"])
    # inside the transaction: when Valkey fails, the rows roll back and the next run publishes them
    publish.push_profiles(changed)
    return len(changed)
