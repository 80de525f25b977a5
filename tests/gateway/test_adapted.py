"""Each example as someone adapts it, on the real gateway: every place that is marked "yours" has a
form of its own, and that form does what it should.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts.files import write_atomically
from decider.contracts.requests import Outcome
from decider.gateway import envoy as envoy_rules
from decider.gateway import nginx as nginx_rules
from decider.gateway.rules import Held, Level
from decider.node.feedback import outcome
from learning.traffic import tokens
from tests.decider import signing
from tests.gateway import adapted, certificates, running
from tests.gateway.journeys import PREFLIGHT
from tests.gateway.running import CADDY, NGINX, Answer, Gateway, stub, until

INSTALLED = {"envoy": True, "nginx": NGINX is not None, "caddy": CADDY is not None}
APPS = tuple(f"app-{k}" for k in range(24))
BLOCKED = APPS[-1]
REFUSED = adapted.PREFIXES[adapted.REFUSED]


class World(NamedTuple):
    name: str
    gateway: Gateway
    speaks: dict[str, ssl.SSLContext]
    """How each app speaks, by its certificate."""

    def get(self, path: str = "/shop/v1/1", app: str = APPS[0], **options: str) -> Answer:
        self.gateway.tls = self.speaks[app]
        return self.gateway.get(None, path, **options)


@pytest.mark.parametrize("name", adapted.FILES)
def test_every_mark_has_an_adapted_form(name: str) -> None:
    assert adapted.marks(adapted.example(name))
    text = adapted.ADAPT[name](dict.fromkeys(adapted.NAMES, 1), Path("/of-mine"))
    assert adapted.marks(text) == []


def test_a_mark_without_an_adapted_form_would_be_found() -> None:
    assert adapted.marks("a: 1 # yours\n" + adapted.ABOUT) == ["a: 1 # yours"]


@pytest.fixture(scope="module", params=sorted(adapted.FILES))
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """An adapted gateway with its own services, and deciders that answer as told."""
    name, folder = request.param, tmp_path_factory.mktemp(f"adapted-{request.param}")
    if not INSTALLED[name]:
        pytest.skip(f"{name} is not installed")
    speaks = certificates.write(folder, APPS)
    names, sockets = adapted.NAMES, adapted.SOCKETS[name]
    it = World(name, running.made(folder, names=names, sockets=sockets), speaks)
    write_rules(folder)
    text = adapted.ADAPT[name](it.gateway.places, folder).replace("0.015s", "0.5s")
    # before the gateway, whose small limits would be used up while none answers
    for node in adapted.DECIDERS:
        it.gateway.start(node, stub(it.gateway, node))
    with running.around(it.gateway, name, text, tuple(adapted.PREFIXES)):
        until(lambda: met(it) == set(adapted.DECIDERS), "all deciders")
        yield it


def write_rules(folder: Path) -> None:
    """Write the agent's files, which block one app and one network."""
    levels = (Level("app", {f"CN={BLOCKED}": True}), Level("source", {"203.0.113.0/24": True}))
    write_atomically(folder / "rules" / "rules.json", envoy_rules.render(Held(levels)))
    write_atomically(folder / "own" / "sources.geo", nginx_rules.render_sources(Held(levels)))


def met(world: World) -> set[str]:
    """The deciders that answer for the apps."""
    answers = [world.get(app=app) for app in APPS]
    return {answer.headers.get("ratelimit", "").rpartition(";")[2] for answer in answers} - {""}


@pytest.mark.parts
def test_a_request_reaches_the_own_service_of_its_prefix(world: World) -> None:
    for path, service in {
        "/shop/v1": "shop",
        "/shop/v1/items/1": "shop",
        "/shop/v1:batchGet": "shop",
        "/shop/v1/billing/2": "billing",
        "/shop/v1/billing:pay": "billing",
        "/shop/v1/billingX": "shop",
    }.items():
        answer = world.get(path)
        assert (answer.status, answer.service) == (200, service)
        assert answer.headers["x-served-by"] == service
    assert {world.get(path).status for path in ("/v2/orders/1", "/shop/v12")} == {404}


@pytest.mark.parts
def test_the_app_is_the_one_that_its_certificate_names(world: World) -> None:
    answer = world.get(app="app-7", x_sluice_app="forged")
    assert answer.app == "CN=app-7"
    assert answer.json()["x-sluice-app"] == "CN=app-7"


