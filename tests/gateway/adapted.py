"""The examples as someone adapts them: each place that is marked "yours" gets a form of its own.

Own services on own ports behind own prefixes, three deciders (on TCP with a secret behind Envoy, on
Unix sockets behind the others), TLS, an app that its certificate or,
behind Envoy, a token of another issuer names, a load balancer in front, and limits, files and
choices of one's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from console.local.gateway import EXAMPLE, render_envoy_config
from learning.traffic import tokens
from tests.gateway.running import FILES

MARK = re.compile(r"\byours\b")
# What the mark means, in the head of each example.
ABOUT = '# To adapt it, change what is marked "yours".\n'
# Own service -> its prefix; longer prefixes come first.
PREFIXES = {"billing": "/shop/v1/billing", "shop": "/shop/v1"}
DECIDERS = ("d01", "d02", "d03")
NAMES = ("gateway", *DECIDERS, *PREFIXES)
# What each adapted gateway reaches through Unix sockets: the other way than as it ships.
SOCKETS = {"envoy": ("envoy-check", "envoy-admin"), "nginx": DECIDERS, "caddy": DECIDERS}
# What happens without an answer: billing is refused, the shop has the local limit; Caddy, which has
# none, lets the shop through.
LIMITED, REFUSED = "shop", "billing"
ISSUER, AUDIENCE, CLAIM = "https://login.acme.test", "acme", "azp"
# Requests at once while no decider answers, of one app (nginx: of one client) and of all; and
# preflights, of one client and of all.
BURSTS = (3, 8, 4, 10)


def marks(text: str) -> list[str]:
    """Return the lines that are still marked."""
    return [line for line in text.replace(ABOUT, "").splitlines() if MARK.search(line)]


def example(gateway: str) -> str:
    return (EXAMPLE.parent / FILES[gateway]).read_text()


def once(text: str, old: str, new: str) -> str:
    """Replace what stands in an example exactly once."""
    assert text.count(old) == 1, f"{text.count(old)} times: {old}"
    return text.replace(old, new)


def between(text: str, start: str, end: str, new: str) -> str:
    """Replace from `start` to right before the next `end`."""
    begun = text.index(start)
    return text[:begun] + new + text[text.index(end, begun) :]


def envoy(ports: Mapping[str, int], folder: Path) -> str:
    def address(name: str) -> str:
        where = f"{{ address: 127.0.0.1, port_value: {ports[name]} }}"
        return f"{{ address: {{ socket_address: {where} }} }}"

    def endpoints(*names: str) -> str:
        return ", ".join(f"{{ endpoint: {address(name)} }}" for name in names)

    text = render_envoy_config(
        {**ports, "services": 1, **{name: folder / f"{name}.sock" for name in SOCKETS["envoy"]}},
        folder / "sluice-access.json",
        folder / tokens.JWKS_FILE,
        folder / "rules" / "rules.json",
        1,
    )
    text = once(text, "1 # yours # up: trusted-hops", "1")
    text = once(
        text, "      # yours: 0.0.0.0 and a TLS transport_socket when this is your edge\n", ""
    )
    text = text.replace(
        "        - filters:",
        f"        - transport_socket: {_tls_of_envoy(folder)}\n          filters:",
        1,
    )
    routes = "".join(
        f"{' ' * 24}- {{ name: {name}, match: {{ {how}: {prefix} }},"
        f" route: {{ cluster: {name} }}{_refuses if name == REFUSED else ''} }}\n"
        for name, path in PREFIXES.items()
        for how, prefix in (("path_separated_prefix", path), ("prefix", f'"{path}:"'))
    )
    text = between(
        text,
        " " * 22 + "# yours: one route",
        " " * 16 + "http_filters:\n" + " " * 18 + "# 1.",
        " " * 22 + "routes:\n" + routes,
    )
    text = _app_of_envoy(text)
    for burst in BURSTS:
        text = re.sub(
            r"token_bucket: \{[^}]*\} # yours",
            f"token_bucket: {{ max_tokens: {burst}, fill_interval: 60s }}",
            text,
            count=1,
        )
    text = between(
        text,
        "- lb_endpoints: # yours: every decider",
        "\n\n",
        f"- lb_endpoints: [{endpoints(*DECIDERS)}]",
    )
    text = re.sub(r" +# yours, where deciders listen on TCP.*\n", "", text)
    text = re.sub(
        r"# (request_headers_to_add:\n +)# ( - \{ header: \{ key: x-sluice-secret)", r"\1 \2", text
    )
    clusters = "".join(
        f"    - {{ name: {name}, connect_timeout: 1s, type: STATIC, load_assignment:"
        f" {{ cluster_name: {name}, endpoints: [{{ lb_endpoints: [{endpoints(name)}] }}] }} }}\n"
        for name in PREFIXES
    )
    return text[: text.index("    # yours: your services")] + clusters


_refuses = (
    ', typed_per_filter_config: { sluice.refuse: { "@type":'
    " type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {} } }"
)


def _app_of_envoy(text: str) -> str:
    """Take the app from a claim of another issuer's tokens or, without one, from a certificate."""
    text = once(text, "issuer: https://id.example.com # yours", f"issuer: {ISSUER}")
    text = once(text, "audiences: [orders-api] # yours", f"audiences: [{AUDIENCE}]")
    text = re.sub(r" +# yours: Envoy reads this file.*\n", "", text)
    text = re.sub(r"(claim_to_headers:) # yours.*", r"\1", text)
    text = once(text, "claim_name: sub", f"claim_name: {CLAIM}")
    either = "{ requires_any: { requirements: [{ provider_name: apps }, { allow_missing: {} }] } }"
    text = re.sub(
        r"requires: \{ provider_name: apps \} # yours.*", lambda _: f"requires: {either}", text
    )
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
    header = '{ key: x-sluice-app, value: "%DOWNSTREAM_PEER_SUBJECT%" }'
    named = (
        f'{{ name: certificate, typed_config: {{ "@type": {kind}, mutations: {{ request_mutations:'
        f" [{{ append: {{ header: {header}, append_action: ADD_IF_ABSENT }} }}] }} }} }}"
    )
    mark = " " * 18 + "# 3. Ask Sluice."
    return once(text, mark, f"{' ' * 18}- {named}\n{mark}")


