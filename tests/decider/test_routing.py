"""From a path to an endpoint, whatever clients make up."""

import time

import msgspec
import numpy as np
import pytest

from decider.contracts import defaults
from decider.contracts.config import EndpointPolicy, Service
from decider.contracts.normalise.names import UNREADABLE
from decider.contracts.normalise.paths import path_of
from decider.engine.buffers import ROUTE_FIELDS
from decider.engine.endpoint_names import MOST_SEGMENTS, MOST_WORDS, OTHER
from decider.engine.routing import (
    OTHER_METHOD,
    READ,
    SIGN_IN,
    WRITE,
    Route,
    Router,
    endpoint_of,
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
        for r in (router.route("PUT", f"/v2/orders/word-{k:x}-x") for k in range(70_000))
    }
    assert len(names) == MOST_WORDS + 2
    assert any(endpoint == "/v2/orders/{text}" for _, endpoint, _ in names)
    policy = CONFIG.services[0].endpoints[0]
    path = policy.template.replace("{id}", "12345")
    assert router.route(policy.method, path).endpoint == policy.template


def test_methods_of_a_clients_own_making_are_one() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    made_up = {
        router.route("A" * (k % 30 + 1) + "B" * (k // 30), "/v2/orders/x").method
        for k in range(200)
    }
    assert made_up == {OTHER_METHOD}
    assert router.route("DELETE", "/v2/orders/y").method == "DELETE"


def test_what_has_no_name_of_its_own_is_still_told_apart_by_the_features() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    packed = {router.route("GET", f"/v2/other/word-{k}-x").packed for k in range(500)}
    assert len(packed) == 500


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


def services(*rows: Service) -> Router:
    return Router(msgspec.structs.replace(CONFIG, services=[*rows]), TextHash(b"k" * 32))


def service(name: str, *prefixes: str, endpoints: tuple[EndpointPolicy, ...] = ()) -> Service:
    return Service(
        name=name, prefixes=[*prefixes], capacity=100, latency_ms=10, endpoints=[*endpoints]
    )


def asked(method: str, written: str, named: str = "") -> tuple[str, str, float, bool]:
    """Service, endpoint and cost in the starting document, and whether the path is unknown."""
    router = Router(CONFIG, TextHash(b"k" * 32))
    route: Route = router.route(method, path_of(written), named)
    return router.names[route.service], route.endpoint, route.cost, route.unknown


CHARGES = ("payments", "/v2/payments/charges", 3.0, False)


@pytest.mark.parametrize(
    "written",
    [
        "/v2/payments/charges",
        "/v2/payments/charges/",
        "/v2/payments;x/charges",
        "/v2/%70ayments//charges;a=1/",
        "/v2/orders/../payments/./charges",
    ],
)
def test_an_odd_spelling_changes_neither_service_nor_cost(written: str) -> None:
    assert asked("POST", written) == CHARGES
    assert endpoint_of("POST", written) == "POST /v2/payments/charges"


def test_a_prefix_ends_where_a_segment_or_a_verb_begins() -> None:
    assert asked("POST", "/v2/orders:batchGet") == ("orders-read", "/v2/orders:batchGet", 4, False)
    assert asked("GET", "/v2/payments")[0::3] == ("payments", False)
    assert asked("GET", "/v2/paymentsX/charges")[0::3] == ("orders-read", True)


def test_the_gateway_decides_the_service_and_the_path_the_endpoint() -> None:
    assert asked("POST", "/v2/payments/charges", "payments") == CHARGES
    assert asked("POST", "/v2/paymentsX/charges", "payments")[0::3] == ("payments", False)
    # an endpoint is its service's, wherever the path seems to lead
    assert asked("POST", "/v2/payments/charges", "search")[0:3:2] == ("search", 1.0)


def test_a_service_that_nobody_has_is_counted_and_the_path_decides() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    for k in range(3):
        route = router.route("POST", "/v2/payments/charges", f"made up {k}")
        assert (router.names[route.service], route.cost) == ("payments", 3.0)
    assert (router.strays.services, router.strays.paths) == (3, 0)


def test_an_unknown_path_is_counted_each_time_and_goes_to_the_fallback() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    routes = [router.route("GET", f"/elsewhere/{k}") for k in range(5)]
    assert {(r.service, r.endpoint, r.unknown) for r in routes} == {(0, "/elsewhere/{id}", True)}
    assert router.strays.paths == 5
    # the count goes on with the next document
    assert Router(CONFIG, TextHash(b"k" * 32), router.strays).strays.paths == 5


def test_unknown_paths_take_no_names_from_the_fallbacks_own_endpoints() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    for k in range(MOST_SEGMENTS):
        router.route("GET", f"/probe{'/a' * (k % 20)}/word-{k}-x")
    assert router.route("GET", "/probe-one-more").endpoint == OTHER
    assert router.route("GET", "/v2/orders/a/history").endpoint == "/v2/orders/a/history"


def test_a_path_that_cannot_be_read_is_never_cheaper_than_one_that_can() -> None:
    assert asked("POST", "/v2/payments%2Fcharges", "payments") == (
        "payments",
        UNREADABLE,
        3.0,
        True,
    )
    assert asked("POST", "/v2/payments%2Fcharges") == ("orders-read", UNREADABLE, 4.0, True)
    assert asked("GET", "/v2/auth%2Fx", "auth") == ("auth", UNREADABLE, 1.0, True)


def test_the_service_with_the_prefix_of_all_paths_takes_what_no_other_has() -> None:
    router = services(service("api", "/v2/"), service("site", "/"))
    found = [router.route("GET", path_of(p)) for p in ("/v2", "/v2/a", "/a", "/", "/a%2Fb")]
    assert [(r.service, r.unknown) for r in found] == [
        (0, False),
        (0, False),
        (1, False),
        (1, False),
        (1, True),
    ]


@pytest.mark.parametrize(
    "written", ["/v2/orders/{order_id}/", "/v2/orders/:id", "/v2//orders/<id>", "/v2/orders/17"]
)
def test_templates_of_older_documents_are_read_as_paths_are(written: str) -> None:
    router = services(service("o", "/v2//orders/", endpoints=(EndpointPolicy("GET", written, 7),)))
    assert router.route("GET", "/v2/orders/12").cost == 7


def test_an_endpoint_tells_its_service_unless_prefixes_tell_ids_apart() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    assert router.service_of("POST /v2/payments/charges") == "payments"
    assert (
        router.service_of("GET /elsewhere")
        == router.service_of("GET /{unreadable}")
        == "orders-read"
    )
    assert router.service_of("") is None
    by_id = services(service("a", "/shops/17"), service("b", "/shops/18"))
    assert by_id.service_of("GET /shops/{id}/items") is None
    found = [by_id.route("GET", path).service for path in ("/shops/17", "/shops/18", "/shops/18/1")]
    assert found == [0, 1, 1]