@pytest.mark.parts
def test_behind_envoy_a_token_of_the_own_issuer_names_the_app(world: World) -> None:
    if world.name != "envoy":  # the others cannot read one
        return
    raw = (world.gateway.log.parent / tokens.KEY_FILE).read_text()
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(raw))
    own = {"iss": adapted.ISSUER, "aud": adapted.AUDIENCE, adapted.CLAIM: "app-of-token"}
    good = f"Bearer {signing.token('subject', key, **own)}"
    assert world.get(authorization=good).app == "app-of-token"
    assert world.get(authorization=f"Bearer {signing.token('subject', key)}").status == 401


@pytest.mark.parts
def test_the_load_balancer_says_who_the_client_is_and_no_word_before_counts(world: World) -> None:
    assert world.get(x_forwarded_for="6.6.6.6, 203.0.113.9").source == "203.0.113.9"
    assert world.get(x_forwarded_for="2001:db8::9").source == "2001:db8::9"
    assert world.get(x_forwarded_for="6.6.6.6", x_sluice_source="7.7.7.7").source == "6.6.6.6"


@pytest.mark.parts
def test_each_decider_has_apps_of_its_own(world: World) -> None:
    def homes() -> dict[str, set[str]]:
        return {app: {decider_of(world.get(app=app)) for _ in range(4)} for app in APPS}

    # one that was slow for a moment is out for seconds, and its apps are with the others
    until(lambda: set.union(*homes().values()) == set(adapted.DECIDERS), "every decider", 60.0)
    assert all(len(found) == 1 for found in homes().values())


def decider_of(answer: Answer) -> str:
    return answer.headers["ratelimit"].rpartition(";")[2]


@pytest.mark.parts
def test_the_own_log_becomes_outcomes_and_holds_no_secret(world: World) -> None:
    world.get("/shop/v1/billing/2?q=hunter2", x_secret="hunter2", authorization="Basic hunter2")

    def told() -> list[Outcome]:
        lines = world.gateway.log.read_bytes().splitlines() if world.gateway.log.exists() else []
        found = [outcome(line, time.time()) for line in lines]
        return [one for one in found if one and one.endpoint == "GET /shop/v1/billing/{id}"]

    until(lambda: bool(told()), "the line")
    one = told()[-1]
    assert (one.app, one.service, one.named) == ("CN=app-0", "billing", "billing")
    assert (one.status, one.decision) == (200, "dec_" + "0" * 32)
    assert b"hunter2" not in world.gateway.log.read_bytes()


@pytest.mark.parts
def test_the_own_limits_hold_for_preflights(world: World) -> None:
    if world.name == "caddy":  # has no limit of its own
        return
    _, _, one, everyone = adapted.BURSTS
    preflights = [preflight(world, "198.51.100.1") for _ in range(one + 1)]
    assert preflights == [200] * one + [429]
    assert [preflight(world, f"198.51.100.{k}") for k in range(2, 20)].count(200) == everyone - one


@contextmanager
def without_deciders(world: World) -> Iterator[None]:
    for node in adapted.DECIDERS:
        world.gateway.kill(node)
    try:
        until(lambda: world.get(REFUSED).status == 503, "the deciders' end")
        yield
    finally:
        for node in adapted.DECIDERS:
            world.gateway.start(node, stub(world.gateway, node))
        until(lambda: met(world) == set(adapted.DECIDERS), "all deciders")


@pytest.mark.parts
def test_without_a_decider_the_own_choices_limits_and_block_rules_hold(world: World) -> None:
    with without_deciders(world):
        answer = world.get(REFUSED)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        if world.name == "caddy":  # lets the shop through, and holds no rules itself
            passed = world.get(x_sluice_app="forged")
            assert (passed.status, passed.json().get("x-sluice-app")) == (200, None)
            return
        assert world.get(REFUSED, x_forwarded_for="203.0.113.9").status == 403
        if world.name == "envoy":  # nginx cannot tell who is blocked
            assert world.get(app=BLOCKED).status == 403
        own_limits_hold(world)


def own_limits_hold(world: World) -> None:
    one, everyone, _, _ = adapted.BURSTS
    # one app at one address, as Envoy limits the one and nginx the other
    statuses = [
        world.get(app=APPS[1], x_forwarded_for="198.51.100.200").status for _ in range(one + 1)
    ]
    assert statuses == [200] * one + [429]
    others = [
        world.get(app=app, x_forwarded_for=f"198.51.100.{k}").status
        for k, app in enumerate(APPS[2:], 1)
    ]
    assert 0 < others.count(200) <= everyone - one


def preflight(world: World, client: str) -> int:
    world.gateway.tls = world.speaks[APPS[0]]
    return world.gateway.get(
        None, "/shop/v1", method="OPTIONS", x_forwarded_for=client, **PREFLIGHT
    ).status
