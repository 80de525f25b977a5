"""What the decider's HTTP refuses, how long it waits, and how it closes."""

import asyncio
import logging

import msgspec
import pytest

from decider.http.context import Limits
from tests.decider.http_client import World, parse, request, run

CHECK = request()
GONE = (ConnectionResetError, BrokenPipeError)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(target="/v1/check/" + "a" * 9000), 414),
        (request(x_filler="f" * 17_000), 431),
        (request(x_filler="f" * 100_000), 431),
        (request(**{f"x_{k}": "v" for k in range(100)}), 431),
        (b"GET /v1/check/a HTTP/1.1\r\n" + b"a: b\r\n" * 9000, 431),
        (request(body=b"b" * 70_000), 413),
        (request("POST", "/v1/decide", content_length=str(10 * 1024 * 1024)), 413),
        (
            request("POST", "/v1/decide", transfer_encoding="chunked")
            + b"fffff\r\n"
            + b"x" * 0xFFFFF
            + b"\r\n300000\r\n"
            + b"x" * 0x300000,
            413,
        ),
        (request(x_sluice_app=""), 400),
        (request(x_sluice_app="a b"), 400),
        (request(x_sluice_app="a,b"), 400),
        (request(x_sluice_app="a\tb"), 400),
        (request(x_sluice_app="a" * 129), 400),
        (request(x_sluice_app="a\x00b"), 400),
        (request(x_sluice_app="a\x7fb"), 400),
        (request(x_sluice_app="\xc3\xa9"), 400),
        (request(x_sluice_app="\xff"), 400),
        (request(x_other="a\x01b"), 400),
        (request(X_Sluice_App="app_2"), 400),
        (request(host=""), 400),
        (request(Host="other"), 400),
        (request(x_sluice_bytes="-1"), 400),
        (request(x_sluice_bytes="NaN"), 400),
        (request(x_sluice_bytes="1e3"), 400),
        (request(authorization="Bearer " + "t" * 8193), 400),
        (request(target="/v1/check"), 400),
        (request(target="/v1/check", x_forwarded_method="get", x_forwarded_uri="/"), 400),
        (
            request(target="/v1/check", x_forwarded_method="GET", x_forwarded_uri="/" + "a" * 8192),
            414,
        ),
        (request(expect="200-ok"), 417),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v1/check/a HTTP/1.1\nhost: a\n\n", 400),
        (b"GET /v1/check/\xff HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (request(content_length="5", transfer_encoding="chunked"), 400),
        (request(transfer_encoding="chunked") + b"zz\r\n", 400),
    ],
)
def test_a_hostile_request_gets_a_clear_4xx_and_changes_nothing(sent: bytes, status: int) -> None:
    async def check(world: World) -> None:
        answer = (
            await world.one(sent, eof=False) if status not in (400, 414) else await world.one(sent)
        )
        assert (answer.status, answer.json["status"]) == (status, status)
        assert answer.headers["content-type"] == "application/problem+json"
        assert world.engine.seen == []
        assert (await world.one(CHECK)).status == 200

    run(check)


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async def check(world: World) -> None:
        reader, writer = await world.open()
        writer.write(
            request(
                "POST", "/v1/decide", content_length="10485760", content_type="application/json"
            )
        )
        for _ in range(160):
            writer.write(b"x" * 65_536)
            await writer.drain()
        (answer,) = parse(await asyncio.wait_for(reader.read(), 5))
        assert answer.status == 413
        writer.close()

    run(check)


def test_a_well_formed_refusal_keeps_the_connection() -> None:
    async def check(world: World) -> None:
        answers = await world.ask(request(x_sluice_app=""), CHECK, pause_s=0.05)
        assert [a.status for a in answers] == [400, 200]

    run(check)


def test_checks_may_carry_a_small_body_which_is_ignored() -> None:
    async def check(world: World) -> None:
        chunked = (
            request("POST", transfer_encoding="chunked")
            + b"3\r\nabc\r\n0\r\nx-sluice-app: evil\r\n\r\n"
        )
        answers = await world.ask(request("POST", body=b"b" * 60_000) + chunked + CHECK)
        assert [a.status for a in answers] == [200, 200, 200]
        assert [(r.app, r.payload_bytes) for r in world.engine.seen] == [
            ("app_1", 60_000),
            ("app_1", 3),
            ("app_1", 0),
        ]

    run(check)


def test_a_client_that_expects_100_is_told_to_go_on() -> None:
    body = msgspec.json.encode({"requests": [{"app": "a", "method": "GET", "path": "/"}]})

    async def check(world: World) -> None:
        reader, writer = await world.open()
        head = request(
            "POST",
            "/v1/decide",
            expect="100-continue",
            content_length=str(len(body)),
            content_type="application/json",
        )
        writer.write(head)
        assert (
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        writer.write(body)
        writer.write_eof()
        (answer,) = parse(await reader.read())
        assert answer.status == 200
        writer.close()

    run(check)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (request(connection="close"), "close"),
        (request(upgrade="websocket", connection="upgrade"), "close"),
        (CHECK.replace(b"HTTP/1.1", b"HTTP/1.0"), "close"),
    ],
)
def test_some_requests_are_the_last_of_their_connection(sent: bytes, told: str) -> None:
    async def check(world: World) -> None:
        answer = await world.one(sent + CHECK, eof=False)
        assert (answer.status, answer.headers["connection"]) == (200, told)
        assert len(world.engine.seen) == 1

    run(check)


