"""The router: it finds the endpoint, service and cost of a request.

The gateway may name the service that it will call; else the longest prefix of the path tells it.
The path tells the endpoint: the one that the config document lists, or else one that the router
names itself (`endpoint_names`). The features tell endpoints apart by the keyed hash of the
template, which keeps all words of the path; the name is what is stored, counted and shown. Paths
are as `normalise.paths.path_of` writes them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from decider.contracts.config import Config, EndpointPolicy, Service
from decider.contracts.normalise.names import ID, IDENTIFIER, LONGEST, UNREADABLE, name_of
from decider.contracts.normalise.paths import path_of
from decider.engine.buffers import ROUTE_FORMAT
from decider.engine.endpoint_names import EndpointNames
from decider.engine.shared import several
from decider.engine.text_hash import TextHash

# Bounds the memory, as clients choose their paths. When it is full, all routes are forgotten, which
# is cheap and rare.
_CACHED_PATHS = 65_536
# Name that stands for a method that HTTP does not know.
OTHER_METHOD = "OTHER"
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# The kinds of endpoints that the features tell apart. A sign-in counts as a write, too.
READ, WRITE, SIGN_IN = range(3)
# Words between the separators of a path that mark an endpoint which takes credentials. Chosen: the
# names that frameworks, OAuth (RFC 6749) and the most attacked sites use; `xmlrpc` is WordPress's
# remote interface, through which passwords are tried. Where this guess is wrong, the config
# document corrects it (`EndpointPolicy.sign_in`).
_TAKES_CREDENTIALS = re.compile(
    r"[/:](?:(?:wp-)?log[-_]?[io]n|sign[-_]?in|auth|authenticate|authorize|oauth2?|token|session|"
    r"passwd|password|xmlrpc|otp|mfa|2fa)(?=$|[/.:])",
    re.IGNORECASE,
)
_METHODS = WRITES | {"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"}
# Whole segments with which a template may write that any identifier stands there.
PARAMETER = re.compile(r"/(?:\{[^/{}]*+\}|<[^/<>]*+>|:[^/:]++|\*)(?=/|$)")

_PACK = struct.Struct(ROUTE_FORMAT).pack


class Route(NamedTuple):
    """The route of a request: its endpoint, service and cost."""

    packed: bytes
    """What the compiled passes read: bytes in the layout of `buffers.ROUTE_FIELDS`."""
    method: str
    endpoint: str
    """Name of the path; method and name together name the endpoint."""
    service: int
    """Row of the service in the config document."""
    cost: float
    batch: str
    """How to ask for many at once, empty when there is no batch form."""
    several: bool
    """Whether it loads more services than its own."""
    unknown: bool
    """Whether the path could not be read, or no service was named and none has a prefix of it."""


@dataclass
class Strays:
    """Requests since the start whose route was guessed."""

    paths: int = 0
    """Requests with an unknown path (`Route.unknown`)."""
    services: int = 0
    """Requests for which the gateway named a service that the config document does not have."""
    names: dict[str, EndpointNames] = field(default_factory=dict)
    """The names of endpoints that the config document does not list, by service; "" for those of no
    service.
    """


# method and path of an endpoint
Names = tuple[str, str]
# by method, then by the path or a part of it
_Routes = dict[str, dict[str, Route]]


def template_of(path: str) -> str:
    """Return a path with identifiers replaced: `/v2/orders/123` -> `/v2/orders/{id}`.

    It is cut to LONGEST characters. UNREADABLE stands for what is no path. Other personal data may
    stand in it: it is hashed and never stored, unlike a name (`name_of`).
    """
    if not path:
        return UNREADABLE
    parts = [ID if IDENTIFIER.fullmatch(part) else part for part in path.split("/")]
    return "/".join(parts)[:LONGEST]


def read_template(written: str) -> str:
    """Return the template that requests have to which a config document refers as `written`:
    "/v2/orders/:order" -> "/v2/orders/{id}"; UNREADABLE when there is none.
    """
    # a number stands in for each parameter, because braces would be read as text
    return template_of(path_of(PARAMETER.sub("/0", written)))


def endpoint_of(method: str, path: str) -> str:
    """Return the name of an endpoint without a router: "GET /v2/orders/{id}".

    Return an empty text for a method that HTTP does not know, or without a path. `path`: as a log
    has it.
    """
    return f"{method} {name_of(path_of(path))}" if method in _METHODS and path else ""


def kind_of(method: str, template: str, sign_in: bool | None = None) -> int:
    """Return whether an endpoint is a READ, a WRITE or a SIGN_IN.

    `sign_in`: what the config document says of it; None goes by the words of its path.
    """
    if sign_in is None:
        sign_in = method in WRITES and _TAKES_CREDENTIALS.search(template) is not None
    if sign_in:
        return SIGN_IN
    return WRITE if method in WRITES else READ


class Router:
    """Routes of one config document, with a bounded cache.

    The number of endpoints that are stored and counted stays small whatever clients ask for. The
    features still tell every path apart.
    """

    def __init__(self, config: Config, text_hash: TextHash, strays: Strays | None = None) -> None:
        """Compile the routes of `config`. The kernels tell endpoints apart by their `text_hash`.
        Requests without a route of their own are counted in `strays`.
        """
        self._hash, self.strays = text_hash, strays or Strays()
        self.names = [s.name for s in config.services]
        self.index = {name: row for row, name in enumerate(self.names)}
        prefixes = [
            (prefix, row)
            for row, service in enumerate(config.services)
            for prefix in map(path_of, service.prefixes)
            if prefix
        ]
        self._prefixes = sorted(prefixes, key=lambda item: -len(item[0]))
        # takes requests without a service: the one that has "/", else the first of the document
        self._fallback = self.service_at("/") or 0
        self._endpoints = [listed_endpoints(service) for service in config.services]
        self._patterns = [_by_length(listed) for listed in self._endpoints]
        self._several = self._list_several()
        self.several = several.rows_of(list(self._several.values()))
        self._several_at = {key: at for at, key in enumerate(self._several, 1)}
        self._ids_tell = any(name_of(prefix) != prefix for prefix, _ in prefixes)
        self._hold_names(prefixes)
        self._forget()

    def _list_several(self) -> dict[tuple[int, Names], list[tuple[int, float]]]:
        """Return all services, with the costs there, of each endpoint that loads several. Keys: its
        own service's row and its names.
        """
        found = {}
        for row, listed in enumerate(self._endpoints):
            dearest: dict[int, float] = {}
            for names, policy in listed.items():
                # services that an old document names and does not have are left out
                others = {
                    at: cost
                    for name, cost in policy.costs.items()
                    if (at := self.index.get(name, row)) != row
                }
                if others:
                    found[row, names] = [(row, policy.cost), *_most(others)]
                for at, cost in others.items():
                    dearest[at] = max(cost, dearest.get(at, 0.0))
            if dearest:
                # no spelling of a path may be cheaper than a plain one
                names = ("", UNREADABLE)
                found[row, names] = [(row, cost_of(names, listed)), *_most(dearest)]
        return found

    def _forget(self) -> None:
        # for each service that a gateway may name, and "" for none: by method and path, or by
        # method and the path before a last segment of digits
        self._known: dict[str, tuple[_Routes, _Routes]] = {
            name: ({}, {}) for name in ("", *self.names)
        }
        # by method, template and service: paths of one template share a route
        self._made: dict[tuple[str, str, int | None], Route] = {}
        self._kept = 0

    def route(self, method: str, path: str, service: str = "") -> Route:
        """Return the route of a request, and count it where it strays.

        `service`: the one that the gateway names, "" for none. A service that the document does not
        have counts as none.
        """
        known = self._known.get(service)
        if known is None:
            self.strays.services += 1
            service, known = "", self._known[""]
        # a number at the end is replaced in every template, so all such paths share one entry
        head, _, tail = path.rpartition("/")
        if tail.isdigit() and not self._ids_tell:
            routes, key = known[1], head
        else:
            routes, key = known[0], path
        try:
            found = routes[method][key]
        except KeyError:
            found = self._find(method, path, service)
            # looked up anew: `_find` may have forgotten all routes
            kept = self._known[service][routes is known[1]]
            kept.setdefault(method, {})[key] = found
        if found.unknown:
            self.strays.paths += 1
        return found

    def service_at(self, path: str) -> int | None:
        """Return the row of the service with the longest prefix of a path; None without one."""
        return next((row for prefix, row in self._prefixes if lies_below(path, prefix)), None)

    def service_of(self, endpoint: str) -> str | None:
        """Return the service that requests to an endpoint ("GET /v2/orders/{id}") are decided for
        when the gateway names none; None where the endpoint does not tell.
        """
        template = endpoint.partition(" ")[2]
        if not template or self._ids_tell:
            return None
        row = self.service_at(template)
        return self.names[self._fallback if row is None else row]

    def _find(self, method: str, path: str, named: str) -> Route:
        if self._kept >= _CACHED_PATHS:
            self._forget()
        self._kept += 1
        template = template_of(path)
        service = self.index[named] if named else self.service_at(path)
        if (made := self._made.get((method, template, service))) is None:
            made = self._make(method, path, template, service)
            self._made[method, template, service] = made
        return made

    def _make(self, method: str, path: str, template: str, service: int | None) -> Route:
        row = self._fallback if service is None else service
        listed = self._endpoints[row]
        names = self._listed_as(row, method, template)
        method, template = names
        policy = listed.get(names)
        cost, batch = cost_of(names, listed), policy.batch if policy else ""
        kind = kind_of(method, template, policy.sign_in if policy else None)
        unreadable = template == UNREADABLE
        loads = self._several_at.get((row, ("", UNREADABLE) if unreadable else names), 0)
        packed = _PACK(self._hash.one(method + template), cost, row, kind, batch != "", loads)
        if policy is None:
            known_method = method if method in _METHODS else OTHER_METHOD
            names = (known_method, template if unreadable else self._name(service, path))
        stray = service is None or unreadable
        return Route(packed, *names, row, cost, batch, loads > 0, stray)

    def _hold_names(self, prefixes: Sequence[tuple[str, int]]) -> None:
        """Keep the words of the config document, which are no client's."""
        for prefix, row in prefixes:
            self._names_of(row).hold(prefix)
        for row, listed in enumerate(self._endpoints):
            for _, template in listed:
                self._names_of(row).hold(template)

    def _listed_as(self, row: int, method: str, template: str) -> Names:
        """Return the names under which the config document lists an endpoint of a service: written
        so, or with parameters where the template has anything. The template itself otherwise.
        """
        if (method, template) in self._endpoints[row]:
            return method, template
        parts = template.split("/")
        for pattern in self._patterns[row].get((method, len(parts)), ()):
            if all(own in (ID, part) for own, part in zip(pattern, parts, strict=True)):
                return method, "/".join(pattern)
        return method, template

    def _names_of(self, service: int | None) -> EndpointNames:
        key = "" if service is None else self.names[service]
        return self.strays.names.setdefault(key, EndpointNames())

    def _name(self, service: int | None, path: str) -> str:
        """Return the name of an endpoint that the config document does not list."""
        names = self._names_of(service)
        told = names.merged
        name = names.of(path)
        if names.merged != told:
            self._forget()  # paths that were told apart until now have one name
        return name


