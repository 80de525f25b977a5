"""CORS preflights at the decider: decided without a credential, as an app of their own for each
client, and no client can claim to be one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from decider.http.context import Limits
from decider.http.identity import IdentityRule
from decider.identity.credentials import Credentials
from decider.identity.material import read_material
from tests.decider import signing
from tests.decider.http_client import Response, World, request, run
from tests.decider.signing import STRANGER, token

FORWARDED = {"x_forwarded_uri": "/v2/search", "x_sluice_source": "203.0.113.9"}
PREFLIGHT = {"origin": "https://page.example", "access_control_request_method": "DELETE"}
OWN = "preflights-of-203.0.113.9"


@pytest.fixture(params=["gateway", "decider"])
def identity(request: pytest.FixtureRequest, tmp_path: Path) -> IdentityRule:
    """Who names the app."""
    if request.param == "gateway":
        return None
    return Credentials(read_material(signing.write_settings(tmp_path)))


def checked(
    identity: IdentityRule, *asked: bytes, seen: str = "app"
) -> tuple[list[Response], list[str]]:
    """The answers, and the apps that the engine got, or what else of the requests is `seen`."""

    async def ask(world: World) -> tuple[list[Response], list[str]]:
        found = [await world.one(one) for one in asked]
        return found, [getattr(each, seen) for each in world.engine.seen]

    return run(ask, Limits(), identity=identity)


def forwarded(method: str = "OPTIONS", **fields: str) -> bytes:
    """A check as Caddy asks it: with all that the client sent."""
    named = {"x_sluice_app": "", **FORWARDED, **fields, "x_forwarded_method": method}
    return request(target="/v1/check", **named)


def test_a_preflight_needs_no_credential_and_is_an_app_of_its_client(
    identity: IdentityRule,
) -> None:
    asked = forwarded(**PREFLIGHT)
    other = forwarded(**{**PREFLIGHT, "x_sluice_source": "2001:db8::9"})
    found, apps = checked(identity, asked, asked, other)
    assert [answer.status for answer in found] == [200] * 3
    assert apps == [OWN, OWN, "preflights-of-2001:db8::/64"]


def test_a_preflight_counts_for_no_app_whatever_it_claims_or_carries(
    identity: IdentityRule,
) -> None:
    claims = {"x_sluice_app": "victim", "authorization": f"Bearer {token('victim')}"}
    bad = {"authorization": f"Bearer {token('victim', STRANGER)}"}
    asked = [forwarded(**PREFLIGHT, **claims), forwarded(**PREFLIGHT, **bad)]
    # twice, as the fast path learns from the first
    assert checked(identity, *asked, *asked)[1] == [OWN] * 4
    assert checked(identity, *asked, seen="token")[1] == ["", ""]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"origin": "https://page.example"},
        {"access_control_request_method": "DELETE"},
        {"x_sluice_app": OWN},
        {"x_sluice_preflight": "yes"},
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "GET"])
def test_what_is_no_preflight_needs_a_credential(
    tmp_path: Path, fields: dict[str, str], method: str
) -> None:
    reader = Credentials(read_material(signing.write_settings(tmp_path)))
    found, apps = checked(reader, forwarded(method, **fields))
    assert (found[0].status, apps) == (401, [])


def test_only_an_options_request_is_a_preflight(tmp_path: Path) -> None:
    reader = Credentials(read_material(signing.write_settings(tmp_path)))
    for method in ("GET", "POST", "DELETE", "HEAD"):
        assert checked(reader, forwarded(method, **PREFLIGHT))[0][0].status == 401
        good = forwarded(method, **PREFLIGHT, authorization=f"Bearer {token('app-1')}")
        assert checked(reader, good, good)[1] == ["app-1", "app-1"]


def test_an_empty_field_makes_no_preflight(tmp_path: Path) -> None:
    reader = Credentials(read_material(signing.write_settings(tmp_path)))
    asked = forwarded(origin="https://page.example").replace(
        b"\r\n\r\n", b"\r\naccess-control-request-method: \r\n\r\n"
    )
    assert checked(reader, asked)[0][0].status == 401


@pytest.mark.parametrize("odd", [b"\xff\xfe", b"a, b", b"null", b"x" * 4000])
@pytest.mark.parametrize("name", [b"origin", b"access-control-request-method"])
def test_odd_or_doubled_fields_of_a_preflight_refuse_nobody(
    identity: IdentityRule, name: bytes, odd: bytes
) -> None:
    more = b"\r\n" + name + b": " + odd + b"\r\n\r\n"
    asked = forwarded(**PREFLIGHT).replace(b"\r\n\r\n", more)
    found, apps = checked(identity, asked)
    assert (found[0].status, apps) == (200, [OWN])


def test_a_check_with_its_path_appended_is_read_alike(identity: IdentityRule) -> None:
    fields = {**PREFLIGHT, "x_sluice_source": "203.0.113.9", "x_sluice_app": "victim"}
    fields["authorization"] = f"Bearer {token('victim')}"
    plain = request("OPTIONS", target="/v1/check/v2/search", **fields)
    own = request("OPTIONS", target="/v1/check/v2/search", **{**fields, "origin": ""})
    assert checked(identity, plain, plain, own, own, plain)[1] == [
        *(OWN, OWN),
        *("victim", "victim"),
        OWN,
    ]
