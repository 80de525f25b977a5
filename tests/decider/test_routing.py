"""From a path to an endpoint, whatever clients make up."""

import time

import msgspec
import numpy as np
import pytest

from decider.contracts import defaults
from decider.contracts.config import EndpointPolicy
from decider.engine.buffers import ROUTE_FIELDS
from decider.engine.routing import (
    MOST_OTHERS,
    OTHER,
    OTHER_METHOD,
    READ,
    SIGN_IN,
    WRITE,
    Router,
    kind_of,
    template_of,
)
from decider.engine.text_hash import TextHash

CONFIG = defaults.config(1, time.time())


def test_identifiers_do_not_make_endpoints() -> None:
    assert template_of("/v2/orders/123/items/3f2a9c1b7d4e") == "/v2/orders/{id}/items/{id}"


def test_endpoints_stay_few_whatever_clients_ask_for() -> None:
    """Beyond the path cache too, which forgets; the config's own endpoints keep their names."""
    router = Router(CONFIG, TextHash(b"k" * 32))
    names = {
        (r.method, r.endpoint, r.service)
        for r in (router.route("GET", f"/v2/orders/word-{k:x}-x") for k in range(70_000))
    }
    assert len(names) == MOST_OTHERS + 1
    assert any(endpoint == OTHER for _, endpoint, _ in names)
    policy = CONFIG.services[0].endpoints[0]
    path = policy.template.replace("{id}", "12345")
    assert router.route(policy.method, path).endpoint == policy.template


def test_methods_of_a_clients_own_making_are_one() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    for k in range(MOST_OTHERS):
        router.route("GET", f"/v2/orders/word-{k}-x")
    made_up = {
        router.route("A" * (k % 30 + 1) + "B" * (k // 30), "/v2/orders/x").method
        for k in range(200)
    }
    assert made_up == {OTHER_METHOD}
    assert router.route("DELETE", "/v2/orders/y").method == "DELETE"


def test_what_has_no_name_of_its_own_is_still_told_apart_by_the_features() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    packed = {router.route("GET", f"/v2/orders/word-{k}-x").packed for k in range(MOST_OTHERS + 50)}
    assert len(packed) == MOST_OTHERS + 50


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v2/auth/token", SIGN_IN),
        ("POST", "/login", SIGN_IN),
        ("POST", "/wp-login.php", SIGN_IN),
        ("POST", "/xmlrpc.php", SIGN_IN),
        ("POST", "/oauth2/token", SIGN_IN),
        ("POST", "/users/sign_in", SIGN_IN),
        ("POST", "/users/login/", SIGN_IN),
        ("POST", "/api/sign-in", SIGN_IN),
        ("POST", "/Account/LogOn", SIGN_IN),
        ("POST", "/v1/sessions", WRITE),
        ("POST", "/v1/authors", WRITE),
        ("POST", "/blog/login-page-design", WRITE),
        ("GET", "/login", READ),
        ("PUT", "/v2/orders/1", WRITE),
        ("GET", "/v2/orders/1", READ),
    ],
)
def test_sign_ins_are_told_by_the_words_of_their_path(method: str, path: str, kind: int) -> None:
    assert kind_of(method, template_of(path)) == kind


def test_the_document_says_what_a_path_does_not() -> None:
    start = CONFIG.services[0]
    named = [
        EndpointPolicy("POST", "/v2/orders/enter", sign_in=True),
        EndpointPolicy("POST", "/v2/orders/token", sign_in=False),
    ]
    service = msgspec.structs.replace(start, endpoints=named)
    config = msgspec.structs.replace(CONFIG, services=[service, *CONFIG.services[1:]])
    router = Router(config, TextHash(b"k" * 32))
    kinds = [
        np.frombuffer(router.route("POST", path).packed, ROUTE_FIELDS)["kind"][0]
        for path in ("/v2/orders/enter", "/v2/orders/token", "/v2/orders/other")
    ]
    assert kinds == [SIGN_IN, WRITE, WRITE]
