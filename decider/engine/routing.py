"""The router: it finds the endpoint, service and cost of a request from its method and path.

Path segments that look like identifiers become `{id}`, so that endpoints are few and no identifier
is stored.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from decider.contracts.config import Config, EndpointPolicy
from decider.engine.buffers import ROUTE_FORMAT
from decider.engine.text_hash import TextHash

# Numbers, UUIDs, hexadecimal of 12 digits or more, a prefix with "_" (ord_1a2b), and any word of 20
# characters or more with a digit. Each alternative takes linear time: clients choose the text.
_IDENTIFIER = re.compile(
    r"\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?=[^/]*\d)[0-9a-fA-F]{12,}|[A-Za-z]{1,8}_[0-9A-Za-z]{4,}|(?=[^/]*\d)[0-9A-Za-z_-]{20,}"
)
# Bounds the memory, as clients choose their paths. When it is full, all routes are forgotten, which
# is cheap and rare.
_CACHED_PATHS = 65_536
# Characters. Bounded, as the template is stored with each kept decision; a longer one is a client's
# invention.
_LONGEST_TEMPLATE = 200
# Endpoints of a service that are told apart though the config does not name them. Bounded, as
# clients choose their paths; chosen above the number of endpoints a service really has.
MOST_OTHERS = 500
# Names that stand for all further endpoints, and for a method that HTTP does not know.
OTHER, OTHER_METHOD = "/{other}", "OTHER"
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


_PACK = struct.Struct(ROUTE_FORMAT).pack


class Route(NamedTuple):
    """The route of a request: its endpoint, service and cost."""

    packed: bytes
    """What the compiled passes read: bytes in the layout of `buffers.ROUTE_FIELDS`."""
    method: str
    endpoint: str
    """Path template; method and template together name the endpoint."""
    service: int
    """Row of the service in the config document."""
    cost: float
    batch: str
    """How to ask for many at once, empty when there is no batch form."""


def template_of(path: str) -> str:
    """Return a path with identifiers replaced: `/v2/orders/123` -> `/v2/orders/{id}`.

    It is cut to 200 characters.
    """
    parts = ["{id}" if _IDENTIFIER.fullmatch(part) else part for part in path.split("/")]
    return "/".join(parts)[:_LONGEST_TEMPLATE]


def endpoint_of(method: str, path: str) -> str:
    """Return the name of an endpoint without a router: "GET /v2/orders/{id}".

    Return an empty text for a method that HTTP does not know, or a path that does not begin with
    "/". `path` may have a query, which is left out.
    """
    path = path.partition("?")[0]
    return f"{method} {template_of(path)}" if method in _METHODS and path[:1] == "/" else ""


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

    def __init__(self, config: Config, text_hash: TextHash) -> None:
        """Compile the routes of `config`. The kernels tell endpoints apart by their `text_hash`."""
        self._hash = text_hash
        self.names = [s.name for s in config.services]
        self.index = {name: row for row, name in enumerate(self.names)}
        self._prefixes = sorted(
            ((prefix, row) for row, s in enumerate(config.services) for prefix in s.prefixes),
            key=lambda item: -len(item[0]),
        )
        self._endpoints: dict[tuple[int, str, str], EndpointPolicy] = {
            (row, e.method, e.template): e
            for row, s in enumerate(config.services)
            for e in s.endpoints
        }
        self._tails_count = any(
            prefix.rpartition("/")[2].isdigit() for s in config.services for prefix in s.prefixes
        )
        self._others: dict[int, set[tuple[str, str]]] = {}
        self._forget()

    def _forget(self) -> None:
        # by method and the path before a last segment of digits
        self._numbered: dict[str, dict[str, Route]] = {}
        # by method and path
        self._named: dict[str, dict[str, Route]] = {}
        # by method, template and service: paths of one template share a route
        self._made: dict[tuple[str, str, int], Route] = {}
        self._kept = 0

    def route(self, method: str, path: str) -> Route:
        """Return the route of a request. `path`: without its query."""
        # a number at the end is replaced in every template, so all such paths share one entry
        head, _, tail = path.rpartition("/")
        known, key = (
            (self._numbered, head)
            if tail.isdigit() and not self._tails_count
            else (self._named, path)
        )
        try:
            return known[method][key]
        except KeyError:
            found = self._find(method, path)
            known.setdefault(method, {})[key] = found
            return found

    def _find(self, method: str, path: str) -> Route:
        if self._kept >= _CACHED_PATHS:
            self._forget()
        self._kept += 1
        template = template_of(path)
        service = next((row for prefix, row in self._prefixes if _under(path, prefix)), 0)
        if (made := self._made.get((method, template, service))) is not None:
            return made
        policy = self._endpoints.get((service, method, template))
        cost, batch = (policy.cost, policy.batch) if policy else (1.0, "")
        kind = kind_of(method, template, policy.sign_in if policy else None)
        packed = _PACK(self._hash.one(method + template), cost, service, kind, batch != "")
        names = (method, template)
        if policy is None and not self._told_apart(service, names):
            names = (method if method in _METHODS else OTHER_METHOD, OTHER)
        route = self._made[method, template, service] = Route(packed, *names, service, cost, batch)
        return route

    def _told_apart(self, service: int, names: tuple[str, str]) -> bool:
        """Return whether an endpoint that the config does not name keeps its own name. The first
        MOST_OTHERS of each service do.
        """
        others = self._others.setdefault(service, set())
        if len(others) < MOST_OTHERS:
            others.add(names)
        return names in others


def _under(path: str, prefix: str) -> bool:
    """Return whether a path is the prefix or lies below it.

    `/v2/orders:batchGet` lies below `/v2/orders`, `/v2/ordersX` does not.
    """
    return path.startswith(prefix) and (
        prefix.endswith("/") or path[len(prefix) : len(prefix) + 1] in ("", "/", ":")
    )
