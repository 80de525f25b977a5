"""The policy that holds for one app now, line by line: each value, what sets it, and the config
version that set it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from control.models import ConfigVersion
from decider.contracts import config as document
from decider.contracts.config import (
    ALL_ML,
    OBSERVE_ONLY,
    ActionWeights,
    Config,
    ConfigError,
    ListEntry,
    Override,
    Service,
    Switch,
    error_budget_of,
    in_force,
)
from decider.contracts.units import one_in, plan_figure
from decider.contracts.vocabulary import Action, Tier
from decider.whatif.plan import Plan, lists_of, plan_of

# How many config versions are read, newest first, to find the one that set a value. Chosen: months
# of changes, decoded in a fraction of a second and then remembered.
FURTHEST = 500

# Reads what a line's value depends on from a document. The value was set by the oldest document
# since which this reading has not changed.
Reading = Callable[[Config], object]


@dataclass(frozen=True, slots=True)
class Version:
    """The config version that set a value."""

    number: int
    made_at: datetime
    by: str
    exactly: bool
    """False when the value is older than the versions that were read."""


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """One line of the policy."""

    name: str
    value: str
    source: str
    """What sets the value, in words, such as "Standard tier", "Override ovr_1" or "All apps alike".
    """
    kind: str
    """"tier", "tenant", "override", "list", "compliance", "service", "switch", "model", "profile",
    or "all" for a value that every app has.
    """
    version: Version | None
    """None where the value is not part of the config."""
    until: float | None = None
    """When the rule ends by itself, unix seconds; None without an end."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The app whose policy is asked for."""

    app: str
    tenant: str
    """The tenant's id; empty when it is not known."""
    tenant_name: str
    tier: int | None
    """None for an app that nobody registered: the config document says which tier it gets."""
    services: tuple[str, ...] = ()
    """Names of the services that the app uses."""


def lines(config: Config, about: Subject, now: float) -> list[PolicyLine]:
    """Return all lines of an app's policy at `now` (unix seconds), those that overrule others
    first.
    """
    history = _history(config.version)
    return [
        *_switches(config, history, now),
        *_lists(config, about, history, now),
        *_overrides(config, about, history, now),
        *_tier(config, about, history, now),
        *_shares(config, about, history),
        *_services(config, about, history),
        *_alike(config, history),
    ]


def overrides(config: Config, app: str, tenant: str, now: float) -> list[Override]:
    """Return the overrides of an app and of its tenant that have not expired at `now` (unix
    seconds): the app's, then the tenant's, each with the latest first.
    """
    about = {("app", app), ("tenant", tenant)}
    # of two about the same subject the later one counts, as in `plan_of`
    latest_first = [
        o for o in reversed(in_force(config.overrides, now)) if (o.kind, o.subject) in about
    ]
    return sorted(latest_first, key=lambda o: o.kind != "app")


def effect(override: Override) -> str:
    """Return what an override does in words; "nothing" when it changes nothing."""
    stretch = (
        f"{plan_figure(override.multiplier)} times rate and burst"
        if override.multiplier != 1.0
        else ""
    )
    force = f"always {Action(override.action).word}" if override.action is not None else ""
    return ", ".join(part for part in (force, stretch) if part) or "nothing"


def _switches(config: Config, history: _History, now: float) -> Iterable[PolicyLine]:
    words = {
        ALL_ML: ("ML ranking", "Off, fallback limiter"),
        OBSERVE_ONLY: ("Observe only", "Every answer is admit"),
    }
    # an expired switch stays in the document until the next change, but does nothing
    for s in in_force(config.switches, now):
        name, value = words[s.name]
        yield PolicyLine(
            name, value, "Kill switch", "switch", history.set_by(_of_switch(s)), s.until
        )


def _of_switch(switch: Switch) -> Reading:
    return lambda c: next((s for s in c.switches if s.name == switch.name), None)