def _tls_of_envoy(folder: Path) -> str:
    pair = {
        "certificate_chain": {"filename": f"{folder}/server.pem"},
        "private_key": {"filename": f"{folder}/server.key"},
    }
    clients = {"trusted_ca": {"filename": f"{folder}/ca.pem"}}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    context = {
        "@type": kind,
        "common_tls_context": {"tls_certificates": [pair], "validation_context": clients},
    }
    return json.dumps({"name": "envoy.transport_sockets.tls", "typed_config": context})


def nginx(ports: Mapping[str, int], folder: Path) -> str:
    def upstream(name: str, *servers: str) -> str:
        each = "".join(f"        server {place(server)};\n" for server in servers)
        return f"    upstream {name} {{\n{each}        keepalive 64;\n    }}\n"

    def place(name: str) -> str:
        on_socket = name in SOCKETS["nginx"]
        return f"unix:{folder}/{name}.sock" if on_socket else f"127.0.0.1:{ports[name]}"

    text = example("nginx")
    text = re.sub(
        r" +# yours: a file of one line.*\n +include sluice-secret.conf; # yours.*\n", "", text
    )
    hashed = upstream("deciders", *DECIDERS).replace(
        "{", "{\n        hash $ssl_client_s_dn consistent;", 1
    )
    text = between(text, "    # yours: every decider", "    # yours: your services", hashed)
    services = "".join(upstream(name, name) for name in PREFIXES)
    text = between(
        text, "    # yours: your services", "    # yours: the service of a path", services
    )
    routes = "".join(f"        ~^{path}(?:[/:]|$) {name};\n" for name, path in PREFIXES.items())
    text = between(
        text,
        "    # yours: the service of a path",
        "    # yours: behind a load balancer",
        f'    map $uri $service {{\n        default "";\n{routes}    }}\n',
    )
    text = between(
        text,
        "    # yours: behind a load balancer",
        "    # What happens to requests",
        "    set_real_ip_from 127.0.0.0/8;\n    real_ip_header X-Forwarded-For;\n"
        "    real_ip_recursive on;\n",
    )
    text = once(text, " yours: for each service", " For each service")
    text = once(
        text,
        "        payments refuse;\n        search pass;\n",
        f"        {REFUSED} refuse;\n",
    )
    text = once(
        text,
        "include rules/sources.geo; # yours: the agent's folder",
        f"include {folder}/own/sources.geo;",
    )
    text = re.sub(r"(limit_req_zone .* rate=)\d+r/s; # yours", r"\g<1>1r/m;", text)
    for burst in BURSTS:  # nginx admits one beside its burst
        text = re.sub(r"burst=\d+ nodelay; # yours", f"burst={burst - 1} nodelay;", text, count=1)
    text = once(
        text,
        "access_log sluice-access.json sluice; # yours",
        f"access_log {folder}/sluice-access.json sluice;",
    )
    tls = "".join(
        f"        {line};\n"
        for line in (
            f"listen 127.0.0.1:{ports['gateway']} ssl",
            f"ssl_certificate {folder}/server.pem",
            f"ssl_certificate_key {folder}/server.key",
            f"ssl_client_certificate {folder}/ca.pem",
            "ssl_verify_client optional",
        )
    )
    text = between(
        text, "        listen 127.0.0.1:8090; # yours", "        recursive_error_pages", tls
    )
    text = between(
        text,
        "            # yours: where apps sign in here",
        "            proxy_connect_timeout",
        "            proxy_set_header X-Sluice-App $ssl_client_s_dn;\n",
    )
    text = re.sub(
        r"Authorization \$http_authorization; # yours.*", "X-Api-Key $http_x_api_key;", text
    )
    text = once(text, '"app":"$sluice_app"', '"app":"$ssl_client_s_dn"')
    return once(text, "X-Sluice-App $sluice_app", "X-Sluice-App $ssl_client_s_dn")


