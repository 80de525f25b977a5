"""The demo services and the driver by themselves, without HTTP between them."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from typing import Any

import pytest

from decider.contracts import defaults
from learning.traffic import drive, world
from learning.traffic.client import GatewayAnswer, GatewayError, GatewayUnreachable
from learning.traffic.crowd import Crowd
from learning.traffic.demo_services import DemoServices, parse_address


def answer(
    method: str, path: str, credential: str = "tok_1", query: bytes = b""
) -> tuple[int, Any]:
    """Ask the services as an ASGI server would, with a body in two parts."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(b"authorization", b"Bearer " + credential.encode())],
    }
    coming = [{"more_body": True}, {"more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(DemoServices(defaults.config(), ())(scope, receive, send))
    start, body = sent
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()
    assert not coming  # the body was read to its end
    return start["status"], json.loads(body["body"])


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (("GET", "/v2/orders/16"), 200),
        (("GET", "/v2/orders/3"), 404),
        (("POST", "/v2/auth/token", "exp_1"), 401),
        (("POST", "/v2/ledger/entries"), 201),
        (("POST", "/v2/payments/charges", "tok_1", b"card=10"), 402),
    ],
)
def test_a_service_answers_by_the_conventions(asked: tuple[Any, ...], status: int) -> None:
    assert answer(*asked)[0] == status


def test_the_services_are_healthy_and_speak_http_only() -> None:
    assert answer("GET", "/healthz") == (200, {"status": "ok"})
    with pytest.raises(ValueError, match="only HTTP"):
        asyncio.run(DemoServices(defaults.config())({"type": "websocket"}, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["9200", ":9200", "host:", "host:x", "host:65536", "host:-1"])
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not HOST:PORT"):
        parse_address(text)
    assert parse_address("127.0.0.1:9200") == ("127.0.0.1", 9200)


class Gateway:
    """Stands in for the client of a gateway: answers as told, in turn."""

    def __init__(self, *answers: GatewayAnswer | GatewayError) -> None:
        self.answers, self.asked, self.closed = list(answers), 0, False

    async def send(self, request: object, query: str) -> GatewayAnswer:
        self.asked += 1
        told = self.answers[min(self.asked, len(self.answers)) - 1]
        if isinstance(told, GatewayError):
            raise told
        return told

    def close(self) -> None:
        self.closed = True


def driven(
    monkeypatch: pytest.MonkeyPatch, gateway: Gateway, seconds: float = 0.6
) -> tuple[drive.Tally, Gateway]:
    """Drive a busy small crowd for a moment. Return what was counted."""
    monkeypatch.setattr(drive, "SILENCE_S", 0.05)
    monkeypatch.setattr(drive, "FIRST_INCIDENT_S", 0.1)

    async def play() -> drive.Tally:
        crowd = Crowd(world.draw_population(7, 200), 7, time.time(), 400.0)
        driver, stop = drive.Driver(crowd, gateway), asyncio.Event()  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(seconds, stop.set)
        await driver.run(stop)
        return driver._tally

    return asyncio.run(play()), gateway


def test_the_driver_counts_answers_and_starts_incidents(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tally, gateway = driven(monkeypatch, Gateway(GatewayAnswer(200, 0.0, "")))
    assert 0 < tally.statuses[200] <= gateway.asked
    assert gateway.closed
    assert "a wave of scrapers: 6 apps for 45 s" in capsys.readouterr().out
    line = tally.describe(2.0)
    assert f"200: {tally.statuses[200]:,}" in line
    assert line.startswith(f"{tally.statuses[200] / 2:.0f} requests/s")
    assert line.endswith("unreachable 0, broken off 0, given up 0")


def test_a_gateway_that_is_away_is_said_once_and_not_flooded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = GatewayUnreachable("cannot connect to 127.0.0.1:1: refused")
    tally, _ = driven(
        monkeypatch, Gateway(away, away, GatewayError("cut"), GatewayAnswer(429, 1.0, ""))
    )
    out = capsys.readouterr().out
    assert out.count("waiting for the gateway") == 1
    assert out.count("the gateway answers again") == 1
    assert (tally.unreachable, tally.broken) == (2, 1)
    assert tally.given_up > 0  # while it was silent
    assert tally.statuses[429] > 0


def test_more_requests_than_may_be_under_way_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "IN_FLIGHT_MOST", 0)
    tally, gateway = driven(monkeypatch, Gateway(GatewayAnswer(200, 0.0, "")), 0.2)
    assert tally.given_up > 0
    assert gateway.asked == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_driver_ends_in_order_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    gateway = Gateway(GatewayAnswer(200, 0.0, ""))
    monkeypatch.setattr(drive, "GatewayClient", lambda url, signer: gateway)

    async def told_to_end() -> None:
        asyncio.get_running_loop().call_later(0.3, signal.raise_signal, number)
        await asyncio.wait_for(drive.drive("http://gateway", 50.0, 7, 200), 20)

    before = signal.signal(number, lambda *_: None)  # without the driver's handler nothing happens
    try:
        asyncio.run(told_to_end())
    finally:
        signal.signal(number, before)
    assert gateway.closed
    assert "200 apps, about 50 requests a second, to http://gateway" in capsys.readouterr().out


def test_a_report_is_said_and_counting_starts_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drive, "REPORT_S", 0.1)
    driven(monkeypatch, Gateway(GatewayAnswer(200, 0.0, "")), 0.5)
    assert "requests/s; 200:" in capsys.readouterr().out
