"""Requests, and how each server writes them into its access log."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

START = datetime(2024, 10, 10, 13, 0, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as its client sent it and the server answered."""

    at: datetime
    client: str
    method: str
    target: str
    path: str
    status: int
    received: int
    sent: int
    took_ms: int
    agent: str
    request_id: str


def mixed(count: int = 100, seed: int = 7) -> list[Sent]:
    """Return requests of several clients, methods, paths and answers, one each second."""
    draw = random.Random(seed)
    targets = [
        ("/v2/orders/17?q=1", "/v2/orders/17"),
        ("/", "/"),
        ("/a%20b/c", "/a%20b/c"),
        ("/search?q=%22x%22#top", "/search"),
        ("/x" * 40, "/x" * 40),
    ]
    clients = ["192.0.2.1", "198.51.100.7", "203.0.113.99", "2001:db8:1:2::5"]
    return [
        Sent(
            START + timedelta(seconds=n),
            draw.choice(clients),
            draw.choice(["GET", "POST", "DELETE", "PROPFIND"]),
            *draw.choice(targets),
            draw.choice([200, 201, 304, 404, 429, 499, 503]),
            draw.randrange(5_000),
            draw.randrange(50_000),
            draw.randrange(3_000),
            draw.choice(["curl/8", "Mozilla/5.0 (X11; Linux x86_64) [en]"]),
            f"req-{n}",
        )
        for n in range(count)
    ]


def clf(at: datetime) -> str:
    return at.astimezone(timezone(timedelta(hours=3, minutes=30))).strftime("%d/%b/%Y:%H:%M:%S %z")


def iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def common(r: Sent) -> str:
    line = f"{r.method} {r.target} HTTP/1.1"
    return f'{r.client} - frank [{clf(r.at)}] "{line}" {r.status} {r.sent}'


def combined(r: Sent) -> str:
    return f'{common(r)} "https://shop.example/" "{r.agent}"'


def vhost(r: Sent) -> str:
    return f"shop.example:443 {combined(r)}"


def vhost_without_port(r: Sent) -> str:
    return f"shop.example {combined(r)}"


def traefik(r: Sent) -> str:
    return f'{combined(r)} 17 "web@docker" "http://10.0.0.1:80" {r.took_ms}ms'


def envoy(r: Sent) -> str:
    return (
        f'[{iso(r.at)[:-4]}Z] "{r.method} {r.target} HTTP/2" {r.status} - {r.received} {r.sent}'
        f' {r.took_ms} 9 "10.9.9.9, {r.client}" "{r.agent}" "{r.request_id}" "shop" "10.0.0.1:80"'
    )


def alb(r: Sent) -> str:
    ended, seconds = r.at + timedelta(milliseconds=r.took_ms), r.took_ms / 1000
    client = f"[{r.client}]" if ":" in r.client else r.client
    return (
        f"https {iso(ended)} app/shop/50dc6c495c0c9188 {client}:2817 10.0.0.1:80"
        f" 0.000 {seconds:.3f} 0.000 {r.status} 200 {r.received} {r.sent}"
        f' "{r.method} https://shop.example:443{r.target} HTTP/1.1" "{r.agent}"'
        " ECDHE-RSA-AES128-GCM-SHA256 TLSv1.2"
        " arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/t/73e2d6bc24d8a067"
        f' "{r.request_id}" "shop.example" "-" 0 {iso(r.at)} "forward" "-" "-" "10.0.0.1:80"'
        ' "200" "-" "-"'
    )


def caddy(r: Sent) -> str:
    ended = r.at.timestamp() + r.took_ms / 1000
    return json.dumps(
        {
            "level": "info",
            "ts": ended,
            "logger": "http.log.access.log0",
            "msg": "handled request",
            "request": {
                "remote_ip": "10.0.0.9",
                "remote_port": "41342",
                "client_ip": r.client,
                "proto": "HTTP/2.0",
                "method": r.method,
                "host": "shop.example",
                "uri": r.target,
                "headers": {"User-Agent": [r.agent], "X-Request-Id": [r.request_id]},
            },
            "bytes_read": r.received,
            "user_id": "",
            "duration": r.took_ms / 1000,
            "size": r.sent,
            "status": r.status,
            "resp_headers": {"Server": ["Caddy"]},
        }
    )


def traefik_json(r: Sent) -> str:
    return json.dumps(
        {
            "ClientAddr": f"{r.client}:54321",
            "ClientHost": r.client,
            "DownstreamContentSize": r.sent,
            "DownstreamStatus": r.status,
            "Duration": r.took_ms * 1_000_000,
            "RequestContentSize": r.received,
            "RequestMethod": r.method,
            "RequestPath": r.target,
            "ServiceName": "web@docker",
            "StartUTC": iso(r.at)[:-1] + "123Z",
            "entryPointName": "web",
            "level": "info",
            "msg": "",
            "request_User-Agent": r.agent,
            "request_X-Request-Id": r.request_id,
            "time": iso(r.at),
        }
    )


def envoy_json(r: Sent) -> str:
    client = f"[{r.client}]" if ":" in r.client else r.client
    return json.dumps(
        {
            "start_time": iso(r.at),
            "method": r.method,
            "path": r.target,
            "response_code": r.status,
            "bytes_received": r.received,
            "bytes_sent": r.sent,
            "duration": r.took_ms,
            "x_forwarded_for": "10.9.9.9",
            "user_agent": r.agent,
            "request_id": r.request_id,
            "upstream_host": "10.0.0.1:80",
            "upstream_cluster": "outbound|80||shop",
            "downstream_remote_address": f"{client}:4711",
        }
    )


def gateway(r: Sent) -> str:
    """The line of the gateway that comes with Sluice, by a client without an app."""
    return json.dumps(
        {
            "ts": iso(r.at),
            "method": r.method,
            "path": r.path,
            "status": r.status,
            "duration_ms": r.took_ms,
            "app": None,
            "request_id": r.request_id,
            "decision": None,
            "service": "shop",
            "source": r.client,
            "bytes_in": r.received,
            "bytes_out": r.sent,
            "flags": "-",
        }
    )


# How a server writes, the format that it is, and what of a request it does not write.
NOTHING: frozenset[str] = frozenset()
SIZES_OUT_ONLY = frozenset({"received", "took_ms", "request_id"})
WRITERS: dict[str, tuple[Callable[[Sent], str], str, frozenset[str]]] = {
    "common": (common, "common", SIZES_OUT_ONLY | {"agent"}),
    "combined": (combined, "combined", SIZES_OUT_ONLY),
    "vhost": (vhost, "vhost", SIZES_OUT_ONLY),
    "vhost without port": (vhost_without_port, "vhost", SIZES_OUT_ONLY),
    "traefik": (traefik, "traefik", frozenset({"received", "request_id"})),
    "envoy": (envoy, "envoy", NOTHING),
    "alb": (alb, "alb", NOTHING),
    "caddy": (caddy, "caddy", NOTHING),
    "traefik-json": (traefik_json, "traefik-json", NOTHING),
    "envoy-json": (envoy_json, "envoy-json", NOTHING),
    "gateway": (gateway, "envoy-json", frozenset({"agent"})),
}
