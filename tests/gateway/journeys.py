"""What real clients do at a gateway, and what becomes of them; the same at each gateway."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import redis

from decider.contracts import store
from decider.contracts.event import Event, decode_batch
from decider.contracts.features import FEATURES
from tests.gateway.real import BLOCKED, SHED
from tests.gateway.running import Answer, Gateway, until

# Requests after which any plan of a small app is used up.
MANY = 400
# More preflights than each of two deciders, or a gateway's own limit, lets one client have.
MANY_PREFLIGHTS = 150
TOLD = ("sluice-decision", "ratelimit", "ratelimit-policy", "retry-after", "sluice-receipt")
PREFLIGHT = {"origin": "https://page.example", "access_control_request_method": "DELETE"}
FED_BACK = (
    *("auth_errors_60s", "client_errors_60s", "server_error_share_60s", "error_share_60s"),
    *("sign_ins_60s", "service_latency_ratio"),
)
ODD = (
    {"x_request_id": "r" * 200},
    {"x_request_id": "a b"},
    {"x_request_id": "é"},
    {"x_request_id": ""},
    {"x_request_id": "; drop"},
    {"x_sluice_attempt": "-1"},
    {"x_sluice_attempt": "1e9"},
    {"x_sluice_attempt": "9" * 100},
    {"x_sluice_attempt": "²"},
    {"x_sluice_attempt": ""},
    {"x_sluice_attempt": "one, two"},
    {"x_envoy_attempt_count": "NaN"},
    {"x_other": "\xff\xfe"},
    {"cookie": "c" * 7_000},
)


@dataclass
class World:
    gateway: Gateway
    client: redis.Redis

    def events(self) -> list[Event]:
        """All decisions that the deciders have recorded."""
        entries = self.client.xrange(store.EVENTS_STREAM)
        return [one for _, fields in entries for one in decode_batch(fields[b"b"]).events]

    def features(self, app: str) -> dict[str, float]:
        """The features of an app's latest decision, all of them 0 before one is recorded."""
        found = [event for event in self.events() if event.app == app]
        if not found:
            return dict.fromkeys((f.name for f in FEATURES), 0.0)
        values = np.frombuffer(max(found, key=lambda event: event.id).features, "<f4")
        return {f.name: float(v) for f, v in zip(FEATURES, values, strict=True)}


def told(answer: Answer) -> tuple[object, ...]:
    """What a client gets to know: the status, and which of our fields came with a value."""
    return (answer.status, *(name for name in TOLD if answer.headers.get(name)))


def use_up(gateway: Gateway, app: str) -> Answer:
    """Send requests until one is refused."""
    for _ in range(MANY):
        answer = gateway.get(app)
        if answer.status != 200:
            return answer
    raise AssertionError(f"none of {MANY} requests was refused")


def first_request(world: World) -> object:
    return told(world.gateway.get("app-first"))


def burst_used_up(world: World) -> object:
    answer = use_up(world.gateway, "app-hungry")
    return told(answer), answer.headers["content-type"], answer.json()["status"]


def waits_as_told(world: World) -> object:
    answer = use_up(world.gateway, "app-patient")
    time.sleep(int(answer.headers["retry-after"]))
    return told(world.gateway.get("app-patient"))


def blocked_app(world: World) -> object:
    return told(world.gateway.get(BLOCKED))


def shed_app(world: World) -> object:
    return told(world.gateway.get(SHED))


def no_credential(world: World) -> object:
    """Without a credential, and with the claim to be an app."""
    claims = ({}, {"x_sluice_app": "app-first"}, {"x_sluice_app": "preflights-of-127.0.0.1"})
    return tuple(world.gateway.get(None, **claim).status for claim in claims)


def outcomes_come_back(world: World) -> object:
    """Three failed sign-ins and an error reach the features of the app's next requests."""
    app = "app-outcomes"
    for _ in range(3):
        world.gateway.get(app, "/v2/auth/denied", method="POST", body=b"{}")
    world.gateway.get(app, "/v2/search/fail")

    def seen() -> bool:
        world.gateway.get(app, "/v2/search")
        found = world.features(app)
        return found["auth_errors_60s"] > 0 and found["server_error_share_60s"] > 0

    until(seen, "the outcomes in the features")
    found = world.features(app)
    return [name for name in FED_BACK if found[name] > 0]


