"""The example configuration on a real Caddy, where one is installed, with deciders that answer as
told.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway import alike, running, starting
from tests.gateway.alike import (  # noqa: F401 - run here, on this gateway
    test_a_refusal_reaches_the_client_with_its_true_status_and_fields,
    test_an_admitted_request_reaches_its_service_and_its_answer_carries_the_fields,
    test_an_app_always_meets_the_same_decider,
    test_an_encoded_slash_is_refused_because_each_server_reads_it_differently,
    test_the_decider_is_told_the_clients_address_and_a_client_cannot_forge_it,
    test_the_decider_is_told_the_service_that_is_called_and_a_client_cannot_forge_it,
)
from tests.gateway.running import Gateway, until

pytestmark = [
    pytest.mark.parts,
    pytest.mark.in_order,  # the last test kills the deciders
    pytest.mark.skipif(starting.CADDY is None, reason="caddy is not installed"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with starting.caddy(tmp_path_factory.mktemp("caddy")) as it:
        until(lambda: running.both_asked(it), "both deciders")
        yield it


def test_a_client_cannot_choose_how_the_decider_answers(gateway: Gateway) -> None:
    assert gateway.get("shed", x_sluice_answer="nginx").status == 503


def test_no_request_is_lost_when_a_decider_dies(gateway: Gateway) -> None:
    alike.kill_one_of_two(gateway)


def test_with_no_decider_left_requests_are_refused_not_let_through(gateway: Gateway) -> None:
    gateway.kill("d02")
    assert {gateway.get("hungry").status for _ in range(5)} <= {502, 503}
