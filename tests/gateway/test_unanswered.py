"""What happens without an answer is decided: block rules hold, and each route has its choice."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from decider.contracts import config as configs
from decider.contracts import defaults, store
from decider.contracts.config import ListEntry
from decider.gateway import nginx
from decider.gateway.rules import Held, Level
from decider.store_users.roles import Role
from tests.decider import signing
from tests.gateway import running, starting
from tests.gateway.running import Gateway, until
from tests.servers import store_url

pytestmark = [pytest.mark.parts, pytest.mark.in_order]
KEY = Ed25519PrivateKey.generate()
# A path of each choice, as the example marks its routes.
LIMITED, REFUSED, PASSED = "/v2/orders/1", "/v2/payments/charges", "/v2/search"


def entry(verdict: str, kind: str, subject: str) -> ListEntry:
    return ListEntry(verdict=verdict, kind=kind, subject=subject, network="/" in subject)  # type: ignore[arg-type]


def publish(client: redis.Redis, version: int, *entries: ListEntry) -> None:
    document = msgspec.structs.replace(defaults.config(version), lists=list(entries))
    client.set(store.CONFIG_KEY, configs.sign(document, KEY))


def start_agent(gateway: Gateway, folder: Path, *where: str) -> None:
    (folder / "keys").mkdir(exist_ok=True)
    (folder / "keys" / "config.pub").write_text(KEY.public_key().public_bytes_raw().hex())
    known = ["--keys", str(folder / "keys"), "--data", str(folder / "agent")]
    command = [sys.executable, "-m", "decider.gateway.agent", "--name", "gw", *known, *where]
    gateway.start("agent", [*command, "--valkey", store_url(Role.GATEWAY)])


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    found = redis.Redis.from_url(os.environ["VALKEY_URL"])
    found.flushdb()
    yield found
    found.close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, client: redis.Redis) -> Iterator[Gateway]:
    """Envoy with its agent and without any decider."""
    folder = tmp_path_factory.mktemp("unanswered")
    with running.envoy(folder, trusted_hops=1) as it:
        publish(
            client,
            1,
            entry("block", "app", "app-blocked"),
            entry("compliance", "app", "app-embargoed"),
            entry("block", "tenant", "tenant-blocked"),
            entry("block", "source", "203.0.113.0/24"),
        )
        start_agent(it, folder, "--envoy", str(running.rules_file(folder)))
        until(lambda: it.get("app-blocked").status == 403, "the rules")
        yield it


@pytest.mark.parametrize("app", ["app-blocked", "app-embargoed"])
@pytest.mark.parametrize("path", [LIMITED, REFUSED, PASSED])
def test_a_blocked_app_gets_403_on_every_route(gateway: Gateway, app: str, path: str) -> None:
    answer = gateway.get(app, path, x_sluice_app="app-free")
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 403
    assert "retry-after" not in answer.headers


def test_a_blocked_tenant_is_known_by_its_claim_and_not_by_a_header(gateway: Gateway) -> None:
    raw = (gateway.log.parent / "clients.key").read_text()
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(raw))
    blocked = signing.token("app-t", key, tenant="tenant-blocked")
    assert gateway.get(None, authorization=f"Bearer {blocked}").status == 403
    free = gateway.get("app-t2", PASSED, x_sluice_tenant="tenant-blocked")
    assert free.status == 200
    assert free.json().get("x-sluice-tenant") is None


def test_a_blocked_network_is_refused_and_no_client_writes_itself_in_or_out(
    gateway: Gateway,
) -> None:
    assert gateway.get("app-n", PASSED, x_forwarded_for="203.0.113.9").status == 403
    assert gateway.get("app-n", PASSED, x_forwarded_for="203.0.113.9, 192.0.2.1").status == 200


def test_a_route_with_the_local_limit_serves_each_app_up_to_it(gateway: Gateway) -> None:
    begun = time.monotonic()
    statuses = [gateway.get("hungry", LIMITED).status for _ in range(80)]
    assert set(statuses) == {200, 429}
    assert 20 <= statuses.count(200) <= 20 + 10 * (time.monotonic() - begun + 1)
    assert gateway.get("modest", LIMITED).status == 200


def test_a_route_that_refuses_answers_503_and_when_to_come_back(gateway: Gateway) -> None:
    answer = gateway.get("modest", REFUSED)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 503


def test_a_route_that_lets_through_limits_nobody(gateway: Gateway) -> None:
    assert {gateway.get("hungry", PASSED).status for _ in range(60)} == {200}


def test_a_block_comes_and_goes_with_the_signed_document(
    gateway: Gateway, client: redis.Redis
) -> None:
    assert gateway.get("app-later", PASSED).status == 200
    publish(client, 2, entry("block", "app", "app-later"))
    until(lambda: gateway.get("app-later", PASSED).status == 403, "the block")
    until(lambda: gateway.get("app-blocked", PASSED).status == 200, "its end")
    forged = configs.sign(defaults.config(3), Ed25519PrivateKey.generate())
    client.set(store.CONFIG_KEY, forged)
    until(lambda: "refused" in status(client).error, "the report")
    assert gateway.get("app-later", PASSED).status == 403


def status(client: redis.Redis) -> store.AgentStatus:
    data = client.get(store.AGENT_PREFIX + "gw")
    return msgspec.msgpack.decode(data, type=store.AgentStatus)


def test_a_broken_file_leaves_the_last_rules_in_force(gateway: Gateway) -> None:
    gateway.kill("agent")
    path = running.rules_file(gateway.log.parent)
    draft = path.with_name("draft")
    draft.write_text('{"resources": [')
    draft.replace(path)
    statistic = "/stats?filter=extension_config_discovery.*update_(failure|rejected)"
    until(lambda: ": 1" in gateway.admin(statistic), "the failed reading")
    assert gateway.get("app-later", PASSED).status == 403
    assert gateway.get("modest", PASSED).status == 200


def test_with_a_decider_alive_it_refuses_by_itself_and_every_route_is_asked(
    gateway: Gateway,
) -> None:
    for node in ("d01", "d02"):
        gateway.start(node, running.stub(gateway, node))
    until(lambda: running.both_asked(gateway), "both deciders")
    for path in (LIMITED, REFUSED, PASSED):
        assert gateway.get("app-later", path).headers["sluice-decision"].startswith("dec_")
        assert gateway.get("defer", path).status == 429


@pytest.mark.skipif(running.NGINX is None, reason="nginx is not installed")
def test_nginx_holds_blocked_addresses_and_each_services_choice(
    tmp_path: Path, client: redis.Redis
) -> None:
    with starting.nginx(tmp_path) as gateway:
        until(lambda: running.both_asked(gateway), "both deciders")
        for node in ("d01", "d02"):
            gateway.kill(node)
        assert gateway.get("modest", REFUSED).status == 503
        assert gateway.get("modest", REFUSED).headers["retry-after"] == "1"
        assert {gateway.get("hungry", PASSED).status for _ in range(60)} == {200}
        assert {gateway.get("hungry", LIMITED).status for _ in range(60)} == {200, 429}
        publish(client, 9, entry("block", "source", "127.0.0.0/8"))
        reload = f"kill -HUP {gateway.processes['nginx'].pid}"
        where = ["--nginx", str(tmp_path / "rules"), "--reload", reload]
        start_agent(gateway, tmp_path, *where)
        until(lambda: gateway.get("modest", PASSED).status == 403, "the rule")
        # nginx lets workers with the old rules go on for 100 ms, beside those with the new ones
        time.sleep(1.0)
        assert {gateway.get("modest", path).status for path in (PASSED, REFUSED) * 20} == {403}


@pytest.mark.skipif(running.CADDY is None, reason="caddy is not installed")
def test_caddy_refuses_what_no_decider_answered_or_lets_it_through(tmp_path: Path) -> None:
    with starting.caddy(tmp_path) as gateway:
        until(lambda: running.both_asked(gateway), "both deciders")
        for node in ("d01", "d02"):
            gateway.kill(node)
        for path in (LIMITED, REFUSED):
            answer = gateway.get("modest", path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        passed = gateway.get("modest", PASSED, x_sluice_app="victim")
        assert passed.status == 200
        assert "x-sluice-app" not in passed.json()
        gateway.kill("services")
        assert gateway.get("modest", PASSED).status in (502, 503)


@pytest.mark.skipif(running.NGINX is None, reason="nginx is not installed")
def test_nginx_holds_blocked_apps_where_the_key_shows_them(tmp_path: Path) -> None:
    """As docs/unanswered.md says."""
    maps = (
        r"map $http_x_api_key $app { ~^(?<name>.+)\.[^.]*\.[^.]*$ $name; }"
        "\n    map $app $blocked_app { default 0; include rules/apps.map; }\n"
    )
    odd = ["app-blocked", "~^app-.*", 'q"uote', "back\\slash", "$app", "default"]

    def adapt(text: str) -> str:
        (tmp_path / "rules").mkdir(exist_ok=True)
        level = Level("app", dict.fromkeys(odd, True))
        (tmp_path / "rules" / nginx.APPS_FILE).write_bytes(nginx.render_apps(Held((level,))))
        text = text.replace("    upstream deciders {", f"    {maps}    upstream deciders {{")
        mark = "if ($blocked) {"
        return text.replace(mark, f"if ($blocked_app) {{ return 403; }}\n            {mark}")

    with starting.nginx(tmp_path, adapt=adapt) as gateway:
        for node in ("d01", "d02"):
            gateway.kill(node)
        for app in odd:
            assert gateway.get(None, PASSED, x_api_key=f"{app}.a.b").status == 403
        for app in ("app-free", "app-blocked2", "App-blocke", "x"):
            assert gateway.get(None, PASSED, x_api_key=f"{app}.a.b").status == 200