def _lists(config: Config, about: Subject, history: _History, now: float) -> Iterable[PolicyLine]:
    verdicts = {
        "compliance": ("Compliance", "Every request is blocked"),
        "block": ("Block list", "Every request is blocked"),
    }
    # compliance before block before allow: the order in which a decider obeys them
    found = sorted(
        lists_of(config, app=about.app, tenant=about.tenant, now=now),
        key=lambda e: e.verdict,
        reverse=True,
    )
    for e in sorted(found, key=lambda e: ("compliance", "block", "allow").index(e.verdict)):
        name, value = verdicts.get(
            e.verdict, ("Allow list", "Every request is admitted, up to the daily quota")
        )
        whose = "Its tenant is listed" if e.kind == "tenant" else "The app is listed"
        kind = "compliance" if e.verdict == "compliance" else "list"
        yield PolicyLine(name, value, whose, kind, history.set_by(_is_listed(e)), e.until)


def _is_listed(entry: ListEntry) -> Reading:
    """Return a reading of whether the list entry is there."""
    return lambda c: entry in c.lists


def _overrides(
    config: Config, about: Subject, history: _History, now: float
) -> Iterable[PolicyLine]:
    plan = plan_of(
        config, app=about.app, tenant=about.tenant, tier=_tier_of(config, about), now=now
    )
    if (o := plan.override) is not None and o.action is not None:
        yield PolicyLine(
            "Action",
            f"Always {Action(o.action).word}",
            _override_name(o),
            "override",
            history.set_by(_holds(o)),
            o.until,
        )


def _holds(override: Override) -> Reading:
    return lambda c: override in c.overrides


def _override_name(o: Override) -> str:
    return f"Override {o.id}{' of its tenant' if o.kind == 'tenant' else ''}"


def _tier_of(config: Config, about: Subject) -> int:
    return config.unknown_tier if about.tier is None else about.tier


def _tier(config: Config, about: Subject, history: _History, now: float) -> Iterable[PolicyLine]:
    """Yield the app's tier and everything that the tier sets. Rate and burst are given as an
    override stretches them.
    """
    tier = _tier_of(config, about)
    plan = plan_of(config, app=about.app, tenant=about.tenant, tier=tier, now=now)
    yield _which_tier(tier, about, history)
    # an override stretches rate and burst only, so the tier's other lines stay as they are
    stretched = plan.override is not None and plan.override.multiplier != 1.0
    if about.tier is None:
        yield _unknown_apps(config, history)
    bucket = _stretched_bucket(plan, tier, history) if stretched else ()
    yield from bucket or _tier_bucket(config, tier, history)
    yield from _tier_limits(config, tier, history)


def _unknown_apps(config: Config, history: _History) -> PolicyLine:
    apps = config.unknown_apps
    words = {
        "plan": "each has the plan of this tier",
        "share": "those of one IP address share one plan, and all on a decider share"
        f" {_refill(apps.rate)} with a burst of {_burst(apps.burst)}",
        "refuse": "none is admitted before its profile is there",
    }
    version = history.set_by(lambda c: c.unknown_apps)
    value = words[apps.treatment]
    return PolicyLine("Unknown apps", value, "Apps nobody registered", "tier", version)


def _which_tier(tier: int, about: Subject, history: _History) -> PolicyLine:
    word = Tier(tier).word.capitalize()
    if about.tier is not None:
        # the registration gives the tier, not the config, so no config version set it
        return PolicyLine("Tier", word, "Its registration", "profile", None)
    version = history.set_by(lambda c: c.unknown_tier)
    return PolicyLine("Tier", word, "Apps nobody registered", "tier", version)


def _stretched_bucket(plan: Plan, tier: int, history: _History) -> list[PolicyLine]:
    """Return rate and burst as an override's multiplier makes them."""
    o = plan.override
    if o is None:
        return []
    source = f"{_override_name(o)}, {plan_figure(o.multiplier)} × {_tier_source(tier)}"
    version = history.set_by(_holds(o))
    return [
        PolicyLine(name, value, source, "override", version, o.until)
        for name, value in (("Refill", _refill(plan.rate)), ("Burst", _burst(plan.burst)))
    ]