def _by_length(listed: dict[Names, EndpointPolicy]) -> dict[tuple[str, int], list[list[str]]]:
    """Return the segments of the templates with parameters, by method and number of segments. Those
    with the fewest parameters come first.
    """
    found: dict[tuple[str, int], list[list[str]]] = {}
    for method, template in listed:
        if ID in (parts := template.split("/")):
            found.setdefault((method, len(parts)), []).append(parts)
    for patterns in found.values():
        patterns.sort(key=lambda parts: (parts.count(ID), parts))
    return found


def listed_endpoints(service: Service) -> dict[Names, EndpointPolicy]:
    """Return the endpoints of a service that the config document lists, by their names, each with
    its cost there. Older documents may write parameters in other ways.
    """
    return {
        (e.method, read_template(e.template)): _with_cost(e, e.costs.get(service.name, e.cost))
        for e in service.endpoints
    }


def endpoints_at(services: Sequence[Service], name: str) -> dict[Names, EndpointPolicy]:
    """Return the listed endpoints that load a service, by their names, each with its cost there:
    those of other services, then its own.
    """
    others = {
        names: _with_cost(e, e.costs[name])
        for service in services
        for names, e in listed_endpoints(service).items()
        if service.name != name and name in e.costs
    }
    own = (listed_endpoints(service) for service in services if service.name == name)
    return {**others, **next(own, {})}


def _with_cost(endpoint: EndpointPolicy, cost: float) -> EndpointPolicy:
    return endpoint if endpoint.cost == cost else replace(endpoint, cost=cost)


def _most(others: dict[int, float]) -> list[tuple[int, float]]:
    """Return the services of an endpoint beside its own, the dearest if there are too many."""
    return sorted(others.items(), key=lambda one: -one[1])[: several.MOST_EACH - 1]


def cost_of(names: Names, listed: dict[Names, EndpointPolicy]) -> float:
    """Return what an endpoint costs in a service with these endpoints: 1 when it is not listed.

    An unreadable path costs as much as the dearest, as no spelling may be cheaper than a plain one.
    """
    if names[1] == UNREADABLE:
        return max([1.0, *(policy.cost for policy in listed.values())])
    return listed[names].cost if names in listed else 1.0


def lies_below(path: str, prefix: str) -> bool:
    """Return whether a path is the prefix or lies below it. Prefixes end where segments end.

    `/v2/orders/1` and `/v2/orders:batchGet` lie below `/v2/orders`, `/v2/ordersX` does not.
    """
    return path.startswith(prefix) and (
        prefix == "/" or path[len(prefix) : len(prefix) + 1] in ("", "/", ":")
    )
