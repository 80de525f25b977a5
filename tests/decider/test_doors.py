"""A decider's doors: Unix sockets that only its user may open, and TCP addresses whose callers must
know a secret.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from decider.doors import addresses
from decider.doors.addresses import Address, read_address
from decider.doors.guard import Guard
from decider.doors.secret_keeper import SecretFileError, SecretKeeper, read_secrets
from decider.http.server import HttpServer
from decider.node import process
from decider.node.process import Decider, StartError, parse
from tests.decider.http_client import FakeEngine, Response, World, request, run
from tests.decider.http_client import parse as answers_in

OLD, NEW, TOKEN = (letter * 40 for letter in "ont")
WRONG = (None, "", "x", OLD[:-1], OLD + "o", OLD.upper(), f"{OLD},{NEW}", "é" * 40)
DECIDE = b'{"requests":[{"app":"app_1","method":"GET","path":"/v2/orders/1"}]}'
NEEDLE = f"x-sluice-secret: {OLD}\r\n".encode()


def guarded(test, secrets: tuple[str, ...] = (OLD,), **options):
    known = [secret.encode() for secret in secrets]
    return run(test, guard=Guard(known, [TOKEN.encode()]), **options)


def check(secret: str | None, **headers: str) -> bytes:
    return request(**headers, **({} if secret is None else {"x_sluice_secret": secret}))


@pytest.mark.parametrize("secret", WRONG)
def test_a_check_without_the_secret_is_a_short_401(secret: str | None) -> None:
    async def ask(world: World) -> None:
        answer = await world.one(check(secret))
        assert answer.status in (400, 401)
        assert len(answer.body) < 250
        assert "sluice-decision" not in answer.headers
        assert world.engine.seen == []

    guarded(ask)


def test_the_401_says_what_is_missing_and_no_client_is_asked_to_sign_in() -> None:
    async def ask(world: World) -> None:
        answer = await world.one(check("x"))
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Sluice-Secret")
        assert world.server.stats.strangers == 1
        assert answer.headers["connection"] == "close"

    guarded(ask)


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_while_a_secret_is_replaced_both_are_good(secret: str) -> None:
    async def ask(world: World) -> None:
        assert (await world.one(check(secret))).status == 200

    guarded(ask, (OLD, NEW))


def test_a_form_that_was_learnt_from_a_gateway_opens_for_nobody_else() -> None:
    """Checks of one form are read without the parser; that way must ask for the secret, too."""

    async def ask(world: World) -> None:
        good = check(OLD)
        reader, writer = await world.open()
        for _ in range(3):
            writer.write(good)
            assert answers_in(await reader.readuntil(b"\r\n\r\n"))[0].status == 200
        assert len(world.engine.seen) == 3
        for bad in (NEW, "o" * 39, ""):
            answer: Response = await world.one(good.replace(OLD.encode(), bad.encode()))
            assert answer.status == 401
        writer.write(good.replace(OLD.encode(), NEW.encode()))
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        assert len(world.engine.seen) == 3

    guarded(ask)


def test_a_form_that_was_learnt_at_a_socket_opens_nothing_on_tcp(tmp_path: Path) -> None:
    async def ask(world: World) -> None:
        await world.server._listen(Address(tmp_path / "d.sock"))
        reader, writer = await asyncio.open_unix_connection(tmp_path / "d.sock")
        for _ in range(2):
            writer.write(check("anything"))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert (await world.one(check("anything"))).status == 401

    guarded(ask)


def test_a_secret_that_is_taken_back_opens_nothing_any_more() -> None:
    guard = Guard([OLD.encode()])

    async def ask(world: World) -> None:
        reader, writer = await world.open()
        writer.write(check(OLD))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        guard.replace([NEW.encode()])
        writer.write(check(OLD))
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")

    run(ask, guard=guard)


def test_two_secrets_in_one_request_are_refused() -> None:
    async def ask(world: World) -> None:
        double = check(OLD).replace(NEEDLE, NEEDLE + b"x-sluice-secret: wrong\r\n")
        assert (await world.one(double)).status == 400

    guarded(ask)


@pytest.mark.parametrize("target", ["/v1/check?answer=nginx", "/v1/check/v2/orders/1"])
def test_a_gateway_that_lacks_the_secret_gets_no_answer_rather_than_a_refusal(target: str) -> None:
    """A refusal would blame its clients; this way its own rule for unanswered requests holds."""

    async def ask(world: World) -> None:
        named = {} if "nginx" in target else {"x_sluice_answer": "nginx"}
        answer = await world.one(request(target=target, **named))
        assert answer.status == 503
        assert "sluice-status" not in answer.headers

    guarded(ask)


def test_bodies_are_not_even_received_without_the_secret() -> None:
    async def ask(world: World) -> None:
        head = "POST /v1/decide HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        begun = f"{head}content-length: 2000000\r\n\r\n".encode()
        assert (await world.one(begun, eof=False)).status == 401
        told = {"content_type": "application/json", "x_sluice_secret": OLD}
        assert (await world.one(request("POST", "/v1/decide", DECIDE, **told))).status == 200

    guarded(ask)


def test_metrics_want_the_secret_or_a_token_of_their_own() -> None:
    async def ask(world: World) -> None:
        async def status(**headers: str) -> int:
            return (await world.one(request(target="/metrics", **headers))).status

        assert await status() == 401
        assert await status(authorization="Bearer nothing") == 401
        assert await status(authorization=f"Basic {TOKEN}") == 401
        assert await status(authorization=f"Bearer {OLD}") == 401
        assert await status(authorization=f"Bearer {TOKEN}") == 200
        assert await status(x_sluice_secret=OLD) == 200
        # it opens nothing else
        assert (await world.one(check(None, authorization=f"Bearer {TOKEN}"))).status == 401
        assert (await world.one(check(TOKEN))).status == 401

    guarded(ask)


@pytest.mark.parametrize(("health", "status"), [({"config_version": 7}, 200), ({}, 503)])
def test_health_tells_strangers_nothing_but_that(health: dict[str, object], status: int) -> None:
    async def ask(world: World) -> None:
        answer = await world.one(request(target="/healthz"))
        assert answer.status == status
        assert answer.json == {"status": "ok" if status == 200 else "waiting"}
        trusted = await world.one(request(target="/healthz", x_sluice_secret=OLD))
        assert (trusted.status, trusted.json) == (status, health)

    guarded(ask, health=health)


def test_a_socket_is_its_users_alone_and_asks_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "d01.sock"

    async def ask(world: World) -> None:
        await world.server._listen(Address(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        for target in ("/v1/check/v2/orders/1", "/metrics", "/healthz"):
            writer.write(request(target=target))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            if target == "/metrics":
                await reader.readexactly(len(b"sluice_decisions_total 1\n"))
        writer.close()

    guarded(ask)
    assert not path.exists()


def test_the_socket_of_a_process_that_died_is_replaced_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    path, umask = tmp_path / "d01.sock", os.umask(0o022)
    try:
        first = addresses.bind(path)
        first.close()
        second = addresses.bind(path)
        second.listen()
        with pytest.raises(OSError, match="in use"):
            addresses.bind(path)
        second.close()
        path.unlink()
        path.write_text("no socket")
        with pytest.raises(OSError, match="in use"):
            addresses.bind(path)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/sluice/d01.sock", Address(Path("/run/sluice/d01.sock"))),
        ("unix:d01.sock", Address(Path("d01.sock"))),
        ("127.0.0.1:9101", Address(None, "127.0.0.1", 9101)),
        ("[::1]:9101", Address(None, "::1", 9101)),
    ],
)
def test_an_address_is_a_socket_or_host_and_port(text: str, address: Address) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "unix:", "unix:/" + "x" * 107, "9101", ":9101", "a:b", "a:65536", "a:1" + "0" * 9, "a:²"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unix:PATH|bytes"):
        read_address(text)


def secret_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "gateways.secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def options(folder: Path, *more: str):
    where = ["--node", "d01", "--valkey", "redis://127.0.0.1:1/0", "--keys", str(folder / "keys")]
    where += ["--data", str(folder / "data"), "--models", str(folder / "models")]
    return parse([*where, *more])


def test_a_decider_listens_on_a_socket_unless_told(tmp_path: Path) -> None:
    assert options(tmp_path).listen == [Address(tmp_path / "data" / "decider.sock")]


def test_a_decider_does_not_listen_on_tcp_without_a_secret(tmp_path: Path) -> None:
    both = ("--listen", "unix:a.sock", "--listen", "127.0.0.1:9101")
    with pytest.raises(StartError, match=r"127\.0\.0\.1:9101 .*--secret"):
        process._secrets_of(options(tmp_path, *both))
    path = secret_file(tmp_path, OLD)
    kept = process._secrets_of(options(tmp_path, *both, "--secret", str(path)))
    assert kept is not None
    assert kept.guard.knows(OLD.encode())
    assert process._secrets_of(options(tmp_path, "--listen", "unix:a.sock")) is None


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("", 0o600, "1 to 4 lines"),
        ("short", 0o600, "32 to 256"),
        ("x" * 257, 0o600, "32 to 256"),
        ("with space " * 4, 0o600, "visible"),
        ("ö" * 40, 0o600, "visible"),
        ("\n".join([OLD] * 5), 0o600, "1 to 4"),
        (f"{OLD}\n" * 200, 0o600, "1 to 4"),
        (OLD, 0o644, "by everybody"),
    ],
)
def test_a_bad_file_of_secrets_is_a_sentence(
    tmp_path: Path, text: str, mode: int, says: str
) -> None:
    path = secret_file(tmp_path, text, mode)
    with pytest.raises(SecretFileError, match=says):
        read_secrets(path)
    with pytest.raises(SecretFileError, match="cannot be read"):
        read_secrets(tmp_path / "none")
    with pytest.raises(StartError, match="--secret"):
        process._secrets_of(options(tmp_path, "--secret", str(path)))


def test_a_changed_file_counts_at_once_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    kept = SecretKeeper(secret_file(tmp_path, OLD))
    secret_file(tmp_path, f"{OLD}\n\n{NEW}\n")
    kept.look()
    assert kept.guard.knows(OLD.encode()) and kept.guard.knows(NEW.encode())
    secret_file(tmp_path, f"{NEW}\n")
    kept.look()
    assert not kept.guard.knows(OLD.encode()) and kept.guard.knows(NEW.encode())
    for bad in ("", "x"):
        secret_file(tmp_path, bad)
        kept.look()
        assert kept.guard.knows(NEW.encode())
    (tmp_path / "gateways.secret").unlink()
    kept.look()
    assert kept.guard.knows(NEW.encode())


def test_nothing_opens_a_guard_without_secrets() -> None:
    guard = Guard([])
    assert not guard.knows(b"")
    assert not guard.may_measure(b"Bearer ")


def test_a_taken_address_is_a_sentence(tmp_path: Path) -> None:
    async def start() -> None:
        server = HttpServer(FakeEngine(), dict, lambda: b"")
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(OSError):
                await server.start(Address(None, *other.getsockname()))
        await server.stop(0.1)

    asyncio.run(start())
    assert Decider is not None
