"""What the page of an app shows."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import F, Q, Sum

from decider.vocabulary import Action

from . import aggregate, charts, directory, listing, lookup
from .directory import KnownApp
from .lookup import DAY_S
from .models import Decision

BUCKET_S = 1_800.0
LATEST = 15


@dataclass(frozen=True, slots=True)
class AppPage:
    """An app and the last day of decisions about it."""

    id: str
    name: str
    known: KnownApp | None
    latest: tuple[listing.Row, ...]
    count: float
    """Decisions of the last 24 h, estimated."""
    refused: float
    kept: int
    mix: tuple[tuple[Action, float, float], ...]
    """Action, estimated count, share of all."""
    endpoints: tuple[tuple[str, str, float, float], ...]
    """Method and endpoint, service, estimated count, share admitted; the busiest of the newest kept decisions."""
    chart: charts.Columns | None
    all_href: str

    @property
    def refused_share(self) -> float:
        return self.refused / self.count if self.count else 0.0


def compose(app_id: str, now: float) -> AppPage:
    """Reads everything the page shows."""
    known = directory.app(app_id) if "\x00" not in app_id else None
    rows = Decision.objects.filter(app=app_id.replace("\x00", "\ufffd"))
    since = (now - DAY_S) // BUCKET_S * BUCKET_S + BUCKET_S
    cells = aggregate.cells(lookup.within(rows, since), since, BUCKET_S)
    counts = aggregate.totals(cells, lambda c: c.action)
    total = sum(counts.values())
    refused = [c for c in cells if c.action != Action.ADMIT]
    latest, _ = lookup.page(rows.order_by("-id"), size=LATEST)
    return AppPage(
        id=app_id,
        name=known.name if known else app_id,
        known=known,
        latest=tuple(listing.rows_of(latest)),
        count=total,
        refused=sum(c.count for c in refused),
        kept=sum(c.kept for c in cells),
        mix=tuple((a, counts.get(a, 0.0), counts.get(a, 0.0) / total) for a in Action) if total else (),
        endpoints=_endpoints(rows, since),
        chart=charts.columns(refused, since, BUCKET_S, int(DAY_S / BUCKET_S), floor=136, height=100) if refused else None,
        all_href=listing.address(app_id, lookup.Filters(range="24h"), insist="app" if known else ""),
    )


def _endpoints(rows, since: float, most: int = 8) -> tuple[tuple[str, str, float, float], ...]:
    weight = 1.0 / F("inclusion_probability")
    grouped = lookup.within(rows, since).values("method", "endpoint", "service")
    counted = grouped.annotate(n=Sum(weight), admitted=Sum(weight, filter=Q(action=int(Action.ADMIT)))).order_by("-n")[:most]
    return tuple((f"{r['method']} {r['endpoint']}", r["service"], r["n"], (r["admitted"] or 0.0) / r["n"]) for r in counted)
