"""What an app is owed by a config document: the plain reading of what the engine compiles
(`subjects`, `passes`).
"""

from __future__ import annotations

from dataclasses import dataclass

from decider.contracts.config import Config, ListEntry, Override, in_force


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits of one app at a moment."""

    rate: float
    """Requests a second its bucket refills."""
    burst: float
    """Requests its bucket holds."""
    quota_per_day: float
    error_budget_per_hour: float
    override: Override | None
    """The operator override in force about it, its own before its tenant's."""


def plan_of(config: Config, *, app: str, tenant: str, tier: int, now: float) -> Plan:
    """The plan of an app at `now` (unix seconds); `tenant` is empty when nobody knows it."""
    policy, found = config.tiers[tier], override_of(config, app=app, tenant=tenant, now=now)
    times = found.multiplier if found else 1.0
    return Plan(
        policy.rate * times,
        policy.burst * times,
        policy.quota_per_day,
        policy.error_budget_per_hour,
        found,
    )


def override_of(config: Config, *, app: str, tenant: str, now: float) -> Override | None:
    """The override that counts: of several about one subject the one listed last; the app's before
    the tenant's.

    An override of an app that changes nothing does not hide its tenant's, as in `subjects.consult`.
    """
    about_app = _last(config.overrides, "app", app, now)
    if about_app is not None and (about_app.action is not None or about_app.multiplier != 1.0):
        return about_app
    return _last(config.overrides, "tenant", tenant, now) or about_app


def lists_of(config: Config, *, app: str, tenant: str, now: float) -> list[ListEntry]:
    """Guard rules in force about an app or its tenant. Those about a source address depend on the
    request and are not here.
    """
    about = {("app", app), ("tenant", tenant)}
    return [e for e in in_force(config.lists, now) if (e.kind, e.subject) in about]


def _last(overrides: list[Override], kind: str, subject: str, now: float) -> Override | None:
    return next(
        (o for o in reversed(in_force(overrides, now)) if o.kind == kind and o.subject == subject),
        None,
    )