def _tier_bucket(config: Config, tier: int, history: _History) -> list[PolicyLine]:
    policy = config.tiers[tier]
    return [
        _tier_line("Refill", _refill(policy.rate), "rate", tier, history),
        _tier_line("Burst", _burst(policy.burst), "burst", tier, history),
    ]


def _tier_limits(config: Config, tier: int, history: _History) -> Iterable[PolicyLine]:
    """Yield what the tier sets and no override changes."""
    policy = config.tiers[tier]
    errors = _error_budget(error_budget_of(config, tier), tier)
    wrong = (
        f"counts as {plan_figure(policy.friction)} ordinary requests lost: the more, the milder ML"
    )
    let_in = (
        f"counts as {plan_figure(policy.harm)} ordinary requests lost: the more, the stricter ML"
    )
    for name, value, field in (
        ("Headroom", _headroom(policy.headroom), "headroom"),
        ("Headroom for", _WHO[policy.headroom_to], "headroom_to"),
        ("Daily quota", f"{plan_figure(policy.quota_per_day)} requests, hard", "quota_per_day"),
        ("False throttles", errors, "error_budget"),
        ("Asks the model", f"from a first score of {policy.rank_from:.2f}", "rank_from"),
        ("Wrong block", wrong, "friction"),
        ("Abuse let in", let_in, "harm"),
    ):
        yield _tier_line(name, value, field, tier, history)


def _tier_line(name: str, value: str, field: str, tier: int, history: _History) -> PolicyLine:
    """Return a line whose value is one field of the tier's policy."""
    version = history.set_by(lambda c: getattr(c.tiers[tier], field))
    return PolicyLine(name, value, _tier_source(tier), "tier", version)


def _tier_source(tier: int) -> str:
    return f"{Tier(tier).word.capitalize()} tier"


def _refill(rate: float) -> str:
    return f"{plan_figure(rate)} requests a second"


def _burst(burst: float) -> str:
    return f"{plan_figure(burst)} requests"


def _headroom(share: float) -> str:
    return f"{share:.0%} of the burst beyond it, where ML admits" if share else "none"


# Who has the headroom, by `TierPolicy.headroom_to`.
_WHO = {
    "all": "every app of the tier",
    "proven": "apps with proof of honesty: verified, a month old, no abuse found, and not sign-ins"
    " or writes alone",
}


def _error_budget(rate: float, tier: int) -> str:
    """Say what an error budget, a share of the requests, means (`policy.budget_spares`)."""
    if rate >= 1.0:
        return "no limit"
    # `policy.error_budget_rate`
    unless = "" if tier == Tier.ENTERPRISE else ", unless its service is far short of room"
    return (
        f"{one_in(rate)} of its requests expected, in any hour and day; once spent, ML"
        f" refuses no more{unless}"
    )


def _shares(config: Config, about: Subject, history: _History) -> Iterable[PolicyLine]:
    """Yield the tenant's weight against others, and the model that ranks the app."""
    tier = _tier_of(config, about)
    weight, tenant = config.tiers[tier].weight, _of_tenant(about.tenant)
    own = tenant(config)
    # a tenant's weight multiplies its tier's, so a weight of 1 leaves the line to the tier
    if isinstance(own, float) and own != 1.0:
        text = (
            f"weight {plan_figure(weight * own)}: {plan_figure(own)} × {plan_figure(weight)} of its"
            " tier"
        )
        yield PolicyLine(
            "Fair share", text, f"Tenant {about.tenant_name}", "tenant", history.set_by(tenant)
        )
    else:
        yield _tier_line("Fair share", f"weight {plan_figure(weight)}", "weight", tier, history)
    model = config.model
    name = "none, fallback limiter" if model is None else f"{model.name} {model.version}"
    yield PolicyLine("Model", name, "Live model", "model", history.set_by(lambda c: c.model))


