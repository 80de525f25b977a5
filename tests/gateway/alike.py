"""What every gateway's example configuration must hold; a module with a `gateway` fixture imports
these tests.
"""

from __future__ import annotations

import pytest

from tests.gateway.running import Gateway


@pytest.mark.parametrize(
    ("app", "status"), [("defer", 429), ("shed", 503), ("block", 403), ("malformed", 400)]
)
def test_a_refusal_reaches_the_client_with_its_true_status_and_fields(
    gateway: Gateway, app: str, status: int
) -> None:
    answer = gateway.get(app)
    assert answer.status == status
    assert answer.json()["status"] == status
    assert answer.headers["sluice-receipt"] == "AQAB"
    assert answer.headers["sluice-decision"].startswith("dec_")
    assert "ratelimit" in answer.headers
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("retry-after") == ("7" if status in {429, 503} else None)


def test_an_admitted_request_reaches_its_service_and_its_answer_carries_the_fields(
    gateway: Gateway,
) -> None:
    answer = gateway.get("good", method="POST", body=b"12345")
    assert answer.status == 200
    assert answer.headers["sluice-decision"].startswith("dec_")
    assert answer.json()["content-length"] == "5"


def test_an_answer_that_the_model_had_no_time_for_says_so_and_no_client_can(
    gateway: Gateway,
) -> None:
    assert gateway.get("late").headers["sluice-late"] == "true"
    assert "sluice-late" not in gateway.get("good", sluice_late="true").headers


def test_an_app_always_meets_the_same_decider(gateway: Gateway) -> None:
    deciders = {
        app: {gateway.get(app).headers["ratelimit"] for _ in range(5)}
        for app in (f"app-{i}" for i in range(8))
    }
    assert all(len(met) == 1 for met in deciders.values())


CLAIMS = {
    "x_forwarded_for": "203.0.113.9",
    "X_FORWARDED_FOR": "203.0.113.9, 198.51.100.7, 127.0.0.1",
    "x_sluice_source": "203.0.113.9",
    "X_Sluice_Source": "203.0.113.8",
    "x_real_ip": "203.0.113.9",
    "forwarded": "for=203.0.113.9",
    "x_envoy_external_address": "203.0.113.9",
    "true_client_ip": "203.0.113.9",
}


@pytest.mark.parametrize("claimed", [{}, *({name: text} for name, text in CLAIMS.items()), CLAIMS])
def test_the_decider_is_told_the_clients_address_and_a_client_cannot_forge_it(
    gateway: Gateway, claimed: dict[str, str]
) -> None:
    answer = gateway.get("good", **claimed)
    assert answer.status == 200
    assert answer.source == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/v2/orders", "orders-read"),
        ("/v2/orders/1", "orders-read"),
        ("/v2/orders:batchGet", "orders-read"),
        ("/v2/payments/charges/", "payments"),
        ("/v2/%70ayments/charges?next=%2Fhome", "payments"),
        ("/v2/payments?a=/v2/orders", "payments"),
        ("/v2/paymentsX/charges", None),
        ("/v2/payments;x/charges", None),
        ("/v2", None),
    ],
)
def test_the_decider_is_told_the_service_that_is_called_and_a_client_cannot_forge_it(
    gateway: Gateway, path: str, service: str | None
) -> None:
    forged = {"x_sluice_service": "auth", "X_SLUICE_SERVICE": "auth"}
    for claimed in ({}, forged):
        answer = gateway.get("good", path, **claimed)
        assert answer.status == (200 if service else 404)
        assert service is None or answer.service == service


@pytest.mark.parametrize("slash", ["%2F", "%2f", "%5C", "%5c"])
def test_an_encoded_slash_is_refused_because_each_server_reads_it_differently(
    gateway: Gateway, slash: str
) -> None:
    assert gateway.get("good", f"/v2/orders/1{slash}2").status == 400


def kill_one_of_two(gateway: Gateway) -> None:
    """Kills a decider; its apps are decided by the other at once, and no request is lost."""
    apps = [f"app-{i}" for i in range(24)]
    assert len({gateway.get(app).headers["ratelimit"] for app in apps}) == 2
    gateway.kill("d01")
    answers = [gateway.get(app) for app in apps]
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers.get("ratelimit") for answer in answers} == {'"burst";r=1;d02'}
