"""Weighted counts of stored decisions.

Each row counts for 1 / (its inclusion probability): the Horvitz-Thompson estimator (1952), which is
unbiased for the number of decisions whatever the sampling favours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from django.db.models import Count, F, FloatField, Func, QuerySet, Sum, Value
from django.db.models.functions import Floor

from decisions.counts.estimate import NOTHING, Estimate
from decisions.models import Decision


@dataclass(frozen=True, slots=True)
class Cell:
    """Decisions of one time bucket that agree in action, stage, tier and service."""

    start: float
    """Unix seconds at which the bucket begins."""
    action: int
    stage: int
    tier: int
    service: str
    number: Estimate
    """How many decisions there were."""

    @property
    def count(self) -> float:
        return self.number.count

    @property
    def kept(self) -> int:
        return self.number.kept


K = TypeVar("K")
_W = 1.0 / F("inclusion_probability")
_EPOCH = Func(
    F("at"), template="extract(epoch FROM %(expressions)s)::float8", output_field=FloatField()
)


def cells(rows: QuerySet[Decision], since: float, width: float) -> list[Cell]:
    """Return counts of `rows` by action, stage, tier, service and time bucket. Buckets begin at
    `since` (unix seconds) and last `width` seconds.
    """
    # PostgreSQL groups, so that one row per cell comes back, not one per decision
    bucket = Floor((_EPOCH - Value(since)) / Value(width), output_field=FloatField())
    grouped = rows.annotate(bucket=bucket).values("bucket", "action", "stage", "tier", "service")
    counted = grouped.annotate(count=Sum(_W), square=Sum(_W * _W), kept=Count("*")).order_by()
    numbers = ((r, Estimate(r["count"], r["square"], r["kept"])) for r in counted)
    return [
        Cell(since + r["bucket"] * width, r["action"], r["stage"], r["tier"], r["service"], number)
        for r, number in numbers
    ]


def totals(found: Iterable[Cell], key: Callable[[Cell], K]) -> dict[K, float]:
    """Return the estimated number of decisions for each value of `key(cell)`."""
    out: dict[K, float] = {}
    for cell in found:
        out[key(cell)] = out.get(key(cell), 0.0) + cell.count
    return out


def estimates(found: Iterable[Cell], key: Callable[[Cell], K]) -> dict[K, Estimate]:
    """Return the estimate, with its interval, for each value of `key(cell)`."""
    out: dict[K, Estimate] = {}
    for cell in found:
        out[key(cell)] = out.get(key(cell), NOTHING) + cell.number
    return out


def largest_apps(rows: QuerySet[Decision], most: int = 6) -> list[tuple[str, float]]:
    """Return at most `most` apps, those with the most decisions among `rows`, each with its
    estimated number, largest first.
    """
    # the id breaks ties, so that a page looks the same each time
    grouped = rows.values("app").annotate(count=Sum(_W)).order_by("-count", "app")
    return [(r["app"], r["count"]) for r in grouped[:most]]
