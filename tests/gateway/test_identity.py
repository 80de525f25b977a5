"""Who an app is, on the real gateways: forged, missing, expired and doubled credentials."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.identity import api_keys
from learning.traffic import tokens
from tests.decider import signing
from tests.decider.signing import STRANGER, claims_of, sealed
from tests.gateway import running, starting
from tests.gateway.running import Answer, Gateway, until

Open = Callable[..., AbstractContextManager[Gateway]]
GATEWAYS: dict[str, Open] = {
    "envoy": starting.envoy,
    "nginx": starting.nginx,
    "caddy": starting.caddy,
}
MISSING = {"nginx": running.NGINX is None, "caddy": running.CADDY is None}
pytestmark = pytest.mark.parts


def real_reader(gateway: Gateway, node: str) -> list[str]:
    """A decider that reads credentials as the shipped identity.toml says."""
    return [*_stub(gateway, node), str(running.identity_file(gateway.log.parent))]


def named_by_gateway(gateway: Gateway, node: str) -> list[str]:
    """A decider that believes the gateway."""
    return _stub(gateway, node)


def _stub(gateway: Gateway, node: str) -> list[str]:
    return [sys.executable, "-m", "tests.gateway.stub_identity", gateway.address(node)]


@pytest.fixture(scope="module", params=GATEWAYS)
def kind(request: pytest.FixtureRequest) -> str:
    if MISSING.get(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def gateway(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    reader = named_by_gateway if kind == "envoy" else real_reader
    with GATEWAYS[kind](tmp_path_factory.mktemp(kind), reader) as it:
        until(lambda: both_decide(it), "both deciders")
        yield it


def both_decide(gateway: Gateway) -> bool:
    """Whether the gateway finds both deciders healthy."""
    for i in range(40):
        gateway.get(f"warm-{i}")
    return all(decided(gateway, node) for node in ("d01", "d02"))


@pytest.fixture(scope="module")
def key(gateway: Gateway) -> Ed25519PrivateKey:
    """The issuer's key."""
    text = (gateway.log.parent / tokens.KEY_FILE).read_text()
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def decided(gateway: Gateway, *nodes: str) -> list[str]:
    """The apps of all requests that these deciders decided, or all of them."""
    found: list[str] = []
    for node in nodes or ("d01", "d02"):
        found += json.loads(gateway.ask_decider(node, "/healthz")[1])["apps"]
    return found


def sent(gateway: Gateway, *lines: str) -> Answer:
    """The answer to a request with these header lines, written as they are."""
    address = ("127.0.0.1", gateway.ports["gateway"])
    always = (f"host: {address[0]}:{address[1]}", "connection: close")
    head = "".join(f"{line}\r\n" for line in (*always, *lines))
    with socket.create_connection(address, 5) as client:
        client.sendall(f"GET /v2/orders/1 HTTP/1.1\r\n{head}\r\n".encode())
        data = b"".join(iter(lambda: client.recv(1 << 20), b""))
    top, _, body = data.partition(b"\r\n\r\n")
    first, *fields = top.decode("latin-1").split("\r\n")
    named = {n.lower(): v.strip() for n, _, v in (field.partition(":") for field in fields)}
    return Answer(int(first.split()[1]), named, body.decode("latin-1"))


def bearer(text: str) -> str:
    return f"Authorization: Bearer {text}"


def test_the_token_names_the_app_whatever_the_client_claims(
    gateway: Gateway, key: Ed25519PrivateKey
) -> None:
    claims = ["x-sluice-app: victim", "X-Sluice-App: victim", "X-SLUICE-APP: victim-2"]
    good = signing.token("app-true", key)
    for claimed in ([], claims[:1], claims[1:2], claims):
        answer = sent(gateway, bearer(good), *claimed)
        assert answer.status == 200
        assert answer.json()["x-sluice-app"] == "app-true"
    apps = decided(gateway)
    assert apps.count("app-true") == 4
    assert not [app for app in apps if "victim" in app]


