"""From a method and path to the endpoint, its service and its cost.

Path segments that look like identifiers become `{id}`, so that endpoints are few and no identifier is stored.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .config import Config, EndpointPolicy

_IDENTIFIER = re.compile(
    r"\d+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?=[^/]*\d)[0-9a-fA-F]{12,}|[A-Za-z]{1,8}_[0-9A-Za-z]{4,}|(?=[^/]*\d)[0-9A-Za-z_-]{20,}"
)
_CACHED_PATHS = 65_536
_LONGEST_TEMPLATE = 200
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Route(NamedTuple):
    """Where a request goes. `endpoint_hash` is this process's own."""

    endpoint: str
    endpoint_hash: int
    service: int
    """Row of the service in the config document."""
    cost: float
    batch: str
    """How to ask for many at once, empty when there is no batch form."""
    write: int


def template_of(path: str) -> str:
    """`/v2/orders/123` -> `/v2/orders/{id}`; cut to 200 characters."""
    parts = ["{id}" if _IDENTIFIER.fullmatch(part) else part for part in path.split("/")]
    return "/".join(parts)[:_LONGEST_TEMPLATE]


class Router:
    """Routes of one config document, with a bounded cache."""

    def __init__(self, config: Config) -> None:
        self.names = [s.name for s in config.services]
        self.index = {name: row for row, name in enumerate(self.names)}
        self._prefixes = sorted(
            ((prefix, row) for row, s in enumerate(config.services) for prefix in s.prefixes), key=lambda item: -len(item[0])
        )
        self._endpoints: dict[tuple[int, str, str], EndpointPolicy] = {
            (row, e.method, e.template): e for row, s in enumerate(config.services) for e in s.endpoints
        }
        self._cache: dict[str, Route] = {}

    def route(self, method: str, path: str) -> Route:
        key = method + path
        if (found := self._cache.get(key)) is not None:
            return found
        if len(self._cache) >= _CACHED_PATHS:
            self._cache.clear()
        template = template_of(path)
        service = next((row for prefix, row in self._prefixes if _under(path, prefix)), 0)
        policy = self._endpoints.get((service, method, template))
        cost, batch = (policy.cost, policy.batch) if policy else (1.0, "")
        made = self._cache[key] = Route(template, hash(method + template), service, cost, batch, int(method in WRITES))
        return made


def _under(path: str, prefix: str) -> bool:
    """Whether a path is the prefix or lies below it; `/v2/orders:batchGet` lies below `/v2/orders`, `/v2/ordersX` does not."""
    return path.startswith(prefix) and (prefix.endswith("/") or path[len(prefix) : len(prefix) + 1] in ("", "/", ":"))
