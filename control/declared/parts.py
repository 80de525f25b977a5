"""An installation as parts that a file can own: a service, a tier's plan, a tenant, a rule.

The same parts are read from a file and from what is in force, in the same normal form, so that
comparing, taking over and writing down are each one short function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import UNSET, Struct, structs

from control.declared.form import (
    Declaration,
    Endpoint,
    Entry,
    Gateway,
    Lists,
    Plan,
    Retention,
    Sampling,
    Service,
    Tenant,
    UnknownApps,
)
from decider.contracts import config as document
from decider.contracts import defaults
from decider.contracts.config import Config, EndpointPolicy, ListEntry, TenantPolicy, TierPolicy
from decider.contracts.vocabulary import Tier

Part = tuple[str, ...]
"""Name of a part: ("services", "orders"), ("sampling",), ("lists", "block", "app", "app_1")."""
Parts = dict[Part, Struct]
Verdict = Literal["allow", "block", "compliance"]
VERDICTS: tuple[Verdict, ...] = ("allow", "block", "compliance")
# Parts that are always there: a file that no longer names one leaves it as it is.
LASTING = frozenset({"tiers", "unknown_apps", "sampling", "retention"})


class Stored(Struct, frozen=True, kw_only=True):
    """What an installation keeps outside its config document."""

    tenants: dict[str, str] = {}
    """Name by id of tenant."""
    gateways: dict[str, str] = {}
    """Kind by name of gateway."""
    keep_days: int | None = None
    """Days that decisions are kept; None: as the settings say."""


def parts_of(declared: Declaration) -> Parts:
    """Return the parts that a declaration names, in its order."""
    found: Parts = {}
    for name, gateway in (declared.gateways or {}).items():
        found["gateways", name] = gateway
    for name, service in (declared.services or {}).items():
        found["services", name] = service
    for tier, plan in (declared.tiers or {}).items():
        found["tiers", tier] = _normal_plan(plan, Tier[tier.upper()])
    for tenant, of in (declared.tenants or {}).items():
        found["tenants", tenant] = of
    if declared.unknown_apps:
        found[("unknown_apps",)] = declared.unknown_apps
    if declared.lists:
        for verdict in VERDICTS:
            for entry in getattr(declared.lists, verdict):
                kind = next(k for k in structs.asdict(entry) if getattr(entry, k) is not UNSET)
                found["lists", verdict, kind, getattr(entry, kind)] = entry
    if declared.sampling:
        found[("sampling",)] = declared.sampling
    if declared.retention:
        found[("retention",)] = declared.retention
    return found


def _normal_plan(plan: Plan, tier: Tier) -> Plan:
    """Return a plan without the fields that have the default of its tier."""
    usual = _plan_of(defaults.TIERS[tier])
    return structs.replace(
        plan,
        **{
            name: UNSET
            for name in _OPTIONAL
            if getattr(plan, name) is not UNSET and getattr(plan, name) == getattr(usual, name)
        },
    )


_REQUIRED = ("rate", "burst", "quota_per_day")
_OPTIONAL = tuple(name for name in Plan.__struct_fields__ if name not in _REQUIRED)


def _plan_of(policy: TierPolicy) -> Plan:
    own = {name: getattr(policy, name) for name in _OPTIONAL}
    return structs.replace(
        Plan(rate=policy.rate, burst=policy.burst, quota_per_day=policy.quota_per_day),
        **{name: UNSET if value is None else value for name, value in own.items()},
    )


def parts_in_force(config: Config, stored: Stored) -> Parts:
    """Return every part of an installation, in the order in which it is written down."""
    found: Parts = {}
    for name, kind in stored.gateways.items():
        found["gateways", name] = Gateway(kind=kind)  # type: ignore[arg-type]  # checked when stored
    for service in config.services:
        found["services", service.name] = _service(service)
    for tier, policy in zip(Tier, config.tiers, strict=True):
        found["tiers", tier.word] = _normal_plan(_plan_of(policy), tier)
    weights = {policy.tenant: policy.weight for policy in config.tenants}
    for tenant in sorted({*stored.tenants, *weights}):
        name, weight = stored.tenants.get(tenant, tenant), weights.get(tenant, 1.0)
        found["tenants", tenant] = Tenant(name=name, weight=weight)
    unknown = config.unknown_apps
    found[("unknown_apps",)] = UnknownApps(
        tier=Tier(config.unknown_tier).word,  # type: ignore[arg-type]
        treatment=unknown.treatment,
        rate=unknown.rate,
        burst=unknown.burst,
    )
    for entry in config.lists:
        # an entry with an end is made in the console, and ends there
        if entry.until is None:
            part = ("lists", entry.verdict, entry.kind, entry.subject)
            found[part] = Entry(**{entry.kind: entry.subject})
    found[("sampling",)] = Sampling(**structs.asdict(config.sampling))
    if stored.keep_days is not None:
        found[("retention",)] = Retention(days=stored.keep_days)
    return found


def _service(service: document.Service) -> Service:
    return Service(
        routes=list(service.prefixes),
        capacity=service.capacity,
        latency_ms=service.latency_ms,
        target=service.target,
        endpoints={
            f"{one.method} {one.template}": Endpoint(
                cost=one.cost,
                costs=one.costs,
                batch=one.batch,
                sign_in=UNSET if one.sign_in is None else one.sign_in,
            )
            for one in service.endpoints
        },
    )


def declaration_of(parts: Mapping[Part, Struct]) -> Declaration:
    """Return the declaration that names these parts."""
    held: dict[str, dict[str, Struct]] = {}
    lists: dict[str, list[Entry]] = {}
    for part, value in parts.items():
        if part[0] == "lists":
            assert isinstance(value, Entry)
            lists.setdefault(part[1], []).append(value)
        elif len(part) == 2:
            held.setdefault(part[0], {})[part[1]] = value
    alone = {part[0]: value for part, value in parts.items() if len(part) == 1}
    named = {"lists": Lists(**lists)} if lists else {}
    return Declaration(sluice=1, **held, **alone, **named)  # type: ignore[arg-type]


def with_parts(config: Config, named: Mapping[Part, Struct], gone: Iterable[Part]) -> Config:
    """Return the config document with the parts that a file names, and without those that are
    `gone`. Services and rules keep their order; new ones follow.
    """
    gone = set(gone)
    lists = [
        entry
        for entry in config.lists
        if entry.until is not None
        or ("lists", entry.verdict, entry.kind, entry.subject) not in gone
    ]
    there = {(e.verdict, e.kind, e.subject) for e in lists if e.until is None}
    lists += [
        ListEntry(verdict=part[1], kind=part[2], subject=part[3])  # type: ignore[arg-type]
        for part in named
        if part[0] == "lists" and part[1:] not in there
    ]
    unknown, sampling = named.get(("unknown_apps",)), named.get(("sampling",))
    if isinstance(unknown, UnknownApps):
        config = structs.replace(
            config,
            unknown_tier=int(Tier[unknown.tier.upper()]),
            unknown_apps=document.UnknownApps(unknown.treatment, unknown.rate, unknown.burst),
        )
    if isinstance(sampling, Sampling):
        config = structs.replace(config, sampling=document.Sampling(**structs.asdict(sampling)))
    return structs.replace(
        config,
        services=_services(config, named, gone),
        tiers=[
            _tier(policy, named.get(("tiers", tier.word)), tier)
            for tier, policy in zip(Tier, config.tiers, strict=True)
        ],
        tenants=_tenants(config, named, gone),
        lists=lists,
    )


def _services(
    config: Config, named: Mapping[Part, Struct], gone: set[Part]
) -> list[document.Service]:
    known = [s for s in config.services if ("services", s.name) not in gone]
    there = {service.name for service in known}
    known += [
        document.Service(name=part[1], prefixes=[], capacity=1.0, latency_ms=1.0)
        for part in named
        if part[0] == "services" and part[1] not in there
    ]
    return [_told(service, named.get(("services", service.name))) for service in known]


def _told(service: document.Service, told: Struct | None) -> document.Service:
    if not isinstance(told, Service):
        return service
    return document.Service(
        name=service.name,
        prefixes=list(told.routes),
        capacity=told.capacity,
        latency_ms=told.latency_ms,
        target=told.target,
        endpoints=[_endpoint(request, one) for request, one in told.endpoints.items()],
    )


def _endpoint(request: str, told: Endpoint) -> EndpointPolicy:
    method, _, template = request.partition(" ")
    sign_in = None if told.sign_in is UNSET else told.sign_in
    return EndpointPolicy(method, template, told.cost, told.batch, sign_in, dict(told.costs))


def _tier(policy: TierPolicy, told: Struct | None, tier: Tier) -> TierPolicy:
    if told is None:
        return policy
    usual = defaults.TIERS[tier]
    return structs.replace(
        policy,
        **{
            name: getattr(usual, name) if (value := getattr(told, name)) is UNSET else value
            for name in Plan.__struct_fields__
        },
    )


def _tenants(config: Config, named: Mapping[Part, Struct], gone: set[Part]) -> list[TenantPolicy]:
    weights = {p.tenant: p.weight for p in config.tenants if ("tenants", p.tenant) not in gone}
    for part, value in named.items():
        if isinstance(value, Tenant):
            weights[part[1]] = value.weight
    kept = {policy.tenant for policy in config.tenants}
    # an ordinary weight needs no entry, unless there is one
    return [TenantPolicy(t, w) for t, w in weights.items() if t in kept or w != 1.0]
