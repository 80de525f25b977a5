"""What of a path may be stored: words of an API, and nothing personal."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.contracts import defaults
from decider.contracts.config import EndpointPolicy
from decider.contracts.normalise.names import LONGEST, UNREADABLE, name_of
from decider.contracts.normalise.paths import path_of
from decider.engine.endpoint_names import MOST_SEGMENTS, MOST_WORDS, OTHER, EndpointNames
from decider.engine.routing import Router, endpoint_of
from decider.engine.text_hash import TextHash

CONFIG = defaults.config(1, time.time())


def stored(path: str) -> str:
    """The endpoint under which a decider would store a request."""
    return Router(CONFIG, TextHash(b"k" * 32)).route("GET", path_of(path)).endpoint


@pytest.mark.parametrize(
    ("segment", "kept"),
    [
        ("jane.doe@example.com", "{email}"),
        ("jane.doe%40example.com", "{email}"),
        ("mailto:jane@example.com", "{email}"),
        ("4111-1111-1111-1111", "{id}"),
        ("4111 1111 1111 1111", "{id}"),
        ("4111.1111.1111.1111", "{id}"),
        ("+49-30-901820", "{id}"),
        ("(030) 901820", "{id}"),
        ("tel:+4930901820", "{text}"),
        ("DE89370400440532013000", "{id}"),
        ("078-05-1120", "{id}"),
        ("1975-03-21", "{id}"),
        ("203.0.113.77", "{id}"),
        ("sk_live_51HxT9aKz", "{text}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqYW5lIn0.c2ln", "{id}"),
        ("dGhlIHF1aWNrIGJyb3duIGZveA==", "{text}"),
        ("QxWzErTyUiOpAsDfGh", "{text}"),
        ("please-call-me-back-tomorrow", "{text}"),
        ("Jane Doe", "{text}"),
        ("Zoë", "{text}"),
        ("jane'--", "{text}"),
        ("jane%2540example", "{text}"),
        ("{id}", "{text}"),
        ("a" * 33, "{text}"),
    ],
)
def test_what_may_be_personal_is_not_stored(segment: str, kept: str) -> None:
    path = f"/v2/auth/verify/{segment}/card"
    assert stored(path) == f"/v2/auth/verify/{kept}/card"
    assert endpoint_of("GET", path) == f"GET /v2/auth/verify/{kept}/card"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/orders:batchGet",
        "/v2/payment-intents/search",
        "/wp-login.php",
        "/.well-known/openid-configuration",
        "/oauth2/token",
        "/v1.2/sha256/2fa",
        "/api/getCustomerBillingInformation",
        "/GET_ALL/_search",
        "/odata/$metadata",
        "/",
    ],
)
def test_words_of_an_api_keep_their_names(path: str) -> None:
    assert stored(path) == path


def test_a_place_with_more_words_than_an_api_has_is_a_parameter() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    people = [f"{first}-{last}" for first in ("jane", "bob") for last in "abcdefghijklmnopqrstuvwx"]
    names = [router.route("GET", f"/v2/orders/of/{person}/open").endpoint for person in people]
    told, merged = names[:MOST_WORDS], names[MOST_WORDS:]
    assert told == [f"/v2/orders/of/{person}/open" for person in people[:MOST_WORDS]]
    assert set(merged) == {"/v2/orders/of/{text}/open"} and len(merged) > 1
    # those that had names of their own lose them, too, with the next document as well
    assert router.route("GET", f"/v2/orders/of/{people[0]}/open").endpoint == merged[0]
    later = Router(CONFIG, TextHash(b"k" * 32), router.strays)
    assert later.route("GET", f"/v2/orders/of/{people[0]}/open").endpoint == merged[0]
    assert later.route("GET", "/v2/payments/of/x").endpoint == "/v2/payments/of/x"


def test_the_words_of_the_document_stay_whatever_clients_ask_for() -> None:
    router = Router(CONFIG, TextHash(b"k" * 32))
    for k in range(2 * MOST_SEGMENTS):
        router.route("GET", f"/v2/orders/word-{k % 100}{'/x' * (k // 100)}")
        router.route("GET", f"/word-{k % 100}{'/x' * (k // 100)}")
    listed = {(e.method, e.template) for s in CONFIG.services for e in s.endpoints}
    for method, template in listed:
        assert router.route(method, template.replace("{id}", "17")).endpoint == template


def test_a_listed_parameter_takes_any_word_and_a_listed_word_comes_first() -> None:
    base = CONFIG.services[0]
    listed = [
        EndpointPolicy("GET", "/v2/orders/{name}/items/{item}", 3.0),
        EndpointPolicy("GET", "/v2/orders/{name}/items/new", 5.0),
        EndpointPolicy("GET", "/v2/orders/top/items/{item}", 7.0),
    ]
    service = msgspec.structs.replace(base, endpoints=listed)
    config = msgspec.structs.replace(CONFIG, services=[service, *CONFIG.services[1:]])
    router = Router(config, TextHash(b"k" * 32))
    found = {
        path: router.route("GET", f"/v2/orders/{path}")
        for path in ("jane/items/hat", "17/items/a@b.example", "jane/items/new", "top/items/hat")
    }
    assert [route.cost for route in found.values()] == [3.0, 3.0, 5.0, 7.0]
    assert found["jane/items/hat"] == found["17/items/a@b.example"]
    assert found["jane/items/hat"].endpoint == "/v2/orders/{id}/items/{id}"
    assert router.route("POST", "/v2/orders/jane/items/hat").cost == 1.0


@given(st.text(max_size=300))
def test_a_name_is_short_and_holds_no_odd_character(text: str) -> None:
    name = name_of(path_of("/" + text))
    assert len(name) <= LONGEST and name[0] == "/"
    plain = name.replace("{id}", "").replace("{email}", "").replace("{text}", "")
    assert name == UNREADABLE or all(c.isalnum() or c in "/-_.:~$" for c in plain)


@given(st.lists(st.text("ab/", max_size=12), max_size=200))
def test_the_tree_is_bounded_and_gives_one_name_once_words_are_merged(texts: list[str]) -> None:
    names = EndpointNames()
    for text in texts:
        names.of(path_of("/" + text))
    assert names._segments <= MOST_SEGMENTS
    for text in texts:
        name, merged = names.of(path_of("/" + text)), names.merged
        if names.merged == merged:
            assert names.of(path_of("/" + text)) == name


def test_no_end_of_words_leaves_one_name_for_the_rest() -> None:
    names = EndpointNames()
    found = {names.of(f"/{'x/' * (k % 50)}{chr(97 + k % 26) * (k % 30 + 1)}") for k in range(9_000)}
    assert OTHER in found and len(found) <= MOST_SEGMENTS + 1