def bad_tokens(key: Ed25519PrivateKey) -> dict[str, str]:
    now = int(time.time())
    twice = json.dumps(claims_of("victim"))[:-1].encode() + b', "sub": "victim"}'
    good = {"alg": "EdDSA"}
    return {
        "wrong key": signing.token("victim", STRANGER),
        "alg none": sealed({"alg": "none"}, claims_of("victim"), key),
        "unsigned": sealed({"alg": "none"}, claims_of("victim"), key).rpartition(".")[0] + ".",
        "wrong issuer": signing.token("victim", key, iss="https://evil.example"),
        "wrong audience": signing.token("victim", key, aud="other-api"),
        "no audience": signing.token("victim", key, aud=None),
        "expired": signing.token("victim", key, exp=now - 120),
        "never expires": signing.token("victim", key, exp=None),
        "future nbf": signing.token("victim", key, nbf=now + 3600),
        "unicode": signing.token("victim-ä", key),
        "unicode raw": sealed(
            good, json.dumps(claims_of("victim-ä"), ensure_ascii=False).encode(), key
        ),
        "a comma": signing.token("victim,other", key),
        "a line end": signing.token("victim\r\nx-sluice-app: victim", key),
        "no app": signing.token(None, key),
        "empty app": signing.token("", key),
        "number": signing.token(7, key),
        "duplicate claims": sealed(good, twice, key),
        "huge": signing.token("victim", STRANGER, x="y" * 5_000),
        "too huge": signing.token("victim", key, x="y" * 20_000),
        "not a token": "victim",
        "two tokens": f"{signing.token('victim', key)},{signing.token('victim', key)}",
        "basic": "Zm9v",
    }


BAD = sorted(bad_tokens(STRANGER))


@pytest.mark.parametrize("what", BAD)
def test_a_bad_token_is_refused_and_nobody_is_decided_by_it(
    gateway: Gateway, key: Ed25519PrivateKey, what: str
) -> None:
    before = len(decided(gateway))
    answer = sent(gateway, bearer(bad_tokens(key)[what]), "x-sluice-app: victim")
    # 400: no app id at all, as the decider says behind Envoy, or too long a head, as 431. Envoy
    # does not set a header with a line end.
    allowed = {"a line end": {401, 503}, "too huge": {400, 401, 431}}.get(what, {400, 401})
    assert answer.status in allowed
    assert "victim" not in answer.body
    assert len(decided(gateway)) == before


def test_a_refused_credential_is_answered_as_the_standard_says(
    gateway: Gateway, key: Ed25519PrivateKey
) -> None:
    for lines in ((), (bearer(signing.token("a", key, aud="other")),)):
        answer = sent(gateway, *lines)
        assert answer.status == 401
        assert answer.json()["status"] == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "place",
    ["x-sluice-app: victim", "x-api-key: {}", "cookie: token={}", "proxy-authorization: Bearer {}"],
)
def test_a_credential_in_another_place_counts_for_nothing(
    gateway: Gateway, key: Ed25519PrivateKey, place: str
) -> None:
    assert sent(gateway, place.format(signing.token("victim", key))).status == 401


def test_two_credentials_never_make_two_apps_of_one_request(
    gateway: Gateway, key: Ed25519PrivateKey
) -> None:
    first, second = signing.token("app-first", key), signing.token("app-second", key)
    for other in (bearer(second), "authorization: Basic Zm9v"):
        before = len(decided(gateway))
        assert sent(gateway, bearer(first), other).status in (400, 401)
        assert len(decided(gateway)) == before
    # Envoy passes over a scheme that is not its own; it names the app of the one token
    answer = sent(gateway, "authorization: Basic Zm9v", bearer(first))
    assert answer.status in (400, 401) or answer.json()["x-sluice-app"] == "app-first"
    assert "app-second" not in decided(gateway)


def test_an_app_of_one_credential_always_meets_the_same_decider(
    gateway: Gateway, key: Ed25519PrivateKey
) -> None:
    for i in range(6):
        good = signing.token(f"app-{i}", key)
        # what a client may vary must not lead it to another decider
        for k in range(6):
            sent(gateway, bearer(good), f"x-sluice-app: v{k}", f"x-forwarded-for: 192.0.2.{k}")
    by_node = [set(decided(gateway, node)) for node in ("d01", "d02")]
    asked = {f"app-{i}" for i in range(6)}
    assert asked <= by_node[0] | by_node[1]
    assert not asked & by_node[0] & by_node[1]


def test_no_log_of_a_gateway_or_decider_holds_a_credential(
    gateway: Gateway, key: Ed25519PrivateKey
) -> None:
    folder: Path = gateway.log.parent
    texts = [signing.token("app-logged", key), signing.token("app-logged", STRANGER)]
    for text in texts:
        sent(gateway, bearer(text))
    logs = [path for path in folder.rglob("*") if path.suffix in (".err", ".json")]
    written = b"".join(path.read_bytes() for path in logs)
    assert not [text for text in texts if text.rpartition(".")[2].encode() in written]


