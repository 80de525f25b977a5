"""Rules of a config document that can never match or never let anything through.

Deciders read what is already in a document as well as they can, so that one bad rule of long ago
never costs them a kill switch. What a change brings in is refused here, with what to write instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from control.errors import Refused
from decider.contracts.config import Config, EndpointPolicy, Service, ends
from decider.contracts.normalise.names import LONGEST
from decider.contracts.normalise.paths import path_of
from decider.contracts.vocabulary import Tier
from decider.engine.routing import PARAMETER, lies_below, read_template
from decider.engine.shared import several

# The year 5138, unix seconds. A larger time is one in milliseconds.
LATEST = 1e11
# Milliseconds that scoring a batch may be given: less than a clock tells, and a second, far above
# the time for which any gateway waits.
ML_TIME_LIMIT_MS = (0.01, 1_000.0)
# Milliseconds of a service's usual latency, up to ten minutes, for which gateways give up.
LATENCY_MS = (0.01, 600_000.0)
# Faults that a refusal names at once: a person mends one after the other.
_MOST_NAMED = 3

_NAME = re.compile(r"[!-~]{1,128}").fullmatch
_METHOD = re.compile(r"[A-Z]{3,7}").fullmatch
_BATCH = re.compile(r"[A-Z]{3,7} (/[!-~]*)").fullmatch


def check(new: Config, old: Config, now: float) -> None:
    """Raise Refused for faults that `old` does not have. `now`: unix seconds."""
    before = set(faults(old, now))
    if found := [fault for fault in faults(new, now) if fault not in before]:
        named = "; ".join(found[:_MOST_NAMED])
        raise Refused(f"This change would make rules that can never work: {named}.")


def faults(config: Config, now: float) -> Iterator[str]:
    """Yield a clause for each rule that cannot work: which, why and what would be right."""
    yield from chain(_services(config), _limits(config), _ends(config, now))


def _services(config: Config) -> Iterator[str]:
    owners: dict[str, str] = {}
    for service in config.services:
        if _NAME(service.name) is None:
            yield f"the name {service.name!r} of a service is not 1 to 128 visible ASCII characters"
        for prefix in service.prefixes:
            yield from _prefix(service, prefix)
            first = owners.setdefault(read := path_of(prefix), service.name)
            if read and (first != service.name or service.prefixes.count(prefix) > 1):
                yield (
                    f"the prefix {prefix} of service {service.name} is also one of {first}, which"
                    " gets all its requests: name it once"
                )
        for endpoint in service.endpoints:
            yield from _endpoint(service, endpoint)
            yield from _costs(service, endpoint, {s.name for s in config.services})
        named = Counter(_name_of(endpoint) for endpoint in service.endpoints)
        for name, count in named.items():
            if count > 1:
                yield f"service {service.name} has the endpoint {name} {count} times: name it once"


def _prefix(service: Service, prefix: str) -> Iterator[str]:
    what = f"the prefix {prefix!r} of service {service.name}"
    read = path_of(prefix)
    if PARAMETER.search(prefix):
        yield f"{what} has a parameter, but prefixes are plain: write the part before it"
    elif not read:
        yield f"{what} is no path: write one such as /v2/orders"
    elif read != prefix:
        yield f"{what} is not how paths are read: write {read}"


def _name_of(endpoint: EndpointPolicy) -> str:
    return f"{endpoint.method} {read_template(endpoint.template)}"


def _endpoint(service: Service, endpoint: EndpointPolicy) -> Iterator[str]:
    what = f"the endpoint {f'{endpoint.method} {endpoint.template}'!r} of service {service.name}"
    if _METHOD(endpoint.method) is None:
        yield f"{what} has no method of 3 to 7 capital letters, such as GET"
    if fault := _template_fault(endpoint.template):
        yield f"{what} matches no request: {fault}"
    if endpoint.batch:
        found = _BATCH(endpoint.batch)
        if found is None or _template_fault(found[1]) or not _has(service, found[1]):
            yield (
                f"the batch form {endpoint.batch!r} of {what} names none of its endpoints: write a"
                f" method and a path below its prefixes, such as POST {_example(service)}:batch"
            )


def _costs(service: Service, endpoint: EndpointPolicy, names: set[str]) -> Iterator[str]:
    what = f"the endpoint {f'{endpoint.method} {endpoint.template}'!r} of service {service.name}"
    for name in endpoint.costs:
        if name not in names:
            yield f"{what} has a cost at {name!r}, which is no service: name one that there is"
    if service.name in endpoint.costs and endpoint.cost not in (1, endpoint.costs[service.name]):
        yield f"{what} has two costs at its own service: leave one of cost and costs out"
    if len({*endpoint.costs, service.name}) > several.MOST_EACH:
        yield f"{what} loads more than {several.MOST_EACH} services: name the costliest"


def _template_fault(template: str) -> str:
    """Return why no request has a template, and what to write instead; "" when one may have it."""
    if len(template) > LONGEST:
        return f"write at most {LONGEST} characters"
    read = read_template(template)
    if read == template:
        return ""
    if "%7B" in read or path_of(PARAMETER.sub("/0", template)) == "":
        return "write a path such as /v2/orders/{id}, with {id} as a whole segment"
    return f"write {read}, where {{id}} stands for a segment that looks like an identifier"


def _has(service: Service, path: str) -> bool:
    below = any(lies_below(path, path_of(prefix)) for prefix in service.prefixes)
    # without prefixes, only the gateway knows the service's paths
    return below or not service.prefixes


def _example(service: Service) -> str:
    return next((e.template for e in service.endpoints), next(iter(service.prefixes), "/v2/orders"))


def _limits(config: Config) -> Iterator[str]:
    for tier, plan in zip(Tier, config.tiers, strict=True):
        yield from _below_one(f"the burst of tier {tier.word}", plan.burst)
        yield from _below_one(f"the quota per day of tier {tier.word}", plan.quota_per_day)
    yield from _below_one("the burst of unknown apps", config.unknown_apps.burst)
    largest = max(plan.burst for plan in config.tiers)
    for override in config.overrides:
        if override.action is None:
            scaled = largest * override.multiplier
            yield from _below_one(f"the largest burst times override {override.id}", scaled)
    for policy in config.tenants:
        if _NAME(policy.tenant) is None:
            yield f"the tenant {policy.tenant!r} is not 1 to 128 visible ASCII characters"
    for tenant, count in Counter(policy.tenant for policy in config.tenants).items():
        if count > 1:
            yield f"tenant {tenant} has {count} weights: name it once"
    yield from _outside("ml_time_limit_ms", config.ml_time_limit_ms, ML_TIME_LIMIT_MS)
    for service in config.services:
        yield from _outside(f"latency_ms of service {service.name}", service.latency_ms, LATENCY_MS)
        if service.target == 0:
            yield f"target of service {service.name} is 0, so it serves nothing: write 0.85, say"


def _below_one(what: str, value: float) -> Iterator[str]:
    if value < 1:
        yield f"{what} is {value:g}, so no request ever fits: write at least 1"


def _outside(what: str, value: float, limits: tuple[float, float]) -> Iterator[str]:
    least, most = limits
    if not least <= value <= most:
        yield f"{what} is {value:g}: write milliseconds from {least:g} to {most:g}"


def _ends(config: Config, now: float) -> Iterator[str]:
    for what, end in ends(config):
        if end is not None and end > LATEST:
            yield f"{what} is {end:.0f}, in milliseconds: write seconds, {end / 1000:.0f}"
        elif end is not None and end <= now:
            yield f"{what} is {end:.0f}, which is past: write unix seconds that are ahead"
