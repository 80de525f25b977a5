"""What a check's answer is when the decider itself reads the app from the credential."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from decider.http.context import Limits
from decider.http.fast_path import PlainReader
from decider.identity import api_keys
from decider.identity.credentials import Credentials
from decider.identity.material import read_material
from decider.node import process
from tests.decider import signing
from tests.decider.http_client import Response, World, request, run
from tests.decider.signing import STRANGER, token


@pytest.fixture
def reader(tmp_path: Path) -> Credentials:
    return Credentials(read_material(signing.write_settings(tmp_path)))


def answers(reader: Credentials | None, *asked: bytes) -> tuple[list[Response], list[str]]:
    """The answers, and the apps that the engine got."""

    async def ask(world: World) -> tuple[list[Response], list[str]]:
        found = [await world.one(one) for one in asked]
        return found, [each.app for each in world.engine.seen]

    return run(ask, Limits(), identity=reader)


def bearer(text: str, **more: str) -> bytes:
    return request(authorization=f"Bearer {text}", **more)


def test_the_credential_names_the_app_and_the_header_does_not(reader: Credentials) -> None:
    good = token("app-1")
    found, apps = answers(reader, bearer(good), bearer(good, x_sluice_app="victim"))
    assert apps == ["app-1", "app-1"]
    assert [answer.headers["sluice-app"] for answer in found] == ["app-1", "app-1"]


def test_where_the_gateway_names_the_app_the_answer_does_not_repeat_it() -> None:
    found, apps = answers(None, bearer(token("app-1"), x_sluice_app="app-2"))
    assert apps == ["app-2"]
    assert "sluice-app" not in found[0].headers


def test_a_refusal_names_the_app_too(reader: Credentials) -> None:
    found, _ = answers(reader, bearer(token("shed")))
    assert (found[0].status, found[0].headers["sluice-app"]) == (503, "shed")


@pytest.mark.parametrize(
    ("text", "challenge", "detail"),
    [
        (None, "Bearer", "Send a credential"),
        (token(key=STRANGER), 'Bearer error="invalid_token"', "not valid."),
        (token(exp=int(time.time()) - 10_000), 'Bearer error="invalid_token"', "expired"),
        (token(nbf=int(time.time()) + 10_000), 'Bearer error="invalid_token"', "not valid yet"),
        (token(aud="other"), 'Bearer error="invalid_token"', "not valid."),
    ],
)
def test_a_bad_credential_gets_401_and_learns_nothing_of_the_check(
    reader: Credentials, text: str | None, challenge: str, detail: str
) -> None:
    asked = bearer(text) if text else request()
    found, apps = answers(reader, asked)
    assert (found[0].status, found[0].headers["www-authenticate"]) == (401, challenge)
    assert detail in found[0].json["detail"]
    assert apps == []
    assert text is None or text not in repr(found)


def test_nginx_gets_a_403_that_names_the_401(reader: Credentials) -> None:
    named = {"x_original_uri": "/v2/orders/1", "x_original_method": "GET"}
    found, _ = answers(reader, request(target="/v1/check?answer=nginx", **named))
    assert (found[0].status, found[0].headers["sluice-status"]) == (403, "401")
    assert found[0].headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["authorization", "Authorization", "AUTHORIZATION"])
def test_a_credential_that_comes_twice_is_refused(reader: Credentials, header: str) -> None:
    again = f"\r\n{header}: Bearer {token('app-2')}\r\n\r\n".encode()
    found, apps = answers(reader, bearer(token("app-1")).replace(b"\r\n\r\n", again))
    assert (found[0].status, apps) == (400, [])


def test_a_second_place_is_not_read(reader: Credentials) -> None:
    good, other = token("app-1"), token("app-2")
    asked = bearer(good, x_api_key=other, x_access_token=other, cookie=f"token={other}")
    assert answers(reader, asked)[1] == ["app-1"]
    query = request(target=f"/v1/check/v2/orders?access_token={other}")
    assert answers(reader, query)[0][0].status == 401


@pytest.mark.parametrize("text", ["é", "x" * 8193, "\x01", "a\tb"])
def test_a_credential_that_is_no_text_is_refused(reader: Credentials, text: str) -> None:
    found, apps = answers(reader, bearer(text).decode("latin-1").encode())
    assert (found[0].status in (400, 401, 431), apps) == (True, [])


def test_an_api_key_is_read_from_a_header_of_its_own(tmp_path: Path) -> None:
    path = signing.write_settings(
        tmp_path, 'header = "x-api-key"\n[key]\nsecrets = "secrets"', jwt=False
    )
    (tmp_path / "secrets").write_text("ab" * 32)
    reader = Credentials(read_material(path))
    key = api_keys.mint(bytes.fromhex("ab" * 32), "shop")
    found, apps = answers(
        reader,
        request(x_api_key=key),
        request(x_api_key=key, authorization=f"Bearer {token('other')}"),
        request(authorization=f"Bearer {key}"),
        request(x_api_key=key).replace(b"\r\n\r\n", f"\r\nx-api-key: {key}\r\n\r\n".encode()),
    )
    assert [answer.status for answer in found] == [200, 200, 401, 400]
    assert apps == ["shop", "shop"]


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def test_the_fast_path_takes_only_credentials_that_are_known_to_be_good(tmp_path: Path) -> None:
    clock = Clock()
    reader = Credentials(read_material(signing.write_settings(tmp_path)), clock, clock)
    plain = PlainReader(100, identity=reader)
    text = token("app-1")
    good = bearer(text, x_sluice_app="victim")
    reader.read(text, "")
    plain.learn(good, 0.0)
    found = plain.read(good)
    assert found is not None
    assert found.app == "app-1"
    assert plain.read(bearer(token("app-2"), x_sluice_app="victim")) is None
    assert plain.read(bearer(token("app-1", STRANGER), x_sluice_app="victim")) is None
    clock.now += 40_000
    assert plain.read(good) is None


def test_the_fast_path_takes_a_bare_key_as_the_parser_does(tmp_path: Path) -> None:
    more = 'header = "x-api-key"\n[key]\nsecrets = "secrets"'
    path = signing.write_settings(tmp_path, more, jwt=False)
    (tmp_path / "secrets").write_text("ab" * 32)
    reader = Credentials(read_material(path))
    plain = PlainReader(100, identity=reader)
    asked = request(x_api_key=api_keys.mint(b"\xab" * 32, "shop"), x_sluice_app="")
    plain.learn(asked, 0.0)
    found = plain.read(asked)
    assert found is not None
    assert found.app == "shop"
    assert plain.read(asked.replace(b"shop", b"bank")) is None


def test_a_decider_does_not_start_with_files_that_it_cannot_use(tmp_path: Path) -> None:
    path = signing.write_settings(tmp_path)
    (tmp_path / "jwks.json").write_text("{}")
    with pytest.raises(process.StartError, match=r"--identity .*jwks\.json"):
        process._identity_of(path)
    assert process._identity_of(None) is None
