"""Who an app is. An app that nobody registered is known by its id alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Case, IntegerField, Q, QuerySet, When

from control.models import App, Tenant
from decider.contracts.store import Profile


@dataclass(frozen=True, slots=True)
class KnownApp:
    """An app's profile, as people keep it."""

    id: str
    name: str
    tenant: str
    tenant_name: str
    tier: int
    created_at: datetime
    verified: bool
    abuse_history: int
    chargeback_history: int
    false_throttle_history: int
    cohort_prior: float = 0.05
    """Share of abusive apps among those like it, 0 to 1."""


def _known(row: App) -> KnownApp:
    return KnownApp(
        row.id,
        row.name or row.id,
        row.tenant_id,
        row.tenant.name,
        row.tier,
        row.created_at,
        row.verified,
        row.abuse_history,
        row.chargeback_history,
        row.false_throttle_history,
        row.cohort_prior,
    )


def _rows() -> QuerySet[App]:
    return App.objects.select_related("tenant")


def app(app_id: str) -> KnownApp | None:
    """Return the app with exactly this id; None when nobody registered it."""
    return next((_known(row) for row in _rows().filter(pk=app_id)), None)


def is_registered(app_id: str) -> bool:
    """Return whether somebody registered an app with exactly this id."""
    # PostgreSQL raises for a NUL in a text, and this id may come from a request
    return bool(app_id) and "\x00" not in app_id and App.objects.filter(pk=app_id).exists()


def profiles(app_ids: Iterable[str]) -> list[Profile]:
    """Return the profiles of these apps as deciders get them, of registered apps alone."""
    return [row.profile for row in App.objects.filter(pk__in=set(app_ids))]


def names(app_ids: Iterable[str]) -> dict[str, str]:
    """Return the names of these apps; an unknown app has its id for a name."""
    wanted = set(app_ids)
    known = {
        row.id: row.name or row.id for row in App.objects.filter(pk__in=wanted).only("id", "name")
    }
    return {app_id: known.get(app_id, app_id) for app_id in wanted}


def labels(app_ids: Sequence[str]) -> dict[str, str]:
    """Return labels that tell these apps apart, by app id. A label is the app's name, with the
    tenant where several apps share the name, or with the id where they share the tenant too.
    """
    rows = App.objects.filter(pk__in=set(app_ids)).select_related("tenant")
    known = {row.id: (row.name or row.id, row.tenant.name) for row in rows}
    by_name, by_both = Counter(name for name, _ in known.values()), Counter(known.values())

    def label(app_id: str) -> str:
        if app_id not in known:
            return app_id
        name, tenant = known[app_id]
        if by_name[name] == 1:
            return name
        return f"{name}, {tenant}" if by_both[name, tenant] == 1 else f"{name}, {app_id}"

    return {app_id: label(app_id) for app_id in app_ids}


# How many apps a name may find at once; a tenant's name finds all of its apps. Chosen: one query
# takes this many ids easily, and nobody looks through more.
MOST_NAMED = 500


@dataclass(frozen=True, slots=True)
class Named:
    """Apps found by a name."""

    apps: tuple[KnownApp, ...]
    """Exact names first; at most as many as were asked for, unless they are a tenant's."""
    total: int
    """How many apps the text finds, those beyond the limit included."""
    tenant: str = ""
    """The tenant's name, when the text names one tenant and these are its apps."""


def named(text: str, limit: int = MOST_NAMED) -> Named:
    """Return the apps whose name or tenant's name contains the text, or whose tenant has the text
    as its id. When some apps have exactly this name, return only those.
    """
    everywhere = Q(name__icontains=text) | Q(tenant__name__icontains=text) | Q(tenant_id=text)
    # exact names first, so that a cut at `limit` never loses the app that was named
    exact = Case(When(name__iexact=text, then=0), default=1, output_field=IntegerField())
    rows = _rows().filter(everywhere).order_by(exact, "name", "id")
    found, total = [_known(row) for row in rows[:limit]], rows.count()
    if same := [a for a in found if text.casefold() == a.name.casefold()]:
        return Named(tuple(same), rows.filter(name__iexact=text).count())
    # fetching two is enough to see that there is more than one tenant
    tenants = dict(rows.order_by().values_list("tenant_id", "tenant__name").distinct()[:2])
    if total > 1 and len(tenants) == 1:
        (tenant_id, name), *_ = tenants.items()
        if text == tenant_id or text.casefold() in name.casefold():
            return Named(tuple(_known(row) for row in rows), total, name)
    return Named(tuple(found), total)


def tenants() -> list[tuple[str, str]]:
    """Return id and name of every tenant."""
    return list(Tenant.objects.values_list("id", "name"))


def tenant_count() -> int:
    """Return how many tenants there are."""
    return Tenant.objects.count()


def trusted_tenants(tier: int) -> dict[str, list[str]]:
    """Return the apps of tenants that have only apps of this tier, all verified and without a mark
    against them; the tenants that are least likely to have an abuser come first.
    """
    found: dict[str, list[str]] = {}
    plain = Q(tier=tier, verified=True, abuse_history=0, chargeback_history=0)
    others = App.objects.exclude(plain).values("tenant_id")
    rows = App.objects.filter(plain).exclude(tenant_id__in=others)
    for app_id, tenant_id in rows.order_by("cohort_prior", "id").values_list("id", "tenant_id"):
        found.setdefault(tenant_id, []).append(app_id)
    return found
