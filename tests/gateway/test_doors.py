"""Between gateways and deciders, on the real gateways: Unix sockets, a secret on TCP that no client
can send or learn, what a gateway without it does, and mutual TLS.
"""

from __future__ import annotations

import http.client
import re
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from console.local import gateway as rendering
from console.local import servers
from tests.gateway import certificates, running
from tests.gateway.running import CADDY, NGINX, SECRET, Gateway, until

pytestmark = pytest.mark.parts
ROOT = Path(__file__).parents[2]
NODES = ("d01", "d02")
OTHER = "another-secret-that-the-deciders-know"
SEARCH, PAYMENTS = "/v2/search/1", "/v2/payments/1"


def on_tcp(text: str) -> str:
    """The example of Envoy for deciders on TCP: its endpoints, and what it says to uncomment."""
    lines = [line for line in text.splitlines() if not line.endswith(("# up: d01", "# up: d02"))]
    text = "\n".join(lines)
    begin, end = text.index("# - endpoint: { address: { socket_"), text.index("# yours: your serv")
    example = text[begin + 2 : text.index("\n", begin)]
    endpoints = f"\n{' ' * 14}".join(example.replace("10.0.0.5", "127.0.0.1") for _ in NODES)
    text = text[:begin] + endpoints + text[text.index("\n", begin) : end] + text[end:]
    header = "# request_headers_to_add:\n"
    begin = text.index(header)
    end = text.index("\n", begin + len(header))
    block = text[begin:end].replace("# ", "  ", 1).replace("#   - ", "    - ", 1)
    return text[:begin].rstrip(" ") + " " * 22 + block.lstrip() + text[end:]


@contextmanager
def envoy_on_tcp(folder: Path) -> Iterator[Gateway]:
    ports = {node: servers.free_port() for node in NODES}

    def adapt(text: str) -> str:
        text = on_tcp(text)
        for node in NODES:
            text = text.replace("port_value: 9101", f"port_value: {ports[node]}", 1)
        return text

    with running.envoy(folder, adapt=adapt) as it:
        it.ports |= ports
        for node in NODES:
            del it.sockets[node]
        yield it


Open = Callable[[Path], AbstractContextManager[Gateway]]
ON_TCP = [
    pytest.param(envoy_on_tcp, id="envoy"),
    pytest.param(
        running.nginx,
        id="nginx",
        marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    ),
    pytest.param(
        running.caddy,
        id="caddy",
        marks=pytest.mark.skipif(CADDY is None, reason="caddy is not installed"),
    ),
]


def decider(gateway: Gateway, node: str, *more: str) -> list[str]:
    """A decider's real HTTP server on an engine that admits everything."""
    program = [sys.executable, "-m", "tests.gateway.stub_identity", gateway.address(node)]
    # Envoy says which app it is; behind the others the decider reads the credential
    own = [] if "envoy" in gateway.processes else [str(running.identity_file(gateway.log.parent))]
    return [*program, *own, *more]


@pytest.mark.parametrize("opened", ON_TCP)
def test_the_gateway_sends_its_secret_and_not_the_clients(opened: Open, tmp_path: Path) -> None:
    with running.with_stubs(opened(tmp_path)) as it:
        answer = it.get("app-1", x_sluice_secret="of-the-client")
        assert (answer.status, answer.secret) == (200, "gateway")
        # nor does it reach the service, or the log
        assert SECRET not in answer.body
        it.get("app-1")
        until(lambda: it.log.exists() and it.log.stat().st_size > 0, "the log")
        assert SECRET not in it.log.read_text()


@pytest.mark.parametrize("opened", ON_TCP)
def test_without_the_right_secret_the_rule_for_no_answer_holds(
    opened: Open, tmp_path: Path
) -> None:
    """It is the gateway's fault, so no client is told that it may not pass."""
    with opened(tmp_path) as it:
        known = tmp_path / "deciders.secret"
        known.touch(mode=0o600)
        known.write_text(OTHER)
        for node in NODES:
            it.start(node, decider(it, node, "--secret", str(known)))
        until(lambda: all(it.has_decider(node) for node in NODES), "the deciders")
        answers = [it.get(f"app-{k}", SEARCH) for k in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert not any("sluice-decision" in answer.headers for answer in answers)
        assert {it.get(f"app-{k}", PAYMENTS).status for k in range(5)} == {503}


@pytest.mark.parametrize("opened", ON_TCP)
def test_while_the_secret_is_replaced_the_gateway_goes_on(opened: Open, tmp_path: Path) -> None:
    with opened(tmp_path) as it:
        both = tmp_path / "deciders.secret"
        both.touch(mode=0o600)
        both.write_text(f"{OTHER}\n{SECRET}\n")
        for node in NODES:
            it.start(node, decider(it, node, "--secret", str(both)))
        until(lambda: all(it.has_decider(node) for node in NODES), "the deciders")
        until(lambda: "sluice-decision" in it.get("app-1").headers, "a decision")


def test_envoys_own_doors_are_its_users_alone(tmp_path: Path) -> None:
    with running.with_stubs(running.envoy(tmp_path)) as it:
        assert set(it.ports) == {"gateway", "services"}
        for name in ("envoy-admin", "envoy-check"):
            assert stat.S_IMODE(it.sockets[name].stat().st_mode) == 0o600
        assert "deciders::" in it.admin("/clusters")


def test_mutual_tls_ends_in_an_envoy_beside_the_decider(tmp_path: Path) -> None:
    speaks = certificates.write(tmp_path, ("gateway",))["gateway"]
    ports = {node: servers.free_port() for node in NODES}
    tls = rendering.EXAMPLE.with_name("decider-tls.yaml").read_text()
    tls = tls.replace("address: 0.0.0.0", "address: 127.0.0.1")
    tls = tls.replace("ca.pem", f"{tmp_path}/ca.pem")
    tls = tls.replace("decider.pem", f"{tmp_path}/server.pem")
    tls = tls.replace("decider.key", f"{tmp_path}/server.key")

    def adapt(text: str) -> str:
        text = on_tcp(text)
        for node in NODES:
            text = text.replace("port_value: 9101", f"port_value: {ports[node]}", 1)
        mark = "\n    - name: deciders\n"
        assert text.count(mark) == 1
        # a busy test machine does not shake hands within the time that a connection may take
        text = text.replace("connect_timeout: 0.01s", "connect_timeout: 1s")
        return text.replace(mark, f"{mark}{with_certificate(tmp_path)}")

    with running.envoy(tmp_path, adapt=adapt) as it:
        for node in NODES:
            config = tmp_path / f"{node}-tls.yaml"
            path = str(it.sockets[node])
            text = tls.replace("/run/sluice/d01.sock", path)
            config.write_text(text.replace("port_value: 9101", f"port_value: {ports[node]}"))
            it.start(node, decider(it, node))
            it.start(f"{node}-tls", servers.envoy_command(config))
        until(lambda: "sluice-decision" in it.get("app-1").headers, "a decision", 30.0)
        assert asked(ports["d01"], speaks) == 200
        stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with pytest.raises(OSError):
            asked(ports["d01"], stranger)


def with_certificate(folder: Path) -> str:
    """What the document says to write into the gateway's cluster."""
    text = (ROOT / "docs" / "deciders.md").read_text()
    found = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return re.sub(r"filename: (\S+)", rf"filename: {folder}/\1", found[1])


def asked(port: int, speaks: ssl.SSLContext) -> int:
    line = http.client.HTTPSConnection("localhost", port, timeout=5, context=speaks)
    try:
        line.request("GET", "/healthz")
        return line.getresponse().status
    finally:
        line.close()
