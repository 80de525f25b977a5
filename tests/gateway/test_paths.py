"""The one reading of paths and addresses against a real Envoy: what is one path to it, where it
goes, and whom it names. `python -m tests.gateway.fuzz` goes on for as long as it is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.gateway import fuzz, running
from tests.gateway.fuzz import Client, Seen, address_disagreement, path_disagreement
from tests.gateway.running import stub, until

pytestmark = pytest.mark.parts


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with running.envoy(tmp_path_factory.mktemp("paths"), trusted_hops=1) as gateway:
        for node in ("d01", "d02"):
            gateway.start(node, stub(gateway, node))
        until(lambda: running.both_asked(gateway), "both deciders")
        with closing(Client(gateway.ports["gateway"], gateway.signer)) as client:
            yield client


PARTS = st.sampled_from(fuzz.PARTS)
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
@example("/v2/auth:sign")
def test_a_path_has_the_reading_and_the_service_that_envoy_gives_it(
    envoy: Client, target: str
) -> None:
    assert path_disagreement(target, fuzz.sent(envoy, target)) == ""


def test_any_bytes_in_paths_and_addresses_are_read_as_envoy_reads_them(envoy: Client) -> None:
    drawn = fuzz.Fuzz(Random(1))
    for _ in range(1_000):
        drawn.step(envoy)
    assert drawn.findings == {}
    # each kind of answer came, so that each was compared
    assert min(drawn.counts[kind] for kind in ("paths asked", "paths 404", "paths 400")) > 50
    assert drawn.counts["addresses of a list"] > 100


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/v2/orders/1", Seen(400, "payments", "/v2/orders/1")),
        ("/v2/orders/1", Seen(400, "orders-read", "/v2/orders/2")),
        ("/v2/orders/1", Seen(404)),
        ("/v2/orders/1%2F2", Seen(400, "orders-read", "/v2/orders/1%2F2")),
    ],
)
def test_a_path_that_is_read_differently_would_be_found(target: str, seen: Seen) -> None:
    assert path_disagreement(target, seen)


@pytest.mark.parametrize(
    ("named", "handed"),
    [("6.6.6.6", "6.6.6.6,203.0.113.9,127.0.0.1"), ("", "203.0.113.9,127.0.0.1")],
)
def test_an_address_that_is_read_differently_would_be_found(named: str, handed: str) -> None:
    assert address_disagreement(named, handed)
