"""How often an app was refused, and why, from the stored decisions."""

from __future__ import annotations

from django.db.models import Count, F, Sum

from decider.contracts.vocabulary import Action
from decisions.counts.estimate import Estimate
from decisions.models import Decision
from decisions.search import lookup

_WEIGHT = 1.0 / F("inclusion_probability")


def count_by_cause(app: str, since: float, until: float) -> dict[tuple[int, int], Estimate]:
    """Return how many of an app's requests were refused from `since` to `until` (unix seconds), by
    action and machine reason. What was only observed was admitted, so it is left out.
    """
    rows = lookup.within(Decision.objects.filter(app=app, observed=False), since, until)
    grouped = (
        rows.exclude(action=Action.ADMIT)
        .values_list("action", "reason")
        .annotate(total=Sum(_WEIGHT), square=Sum(_WEIGHT * _WEIGHT), kept=Count("*"))
    )
    return {
        (action, reason): Estimate(weight, square, kept)
        for action, reason, weight, square, kept in grouped.order_by()
    }