def caddy(ports: Mapping[str, int], folder: Path) -> str:
    text = example("caddy")
    tls = (
        f"https://localhost:{ports['gateway']} {{\n"
        f"\ttls {folder}/server.pem {folder}/server.key {{\n\t\tclient_auth {{\n"
        f"\t\t\tmode verify_if_given\n\t\t\ttrusted_ca_cert_file {folder}/ca.pem\n\t\t}}\n\t}}\n"
    )
    text = between(text, "http://127.0.0.1:8091 { # yours", "\t# yours: the service of a path", tls)
    routes = "".join(f"\t\t~^{path}(?:[/:]|$) {name}\n" for name, path in PREFIXES.items())
    text = between(
        text,
        "\t# yours: the service of a path",
        "\n\t# The client's address",
        f"\tmap {{path}} {{service}} {{\n{routes}\t\tdefault none\n\t}}\n",
    )
    text = once(text, " yours: behind a load\n", " Behind a load\n")
    text = re.sub(r"remote_ip 192\.0\.2\.0/32 # yours", "remote_ip 127.0.0.0/8", text)
    text = between(
        text,
        "\t\t# Anybody could write it. yours",
        "\t\tforward_auth",
        "\t\trequest_header X-Sluice-App {http.request.tls.client.subject}\n",
    )
    text = re.sub(r"\t\t\tcopy_headers Sluice-App.*# yours.*\n", "", text)
    text = re.sub(
        r"lb_policy header Authorization # yours.*", "lb_policy header X-Sluice-App", text
    )
    text = re.sub(r"vars \{service\} search # yours.*", f"vars {{service}} {LIMITED}", text)
    text = once(
        text,
        "reverse_proxy @unasked 127.0.0.1:9200 { # yours",
        f"reverse_proxy @unasked 127.0.0.1:{ports[LIMITED]} {{",
    )
    text = once(
        text,
        "output file sluice-access.json { # yours",
        f"output file {folder}/sluice-access.json {{",
    )
    text = re.sub(
        r"request>headers>X-Api-Key delete # yours.*", "request>headers>X-Secret delete", text
    )
    where = " ".join(f"unix/{folder}/{name}.sock" for name in SOCKETS["caddy"])
    text = re.sub(r"\t+# yours: every decider of this.*\n", "", text)
    text = re.sub(r"forward_auth .* # yours.*", f"forward_auth {where} {{", text)
    text = re.sub(r"\t+header_up X-Sluice-Secret.*\n", "", text)
    services = "".join(
        f"\t\t@{name} vars {{service}} {name}\n\t\treverse_proxy @{name} 127.0.0.1:{ports[name]}\n"
        for name in PREFIXES
    )
    return text[: text.index("\t\t# yours: your services")] + services + "\t}\n}\n"


ADAPT = {"envoy": envoy, "nginx": nginx, "caddy": caddy}