def preflights(world: World) -> object:
    """One passes, a flood is limited, and none counts for the app that is named or claimed."""
    gateway = world.gateway
    claim = {"x_sluice_app": "app-page"}
    first = gateway.get(None, "/v2/search", method="OPTIONS", **PREFLIGHT, **claim)
    flood = [
        gateway.get("app-page", "/v2/search", method="OPTIONS", **PREFLIGHT)
        for _ in range(MANY_PREFLIGHTS)
    ]
    refused = [answer for answer in flood if answer.status != 200]
    own = gateway.get("app-page", "/v2/search")
    decided = {event.method for event in world.events() if event.app == "app-page"}
    return (
        (first.status, first.json().get("x-sluice-app"), own.status, decided - {"GET"}),
        {answer.status for answer in refused},
        all("retry-after" in answer.headers for answer in refused),
    )


def other_options(world: World) -> object:
    """OPTIONS that no browser sent for a page is decided as any request."""
    answers = [
        world.gateway.get("app-options", "/v2/search", method="OPTIONS", **fields)
        for fields in (
            {},
            {"origin": "https://page.example"},
            {"access_control_request_method": "GET"},
        )
    ]
    return [told(answer) for answer in answers]


def exposed(answer: Answer) -> tuple[list[str], str | None]:
    names = re.split(r",\s*", answer.headers.get("access-control-expose-headers", ""))
    return sorted(names), answer.headers.get("access-control-allow-origin")


def pages_may_read(world: World) -> object:
    """The fields that a page's script may read: of an answer, of one whose service exposes fields
    of its own, of a refusal, and of an answer to no page.
    """
    origin = {"origin": "https://page.example"}
    return (
        exposed(world.gateway.get("app-first", **origin)),
        exposed(world.gateway.get("app-first", "/v2/orders/exposes", **origin)),
        exposed(use_up_at(world.gateway, "app-page-2", origin)),
        exposed(world.gateway.get("app-first")),
    )


def use_up_at(gateway: Gateway, app: str, fields: dict[str, str]) -> Answer:
    use_up(gateway, app)
    return gateway.get(app, **fields)


def odd_headers(world: World) -> object:
    return [world.gateway.get("app-odd", **fields).status for fields in ODD]


def request_ids(world: World) -> object:
    """A sound id is the request's, at the service and in the record; an odd one is replaced or
    ignored there.
    """
    world.gateway.get("app-id", x_request_id="r-sound-1")
    world.gateway.get("app-id", x_request_id="r odd 1")
    until(lambda: len([e for e in world.events() if e.app == "app-id"]) >= 2, "the records")
    ids = [event.request_id for event in world.events() if event.app == "app-id"]
    return "r-sound-1" in ids, "r odd 1" in ids


def long_paths(world: World) -> object:
    return [
        world.gateway.get("app-long", "/v2/orders/" + "a" * length).status
        for length in (1_000, 2_000, 7_500, 9_000)
    ]


def deciders_dead(world: World) -> object:
    """What clients get when no decider answers."""
    for node in ("d01", "d02"):
        world.gateway.kill(node)
    time.sleep(3)  # until the gateway knows
    answers = [world.gateway.get("app-unlucky") for _ in range(60)]
    refused = [answer for answer in answers if answer.status != 200]
    preflight = world.gateway.get(None, "/v2/search", method="OPTIONS", **PREFLIGHT)
    return answers[0].status, told(refused[-1]), preflight.status


# In this order: the last ends the deciders.
JOURNEYS: tuple[Callable[[World], object], ...] = (
    first_request,
    burst_used_up,
    waits_as_told,
    blocked_app,
    shed_app,
    no_credential,
    outcomes_come_back,
    other_options,
    pages_may_read,
    odd_headers,
    request_ids,
    long_paths,
    preflights,
    deciders_dead,
)
