"""The part of a config document that was in force for one request, and the lines in which two
documents differ for that request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from msgspec import structs

from decider import policy
from decider.contracts.config import Config, ListEntry, Override, Service, in_force
from decider.contracts.event import Event
from decider.contracts.signals import INDEX as S
from decider.contracts.signals import unpack
from decider.contracts.units import digits
from decider.contracts.vocabulary import Action, Tier
from decider.engine.lists import APP, TENANT, compile_subjects, consult
from decider.engine.routing import cost_of, endpoints_at
from decider.engine.text_hash import TextHash

# Each process has a key of its own, because its hashes are not stored or compared elsewhere.
# Without the key, a client cannot choose an app id that collides with a listed one.
_HASH = TextHash(secrets.token_bytes(32))
# Only fields that the policy function reads: other fields cannot change an answer, so they must not
# be named as a cause.
TIER_LINES = {
    "rate": "requests a second",
    "burst": "burst",
    "quota_per_day": "requests a day",
    "friction": "friction",
    "harm": "harm",
    "error_budget_per_hour": "error budget an hour",
    "rank_from": "ranked from cheap score",
    "headroom": "headroom over the burst",
    "headroom_to": "who has the headroom",
}


@dataclass(frozen=True, slots=True)
class ConfigDifference:
    """One line that differs between two config documents."""

    text: str
    """What differs: "Premium tier, burst"."""
    old: str
    new: str
    put: Callable[[Config], Config]
    """Returns a given document with only this line changed to that of the newer one."""

    @property
    def sentence(self) -> str:
        return f"{self.text}: {self.old} → {self.new}"


def narrow_to_request(config: Config, event: Event, now: float) -> Config:
    """Return the document with only the engaged switches, and the lists and overrides in force at
    `now` (unix seconds) that concern the event's app or tenant.
    """
    # Expired entries are left out too: otherwise one that ended between two documents would look
    # like a change of the config.
    return structs.replace(
        config,
        switches=in_force(config.switches, now),
        overrides=[o for o in in_force(config.overrides, now) if _concerns(o, event)],
        lists=[e for e in in_force(config.lists, now) if _concerns(e, event)],
    )


def _concerns(rule: Override | ListEntry, event: Event) -> bool:
    return rule.subject == {"app": event.app, "tenant": event.tenant}.get(rule.kind)


def find_rules(config: Config, event: Event, now: float) -> np.ndarray:
    """Return float64 (4,): list verdict, compliance, override action and multiplier, as the engine
    finds them by app and tenant at `now` (unix seconds).
    """
    subjects, found = compile_subjects(config, _HASH), np.array([0.0, 0.0, -1.0, 1.0])
    app, tenant = _HASH.many([event.app, event.tenant]).tolist()
    consult(subjects, APP, app, now, found)
    consult(subjects, TENANT, tenant, now, found)
    return found


def rewrite_record(event: Event, then: Config, config: Config, now: float) -> Event:
    """Return the record with the signals that follow from `config`: lists, overrides, quota, cost,
    and no error budget where `config` has none. Observed signals stay as recorded.

    `then` is the config of the record; `now` is in unix seconds. A list verdict that `then` does
    not explain by app and tenant came from the source address. That is not stored, so the verdict
    stays.
    """
    s = unpack(event.signals)
    before, after = find_rules(then, event, event.at), find_rules(config, event, now)
    # A verdict that differs from what app and tenant explain came from the source address.
    if s[S["list_verdict"]] == before[0]:
        s[S["list_verdict"]] = after[0]
    if s[S["compliance"]] == before[1]:
        s[S["compliance"]] = after[1]
    s[S["override_action"]], s[S["override_multiplier"]] = after[2], after[3]
    tiers = policy.rules_of(config).tiers[event.tier]
    quota = float(tiers[policy.T_QUOTA])
    # What was used up stays used up: only the plan's change is added, and of that an even
    # part, because all deciders lease from the same quota.
    s[S["quota_left"]] += (quota - s[S["quota_limit"]]) / max(1, config.nodes)
    s[S["quota_limit"]] = quota
    # A bucket never holds more than its burst, and a smaller burst takes the surplus at once.
    s[S["tokens"]] = min(s[S["tokens"]], tiers[policy.T_BURST] * after[3])
    # A config without an error budget lifts it. If the budget is another one, what was left stays:
    # the record does not say over how many requests it was counted.
    if s[S["error_budget_rate"]] > 0.0 and tiers[policy.T_ERROR_BUDGET] >= 1.0:
        s[S["error_budget_rate"]], s[S["error_budget_left"]] = 1.0, np.inf
    # If the service is gone, the recorded cost stays, because no better figure exists.
    found = find_endpoint(config, event)
    s[S["cost"]], s[S["batchable"]] = found if found else (s[S["cost"]], s[S["batchable"]])
    return structs.replace(event, signals=s.astype("<f8").tobytes())


def find_endpoint(config: Config, event: Event) -> tuple[float, float] | None:
    """Return (cost, batchable) of the request's endpoint, or None when the config no longer has its
    service.
    """
    service = next((s for s in config.services if s.name == event.service), None)
    if service is None:
        return None
    names = (event.method, event.endpoint)
    listed = endpoints_at(config.services, service.name)
    # The engine gives an endpoint that the config does not list no batch form.
    batchable = names in listed and bool(listed[names].batch)
    return cost_of(names, listed), float(batchable)


def list_differences(old: Config, new: Config, event: Event) -> list[ConfigDifference]:
    """Return the differences that bear on the request, between two documents from
    `narrow_to_request`.
    """
    # Broad settings first: where several lines each explain the answer alone, the first is named.
    return [
        *_compare_tiers(old, new, event.tier),
        *_compare_weights(old, new),
        *_compare_services(old, new, event),
        *_compare_subjects(old, new),
    ]


def _compare_tiers(old: Config, new: Config, tier: int) -> list[ConfigDifference]:
    name = Tier(tier).word.capitalize()
    return [
        ConfigDifference(f"{name} tier, {words}", _figure(a), _figure(b), _put_tier(tier, field, b))
        for field, words in TIER_LINES.items()
        if (a := getattr(old.tiers[tier], field)) != (b := getattr(new.tiers[tier], field))
    ]


# A function of its own, because a closure made in the loop would see only the last field and value.
def _put_tier(tier: int, field: str, value: float) -> Callable[[Config], Config]:
    def put(config: Config) -> Config:
        tiers = [
            structs.replace(t, **{field: value}) if k == tier else t
            for k, t in enumerate(config.tiers)
        ]
        return structs.replace(config, tiers=tiers)

    return put


def _compare_weights(old: Config, new: Config) -> list[ConfigDifference]:
    found = []
    for field in ("keep", "leak", "load", "friction"):
        for k, (a, b) in enumerate(
            zip(getattr(old.actions, field), getattr(new.actions, field), strict=True)
        ):
            if a != b:
                found.append(
                    ConfigDifference(
                        f"Action {Action(k).word}, {field}",
                        _figure(a),
                        _figure(b),
                        _put_weight(field, k, b),
                    )
                )
    return found


def _put_weight(field: str, place: int, value: float) -> Callable[[Config], Config]:
    def put(config: Config) -> Config:
        row = tuple(
            value if k == place else v for k, v in enumerate(getattr(config.actions, field))
        )
        return structs.replace(config, actions=structs.replace(config.actions, **{field: row}))

    return put


def _compare_services(old: Config, new: Config, event: Event) -> list[ConfigDifference]:
    """Return differences of the endpoint's cost and batch form, and of the service's figures. These
    figures act only through the price, which stays as recorded.
    """
    one, two = (next((s for s in c.services if s.name == event.service), None) for c in (old, new))
    # A service that only one document has leaves no line to compare.
    if one is None or two is None:
        return []
    # Every line puts the whole service, because endpoint and figures are one entry of the document.
    put = _put_service(two)
    figures = [
        ConfigDifference(
            f"Service {event.service}, {field.replace('_', ' ')}", _figure(a), _figure(b), put
        )
        for field in ("capacity", "target", "latency_ms")
        if (a := getattr(one, field)) != (b := getattr(two, field))
    ]
    return [*_compare_endpoints(old, new, event, put), *figures]


def _compare_endpoints(
    old: Config, new: Config, event: Event, put: Callable[[Config], Config]
) -> list[ConfigDifference]:
    """Return differences of the endpoint's cost and batch form. `put` sets the newer service."""
    before, after = find_endpoint(old, event), find_endpoint(new, event)
    if before is None or after is None:
        return []
    name, found = f"{event.method} {event.endpoint}", []
    if before[0] != after[0]:
        cost, new_cost = _figure(before[0]), _figure(after[0])
        found.append(ConfigDifference(f"{name}, cost", cost, new_cost, put))
    if before[1] != after[1]:
        form, new_form = ("yes" if batch else "none" for batch in (before[1], after[1]))
        found.append(ConfigDifference(f"{name}, batch form", form, new_form, put))
    return found


def _put_service(service: Service) -> Callable[[Config], Config]:
    return lambda config: structs.replace(
        config, services=[service if s.name == service.name else s for s in config.services]
    )


def _compare_subjects(old: Config, new: Config) -> list[ConfigDifference]:
    found = []
    # Each set is one line, because its entries act together on one signal.
    if old.overrides != new.overrides:
        put = lambda config: structs.replace(config, overrides=new.overrides)  # noqa: E731
        found.append(ConfigDifference("Overrides in force", _overrides(old), _overrides(new), put))
    if old.lists != new.lists:
        put_lists = lambda config: structs.replace(config, lists=new.lists)  # noqa: E731
        found.append(
            ConfigDifference("Lists and compliance rules", _lists(old), _lists(new), put_lists)
        )
    return found


def _overrides(config: Config) -> str:
    return ", ".join(_override(o) for o in config.overrides) or "none"


def _override(o: Override) -> str:
    does = f"plan × {_figure(o.multiplier)}" if o.action is None else Action(o.action).word
    return f"{o.id} ({does})"


def _lists(config: Config) -> str:
    return ", ".join(f"{e.verdict} {e.kind}" for e in config.lists) or "none"


def _figure(value: float) -> str:
    return digits(value, 6)