def _of_tenant(tenant: str) -> Reading:
    return lambda c: next((t.weight for t in reversed(c.tenants) if t.tenant == tenant), None)


def _services(config: Config, about: Subject, history: _History) -> Iterable[PolicyLine]:
    for s in config.services:
        if s.name in about.services:
            value = (
                f"{plan_figure(s.capacity)} cost units a second; when short, held to {s.target:.0%}"
            )
            yield PolicyLine(
                "Capacity",
                value,
                f"Service {s.name}",
                "service",
                history.set_by(_of_service(s.name)),
            )


def _of_service(name: str) -> Reading:
    def read(c: Config) -> object:
        found: Service | None = next((s for s in c.services if s.name == name), None)
        return found and (found.capacity, found.target)

    return read


def _alike(config: Config, history: _History) -> Iterable[PolicyLine]:
    """Yield what holds for every app alike: how ML weighs each action, and the time that a model
    may take.
    """
    for action in Action:
        value, reading = _weighed(config.actions, action), _of_action(action)
        yield PolicyLine(
            f"ML weighs {action.word}", value, "All apps alike", "all", history.set_by(reading)
        )
    limit = (
        f"{plan_figure(config.ml_time_limit_ms)} ms for one batch; when it is slow again and again,"
        " the fallback limiter decides"
    )
    yield PolicyLine(
        "Time for the model",
        limit,
        "All apps alike",
        "all",
        history.set_by(lambda c: c.ml_time_limit_ms),
    )


def _weighed(w: ActionWeights, action: Action) -> str:
    """Say what an action does to a request: value kept, abuse let in and load in percent of what
    admitting does, the client's trouble in percent of what a block does.
    """
    keeps, leaks, loads, hurts = (f"{row[action]:.3g}" for row in _percents(w))
    gain = (
        f"keeps {keeps}% of a good request’s value, lets {leaks}% of abuse in, costs {loads}% of"
        " its load"
    )
    return f"{gain}; when wrong it hurts {hurts}% as much as a block"


def _percents(w: ActionWeights) -> Iterable[list[float]]:
    return ([100.0 * share for share in row] for row in (w.keep, w.leak, w.load, w.friction))


def _of_action(action: Action) -> Reading:
    return lambda c: tuple(
        row[action] for row in (c.actions.keep, c.actions.leak, c.actions.load, c.actions.friction)
    )


class _History:
    """The config documents up to and including one, newest first."""

    def __init__(self, documents: tuple[tuple[Version, Config], ...]) -> None:
        self._documents = documents

    def set_by(self, reading: Reading) -> Version | None:
        """Return the version that set the present value: from this version on, the value has not
        changed. Return None when no document could be read.
        """
        found: Version | None = None
        present: object = None
        for version, config in self._documents:
            value = reading(config)
            if found is not None and value != present:
                return found
            found, present = version, value
        if found is None or found.number == 1:
            return found
        return Version(found.number, found.made_at, found.by, exactly=False)


def _history(version: int) -> _History:
    rows = ConfigVersion.objects.filter(version__lte=version).order_by("-version")
    newest = rows.values_list("signed", flat=True).first()
    return _read(version, bytes(newest)) if newest else _History(())


@lru_cache(maxsize=4)
def _read(version: int, signed: bytes) -> _History:
    """Return the history up to a version. `signed`, the bytes of that version's document, only
    serves as a second key of the cache; older versions cannot change any more.
    """
    found = []
    rows = ConfigVersion.objects.filter(version__lte=version).order_by("-version")
    for number, payload, made_at, by in rows.values_list("version", "payload", "made_at", "by")[
        :FURTHEST
    ]:
        try:
            config = document.decode(bytes(payload))
        except ConfigError:
            # the format cannot be read here, so older documents cannot be compared with newer ones
            break
        found.append((Version(number, made_at, by, exactly=True), config))
    return _History(tuple(found))
