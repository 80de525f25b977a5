"""The rules as Envoy reads them: a file with one RBAC filter, which it takes in again whenever the
file is replaced (ECDS from a path).

The filter asks first whether the request went unasked, so that deciders refuse by themselves, with
a record and a receipt, as long as one answers. What is no rule's is let on. Subjects are found in
a hash table or a trie, whatever their number.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from decider.gateway.rules import Held, Level

NAME = "sluice.rules"
# Set by Envoy on requests that no decider answered, and removed from what clients send.
UNASKED = "x-envoy-auth-failure-mode-allowed"
_HEADERS = {"app": "x-sluice-app", "tenant": "x-sluice-tenant"}
_TYPES = "type.googleapis.com/"
_RBAC = _TYPES + "envoy.extensions.filters.http.rbac.v3.RBAC"
_HEADER_INPUT = _TYPES + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_SOURCE_INPUT = _TYPES + "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput"
_IP_MATCHER = _TYPES + "envoy.extensions.matching.input_matchers.ip.v3.Ip"

Node = dict[str, Any]


def _action(name: str, verdict: str) -> Node:
    config = {"@type": _TYPES + "envoy.config.rbac.v3.Action", "name": name, "action": verdict}
    return {"action": {"name": name, "typed_config": config}}


_LET_ON = _action("let_on", "ALLOW")
_REFUSE = _action("blocked", "DENY")


def render(held: Held) -> bytes:
    """Return the contents of the file."""
    then = _LET_ON
    for level in reversed(held.levels):
        then = {"matcher": _matcher(level, then)}
    unasked = _by_header(UNASKED, {"true": then}, _LET_ON)
    filter_config = {"@type": _RBAC, "matcher": unasked}
    resource = {
        "@type": _TYPES + "envoy.config.core.v3.TypedExtensionConfig",
        "name": NAME,
        "typed_config": filter_config,
    }
    return msgspec.json.encode({"resources": [resource]})


def _matcher(level: Level, otherwise: Node) -> Node:
    if level.kind == "source":
        return _by_source(level.refused, otherwise)
    found = {s: _REFUSE if refused else _LET_ON for s, refused in level.refused.items()}
    return _by_header(_HEADERS[level.kind], found, otherwise)


def _by_header(name: str, found: dict[str, Node], otherwise: Node) -> Node:
    asked = {"name": name, "typed_config": {"@type": _HEADER_INPUT, "header_name": name}}
    tree = {"input": asked, "exact_match_map": {"map": found}}
    return {"matcher_tree": tree, "on_no_match": otherwise}


def _by_source(refused: dict[str, bool], otherwise: Node) -> Node:
    asked = {"name": "source", "typed_config": {"@type": _SOURCE_INPUT}}
    matchers = []
    for verdict, then in ((True, _REFUSE), (False, _LET_ON)):
        ranges = [_range(text) for text, refuses in refused.items() if refuses is verdict]
        if ranges:
            trie = {"@type": _IP_MATCHER, "cidr_ranges": ranges, "stat_prefix": "sluice_rules"}
            custom = {"name": "ip", "typed_config": trie}
            single = {"single_predicate": {"input": asked, "custom_match": custom}}
            matchers.append({"predicate": single, "on_match": then})
    return {"matcher_list": {"matchers": matchers}, "on_no_match": otherwise}


def _range(text: str) -> Node:
    network = ipaddress.ip_network(text)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
