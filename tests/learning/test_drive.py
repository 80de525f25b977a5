"""The demo services and the live driver, over real HTTP."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from decider.contracts.requests import CheckRequest
from learning.logs import playback
from learning.traffic.client import GatewayClient, GatewayError, GatewayUnreachable
from tests.learning.logs import KEY, combined

pytestmark = pytest.mark.parts


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def services() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "learning.traffic.demo_services",
            "--listen",
            f"127.0.0.1:{port}",
            "--steady",
        ]
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            asyncio.run(ask(url, CheckRequest("a", "GET", "/healthz")))
            break
        except GatewayError:
            time.sleep(0.1)
    yield url
    process.send_signal(signal.SIGTERM)
    process.wait(10)


async def ask(url: str, *requests: CheckRequest, query: str = "") -> list[int]:
    client = GatewayClient(url)
    try:
        return [(await client.send(request, query)).status for request in requests]
    finally:
        client.close()


def test_the_services_answer_by_the_conventions_of_the_simulation(services: str) -> None:
    requests = (
        CheckRequest("a", "GET", "/v2/orders/16", "tok_1"),
        CheckRequest("a", "GET", "/v2/orders/3", "tok_1"),
        CheckRequest("a", "POST", "/v2/auth/token", "exp_1", payload_bytes=300),
        CheckRequest("a", "POST", "/v2/ledger/entries", "tok_1", payload_bytes=20_000),
    )
    assert asyncio.run(ask(services, *requests)) == [200, 404, 401, 201]
    charge = CheckRequest("a", "POST", "/v2/payments/charges", "tok_1", payload_bytes=400)
    assert asyncio.run(ask(services, charge, query="card=10")) == [402]
    assert asyncio.run(ask(services, charge, query="card=11")) == [201]


def test_the_driver_drives_and_ends_cleanly(services: str) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "learning.traffic.drive",
        "--gateway",
        services,
        "--rate",
        "50",
        "--apps",
        "200",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "200 apps" in process.stdout.readline()
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_the_driver_says_what_is_wrong_with_an_address() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "learning.traffic.drive", "--gateway", "ftp://x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not a gateway's address" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_that_is_not_there_is_a_plain_error() -> None:
    with pytest.raises(GatewayUnreachable, match="cannot connect"):
        asyncio.run(ask(f"http://127.0.0.1:{free_port()}", CheckRequest("a", "GET", "/")))


def test_a_log_can_be_sent_through_a_gateway_at_a_multiple_of_its_speed(
    services: str, tmp_path
) -> None:
    (tmp_path / "a.log").write_text(
        "\n".join(combined(k, request=f"GET /v2/orders/{k} HTTP/1.1") for k in range(20))
    )
    began = time.perf_counter()
    summary = asyncio.run(
        playback.replay_through_gateway([tmp_path / "a.log"], KEY, services, speed=40.0)
    )
    assert 19 / 40 <= time.perf_counter() - began < 10
    assert summary.requests == 20
    assert sum(summary.answers.values()) == 20
    assert set(summary.answers) <= {"200", "404"}
