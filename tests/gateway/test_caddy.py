"""The example configuration on a real Caddy, where one is installed, with deciders that answer as
told.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.gateway import alike, running
from tests.gateway.alike import (  # noqa: F401 - run here, on this gateway
    test_a_refusal_reaches_the_client_with_its_true_status_and_fields,
    test_an_admitted_request_reaches_its_service_and_its_answer_carries_the_fields,
    test_an_answer_that_the_model_had_no_time_for_says_so_and_no_client_can,
    test_an_app_always_meets_the_same_decider,
    test_an_encoded_slash_is_refused_because_each_server_reads_it_differently,
    test_the_decider_is_told_the_clients_address_and_a_client_cannot_forge_it,
    test_the_decider_is_told_the_service_that_is_called_and_a_client_cannot_forge_it,
)
from tests.gateway.running import CADDY, Gateway, with_stubs

pytestmark = [
    pytest.mark.parts,
    pytest.mark.in_order,  # the last test kills the deciders
    pytest.mark.skipif(CADDY is None, reason="caddy is not installed"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with with_stubs(running.caddy(tmp_path_factory.mktemp("caddy"))) as it:
        yield it


def test_a_client_cannot_choose_how_the_decider_answers(gateway: Gateway) -> None:
    assert gateway.get("shed", x_sluice_answer="nginx").status == 503


def test_no_request_is_lost_when_a_decider_dies(gateway: Gateway) -> None:
    alike.kill_one_of_two(gateway)


def test_a_service_that_fails_says_so_and_gets_no_request_a_second_time(gateway: Gateway) -> None:
    """Whatever becomes of its requests without a decider: these had one."""
    gateway.kill("services")
    came = []
    with socket.create_server(("127.0.0.1", gateway.ports["services"])) as server:

        def fail() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    came.append(client.recv(65536))
                    client.close()

        thread = threading.Thread(target=fail)
        thread.start()
        for path in ("/v2/search", "/v2/orders/1"):
            answer = gateway.get("good", path, method="POST", body=b"{}")
            assert (answer.status, answer.headers.get("retry-after")) == (502, None)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(came) == 2


def test_with_no_decider_left_requests_are_refused_not_let_through(gateway: Gateway) -> None:
    gateway.kill("d02")
    assert {gateway.get("hungry").status for _ in range(5)} <= {502, 503}