def test_http_1_0_may_keep_its_connection() -> None:
    async def check(world: World) -> None:
        sent = request(connection="keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
        answers = await world.ask(sent * 2)
        assert [a.headers["connection"] for a in answers] == ["keep-alive"] * 2

    run(check)


def test_connect_opens_no_tunnel() -> None:
    async def check(world: World) -> None:
        answers = await world.ask(
            b"CONNECT decider:443 HTTP/1.1\r\nhost: decider\r\n\r\n" + CHECK, eof=False
        )
        assert [a.status for a in answers] == [404]

    run(check)


QUICK = Limits(head_s=0.15, body_s=0.3, idle_s=0.4, stall_s=0.3, linger_s=0.2, sweep_s=0.02)


@pytest.mark.parametrize(
    "sent",
    [
        b"G",
        b"GET /v1/check/a HTTP/1.1\r\nhost: a",
        CHECK + b"GET",
        request("POST", "/v1/decide", content_length="9") + b"x",
    ],
)
def test_a_request_that_never_ends_is_timed_out(sent: bytes) -> None:
    async def check(world: World) -> None:
        answers = await world.ask(sent, eof=False)
        assert answers[-1].status == 408
        assert world.server.stats.timeouts == 1

    run(check, QUICK)


def test_dripping_bytes_does_not_extend_the_deadline() -> None:
    async def check(world: World) -> None:
        reader, writer = await world.open()
        started = asyncio.get_running_loop().time()
        for byte in CHECK[:-1]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
            if reader.at_eof() or world.server.stats.timeouts:
                break
        assert asyncio.get_running_loop().time() - started < 1.0
        (answer,) = parse(await reader.read())
        assert answer.status == 408
        writer.close()

    run(check, QUICK)


def test_an_idle_connection_is_closed_without_a_word() -> None:
    async def check(world: World) -> None:
        assert await world.raw(eof=False) == b""
        assert [a.status for a in await world.ask(CHECK, eof=False)] == [200]
        assert world.server.stats.timeouts == 0

    run(check, QUICK)


def test_a_client_that_does_not_read_is_cut_and_costs_bounded_memory() -> None:
    async def check(world: World) -> None:
        _, writer = await world.open()
        writer.transport.pause_reading()
        with pytest.raises(GONE):
            for _ in range(400):
                writer.write(CHECK * 1000)
                await asyncio.wait_for(writer.drain(), 5)
        assert len(world.engine.seen) < 200_000
        while world.server.connections:
            await asyncio.sleep(0.02)

    run(check, QUICK)


def test_connections_over_the_limit_are_turned_away_with_503() -> None:
    async def check(world: World) -> None:
        first = [await world.open() for _ in range(3)]
        answer = await world.one(CHECK, eof=False)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        for _, writer in first:
            writer.close()
        while world.server.connections:
            await asyncio.sleep(0.02)
        assert (await world.one(CHECK)).status == 200

    run(check, Limits(connections=3, linger_s=0.1, sweep_s=0.02))


def test_bodies_in_flight_are_bounded_over_all_connections() -> None:
    async def check(world: World) -> None:
        _, writer = await world.open()
        writer.write(request("POST", "/v1/decide", content_length="60000") + b"x" * 50_000)
        await asyncio.sleep(0.1)
        assert (
            await world.one(request("POST", "/v1/decide", b"x" * 60_000), eof=False)
        ).status == 503
        writer.close()
        await asyncio.sleep(0.1)
        assert (await world.one(request("POST", "/v1/decide", b"x" * 60_000))).status == 415

    run(check, Limits(all_bodies=100_000, linger_s=0.1, sweep_s=0.02))


def test_many_pipelined_checks_are_answered_in_order_and_in_bounded_batches() -> None:
    async def check(world: World) -> None:
        answers = await world.ask(CHECK * 5000)
        assert [a.number for a in answers] == list(range(5000))
        assert max(world.engine.batches) <= 128

    run(check)


def test_shutdown_answers_what_was_asked_and_takes_no_more() -> None:
    async def check(world: World) -> None:
        idle, half = await world.open(), await world.open()
        half[1].write(CHECK[:30])
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(world.server.stop(2.0))
        assert await asyncio.wait_for(idle[0].read(), 1) == b""
        with pytest.raises(OSError):
            await world.open()
        half[1].write(CHECK[30:])
        (answer,) = parse(await asyncio.wait_for(half[0].read(), 1))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await stopping
        for _, writer in (idle, half):
            writer.close()

    run(check)


def test_shutdown_cuts_what_does_not_end() -> None:
    async def check(world: World) -> None:
        reader, writer = await world.open()
        writer.write(CHECK[:30])
        await asyncio.sleep(0.05)
        await world.server.stop(0.1)
        assert world.server.connections == 0
        assert await reader.read() == b""

    run(check)


def test_a_defect_is_logged_and_told_as_500(caplog: pytest.LogCaptureFixture) -> None:
    async def check(world: World) -> None:
        assert (await world.one(request(target="/healthz"))).status == 500
        assert (await world.one(CHECK)).status == 200

    with caplog.at_level(logging.ERROR):
        run(check, health={"config_version": object()})
    assert "could not be handled" in caplog.text
