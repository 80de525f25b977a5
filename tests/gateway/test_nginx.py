"""The example configuration on a real nginx, where one is installed, with deciders that answer as
told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

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
from tests.gateway.running import NGINX, Gateway, with_stubs

pytestmark = [
    pytest.mark.parts,
    pytest.mark.in_order,  # the last test kills the deciders
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with with_stubs(running.nginx(tmp_path_factory.mktemp("nginx"))) as it:
        yield it


def test_a_client_cannot_choose_how_the_decider_answers(gateway: Gateway) -> None:
    assert gateway.get("shed", x_sluice_answer="plain").status == 503


def test_an_answer_with_a_decider_behind_it_is_not_marked(gateway: Gateway) -> None:
    assert "sluice-unasked" not in gateway.get("good").headers


def test_no_request_goes_unasked_when_a_decider_dies(gateway: Gateway) -> None:
    alike.kill_one_of_two(gateway)


def test_with_no_decider_left_nginx_limits_each_address_whatever_app_it_claims(
    gateway: Gateway,
) -> None:
    gateway.kill("d02")
    begun = time.monotonic()
    answers = [gateway.get(f"hungry-{i}") for i in range(80)]
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(200) <= 21 + 10 * (time.monotonic() - begun + 1)
    assert {answer.headers.get("sluice-unasked") for answer in answers} == {"true"}
