"""The plan of an app under a config document: its limits and the rules about it.

It reads the document directly. The engine does the same in compiled form (`engine.lists`,
`engine.kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from decider.contracts.config import Config, ListEntry, Override, error_budget_of, in_force
from decider.contracts.normalise.addresses import AddressError, network


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits of one app at a moment."""

    rate: float
    """Requests a second its bucket refills."""
    burst: float
    """Requests its bucket holds."""
    quota_per_day: float
    error_budget: float
    """Expected false throttles it may suffer from ML, as a share of its requests; 1 for no limit.
    """
    override: Override | None
    """The operator override in force for the app; its own goes before its tenant's. None without
    one.
    """


def plan_of(config: Config, *, app: str, tenant: str, tier: int, now: float) -> Plan:
    """Return the plan of an app at `now` (unix seconds); `tenant` is empty when it is unknown."""
    policy, found = config.tiers[tier], override_of(config, app=app, tenant=tenant, now=now)
    times = found.multiplier if found else 1.0
    # An override scales the bucket only. Quota and error budget stay, as in the engine.
    return Plan(
        policy.rate * times,
        policy.burst * times,
        policy.quota_per_day,
        error_budget_of(config, tier),
        found,
    )


def override_of(config: Config, *, app: str, tenant: str, now: float) -> Override | None:
    """Return the override in force at `now` (unix seconds), None when there is none.

    The app's goes before its tenant's, and of several about one subject the last one counts. An
    override of an app that changes nothing does not hide its tenant's, as in `lists.consult`.
    """
    about_app = _last(config.overrides, "app", app, now)
    if about_app is not None and (about_app.action is not None or about_app.multiplier != 1.0):
        return about_app
    return _last(config.overrides, "tenant", tenant, now) or about_app


def lists_of(config: Config, *, app: str, tenant: str, now: float) -> list[ListEntry]:
    """Return the guard rules in force about an app or its tenant at `now` (unix seconds). Rules
    about a source address depend on the request and are not included.
    """
    about = {("app", app), ("tenant", tenant)}
    return [e for e in in_force(config.lists, now) if (e.kind, e.subject) in about]


def lists_about_source(config: Config, source: str, now: float) -> list[ListEntry]:
    """Return the guard rules in force at `now` (unix seconds) about a source, itself or in a
    network. Raise AddressError for a text that is no source.
    """
    about = network(source)
    return [
        e
        for e in in_force(config.lists, now)
        if e.kind == "source" and (listed := _network(e.subject)) is not None
        # one version of IP knows nothing of the other
        if listed.version == about.version and about.subnet_of(listed)  # type: ignore[arg-type]
    ]


def _network(subject: str) -> IPv4Network | IPv6Network | None:
    try:
        return network(subject)
    except AddressError:
        return None  # in an old document


def _last(overrides: list[Override], kind: str, subject: str, now: float) -> Override | None:
    # Reversed, because the one listed last counts, as in `lists.consult`.
    return next(
        (o for o in reversed(in_force(overrides, now)) if o.kind == kind and o.subject == subject),
        None,
    )
