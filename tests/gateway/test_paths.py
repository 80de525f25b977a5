"""The one reading of paths against a real Envoy: what is one path to it, and where it goes."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from decider.contracts import defaults
from decider.contracts.normalise.paths import path_of
from decider.engine.routing import Router
from decider.engine.text_hash import TextHash
from tests.gateway import running
from tests.gateway.running import Gateway, stub, until

pytestmark = pytest.mark.parts
ROUTER = Router(defaults.config(), TextHash(bytes(32)))
# Dots before a parameter: Envoy reads them as a dot segment when they are plain, and as text when
# one is encoded, which it then decodes. What it hands on is another path to the next reader.
QUIRK = re.compile(r"/(?:\.|%2e){1,2};", re.IGNORECASE)


class Seen(NamedTuple):
    """What became of a request at Envoy."""

    status: int
    service: str
    """As the decider was told it, empty when it was not asked."""
    path: str
    """As the decider was told it."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running.envoy(tmp_path_factory.mktemp("paths")) as gateway:
        for node in ("d01", "d02"):
            gateway.start(node, stub(node, gateway.ports[node]))
        until(lambda: running.both_asked(gateway), "both deciders")
        yield gateway


def sent(gateway: Gateway, target: str) -> Seen:
    """Send a request target as it is; the stub refuses, and says what it was asked."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ports["gateway"], timeout=5)
    connection.putrequest("GET", target, skip_accept_encoding=True)
    connection.putheader("authorization", f"Bearer {gateway.signer.token('malformed')}")
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if b'"seen"' not in body:
        return Seen(response.status, "", "")
    told = json.loads(body)
    path = told["path"].removeprefix("/v1/check")
    return Seen(response.status, told["seen"].get("x-sluice-service", ""), path)


PARTS = st.sampled_from(
    [
        *("/", "/", "//", ".", "..", "/./", "/../", "%2e", "%2E%2e", "\\", "%2f", "%5C", "%00"),
        *("v2", "v2", "/v2", "orders", "/v2/orders", "/v2/payments", "payments", "search", "auth"),
        *("%70", "%76", "2", "X", "charges", "1", ";", ";x=1", "..;", ":", ":batchGet", "%3A"),
        *("%", "%zz", "%25", "%252e", "%7E", "~", "!", "%21", "{id}", "|", '"', "%01", "%ff", "+"),
        *("?a=/v2/auth", "?", "%3F", "%3b", "..."),
    ]
)
TARGETS = st.lists(PARTS, max_size=9).map(lambda parts: "/" + "".join(parts)) | st.lists(
    PARTS, max_size=6
).map(lambda parts: "/v2/orders/" + "".join(parts))


@settings(
    max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(TARGETS)
@example("/v2/orders//../payments/1")
@example("/v2/orders/../payments;x/1")
@example("/v2//./%70ayments/")
@example("/v2/orders/..;/search")
@example("/v2/orders%3AbatchGet")
def test_a_path_has_the_reading_and_the_service_that_envoy_gives_it(
    envoy: Gateway, target: str
) -> None:
    seen, read = sent(envoy, target), path_of(target)
    own = ROUTER.service_at(read)
    if seen.service:
        assert path_of(seen.path) == read
        if not QUIRK.search(target):
            assert own is not None
            assert ROUTER.names[own] == seen.service
    elif seen.status == 404 and not re.search("[;%]", target.partition("?")[0]):
        assert own is None
    if re.search("%(?:2f|5c|00)", target.partition("?")[0], re.IGNORECASE):
        assert (seen.status, read) == (400, "")