def test_envoy_may_let_requests_without_a_token_come_as_apps_of_their_address(
    tmp_path: Path,
) -> None:
    """As docs/identity.md says."""
    requires = "requires: { provider_name: apps }"
    either = (
        "requires: { requires_any: { requirements: [{ provider_name: apps }, { allow_missing: {} }]"
        " } }"
    )
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
    source = '"source:%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"'
    named = f"""
                  - name: anonymous
                    typed_config:
                      "@type": {kind}
                      mutations:
                        request_mutations:
                          - append:
                              header: {{ key: x-sluice-app, value: {source} }}
                              append_action: ADD_IF_ABSENT
"""

    def adapt(text: str) -> str:
        before, mark, after = text.partition("                  # 3. Ask Sluice.")
        assert requires in before
        return before.replace(requires, either) + named.lstrip("\n") + mark + after

    with starting.envoy(tmp_path, named_by_gateway, adapt) as gateway:
        until(lambda: both_decide(gateway), "both deciders")
        assert sent(gateway, "x-sluice-app: victim").json()["x-sluice-app"] == "source:127.0.0.1"
        assert sent(gateway, bearer(signing.token("app", STRANGER))).status == 401
        assert gateway.get("app-true").json()["x-sluice-app"] == "app-true"
        assert "victim" not in decided(gateway)


@pytest.mark.skipif(MISSING["nginx"], reason="nginx is not installed")
def test_nginx_may_hash_the_app_of_a_key_so_that_its_keys_meet_one_decider(tmp_path: Path) -> None:
    """As docs/identity.md says."""
    secret = bytes(range(32))

    def reader(gateway: Gateway, node: str) -> list[str]:
        (tmp_path / "secrets").write_text(secret.hex())
        settings = tmp_path / "identity.toml"
        settings.write_text('header = "x-api-key"\n[key]\nsecrets = "secrets"\n')
        return [*_stub(gateway, node), str(settings)]

    def adapt(text: str) -> str:
        mapped = r"map $http_x_api_key $app { ~^(?<name>.+)\.[^.]*\.[^.]*$ $name; }"
        text = text.replace("hash $http_authorization consistent", "hash $app consistent")
        text = text.replace("Authorization $http_authorization;", "X-Api-Key $http_x_api_key;")
        return text.replace("    upstream deciders {", f"    {mapped}\n    upstream deciders {{")

    with starting.nginx(tmp_path, reader, adapt) as gateway:
        for _ in range(8):
            for app in (f"app-{i}" for i in range(12)):
                key = api_keys.mint(secret, app)
                assert sent(gateway, f"x-api-key: {key}").json()["x-sluice-app"] == app
        forged = api_keys.mint(b"x" * 32, "app-1")
        assert sent(gateway, f"x-api-key: {forged}").status == 401
        by_node = [set(decided(gateway, node)) for node in ("d01", "d02")]
        assert by_node[0]
        assert by_node[1]
        assert not by_node[0] & by_node[1]


class _Issuer(BaseHTTPRequestHandler):
    """Serves the key set that its server holds."""

    def do_GET(self) -> None:
        body = json.dumps({"keys": [signing.jwk_of(self.server.key)]}).encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def issuing(key: Ed25519PrivateKey) -> Iterator[ThreadingHTTPServer]:
    """An issuer's server; its attribute `key` may be replaced."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Issuer)
    server.key = key  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_envoy_may_fetch_the_keys_of_another_issuer_and_follows_when_they_rotate(
    tmp_path: Path,
) -> None:
    """As docs/identity.md says."""
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    with issuing(old) as issuer:
        port = issuer.server_address[1]

        def adapt(text: str) -> str:
            remote = (
                f"remote_jwks: {{ http_uri: {{ uri: http://127.0.0.1:{port}/jwks, cluster: issuer,"
                " timeout: 2s }, cache_duration: 1s, async_fetch: {} }"
            )
            text = re.sub(r"local_jwks: \{.*\} #", f"{remote} #", text)
            text = text.replace("https://id.example.com", "https://login.acme.test")
            text = text.replace("[orders-api]", "[acme]").replace(
                "claim_name: sub", "claim_name: azp"
            )
            cluster = (
                "    - { name: issuer, connect_timeout: 1s, type: STATIC, load_assignment: {"
                " cluster_name: issuer, endpoints: [{ lb_endpoints: [{ endpoint: { address: {"
                f" socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}] }} }}"
            )
            return text.replace("  clusters:\n", f"  clusters:\n{cluster}\n")

        def good(key: Ed25519PrivateKey) -> str:
            claims = {"iss": "https://login.acme.test", "aud": "acme", "azp": "shop"}
            return bearer(signing.token("subject", key, **claims))

        with starting.envoy(tmp_path, named_by_gateway, adapt) as gateway:
            until(lambda: sent(gateway, good(old)).status == 200, "the issuer's keys")
            assert sent(gateway, good(old)).json()["x-sluice-app"] == "shop"
            assert sent(gateway, bearer(signing.token("shop", old))).status == 401
            assert sent(gateway, good(new)).status == 401
            issuer.key = new  # type: ignore[attr-defined]
            until(lambda: sent(gateway, good(new)).status == 200, "the new key")
            until(lambda: sent(gateway, good(old)).status == 401, "the end of the old key")
