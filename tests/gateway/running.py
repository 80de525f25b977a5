"""Starts and ends the processes a gateway test needs."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from console.local import gateway, servers
from decider.contracts.files import write_atomically
from decider.doors.unix_client import UnixConnection
from decider.gateway import envoy as envoy_rules
from decider.gateway import nginx as nginx_rules
from decider.gateway.rules import Held
from learning.traffic import tokens
from learning.traffic.tokens import Signer

HERE = Path(__file__).parent
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CADDY = shutil.which("caddy")
FILES = {"envoy": "envoy.yaml", "nginx": "nginx.conf", "caddy": "Caddyfile"}
NAMES = ("gateway", "d01", "d02", "services")
# What the example of each gateway reaches through Unix sockets.
SOCKETS = ("envoy-check", "envoy-admin", "d01", "d02")
# What gateways send to deciders that listen on TCP.
SECRET = "s3cret-of-the-gateways-of-this-test"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> dict[str, object]:
        return dict(json.loads(self.body))

    @property
    def source(self) -> str:
        """What the gateway named to the stub as the client's address."""
        return self.headers["ratelimit-policy"].split(";")[1]

    @property
    def service(self) -> str:
        """What the gateway named to the stub as the service it will call."""
        return self.headers["ratelimit-policy"].split(";")[2]

    @property
    def app(self) -> str:
        """What the gateway named to the stub as the app."""
        return self.headers["ratelimit-policy"].split(";")[3]

    @property
    def secret(self) -> str:
        """Whose secret the gateway sent to the stub: "gateway", "other" or "none"."""
        return self.headers["ratelimit-policy"].split(";")[4]


@dataclass
class Gateway:
    """A running Envoy and the processes around it."""

    ports: dict[str, int]
    log: Path
    signer: Signer
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    """How to speak to it where it wants TLS."""
    sockets: dict[str, Path] = field(default_factory=dict)

    @property
    def secret(self) -> Path:
        """The file of the secret that deciders on TCP know."""
        return self.log.parent / "gateways.secret"

    @property
    def places(self) -> dict[str, int | Path]:
        """What its configuration names, as it reaches it."""
        return {**self.ports, **self.sockets}

    def address(self, node: str) -> str:
        """Where a decider of it listens."""
        path = self.sockets.get(node)
        return f"unix:{path}" if path else f"127.0.0.1:{self.ports[node]}"

    def ask_decider(self, node: str, path: str, timeout: float = 5) -> tuple[int, bytes]:
        """Ask a decider itself. Raise OSError while it is not there."""
        socket_path = self.sockets.get(node)
        line = (
            UnixConnection(socket_path, timeout)
            if socket_path
            else http.client.HTTPConnection("127.0.0.1", self.ports[node], timeout=timeout)
        )
        with closing(line):
            line.request("GET", path, headers={"x-sluice-secret": SECRET})
            answer = line.getresponse()
            return answer.status, answer.read()

    def has_decider(self, node: str) -> bool:
        """Whether a decider, or a stub of one, answers."""
        try:
            return self.ask_decider(node, "/healthz")[0] > 0
        except OSError:
            return False

    def get(
        self,
        app: str | None,
        path: str = "/v2/orders/1",
        *,
        method: str = "GET",
        body: bytes = b"",
        **headers: str,
    ) -> Answer:
        """One request through the gateway, with a token that names the app; underscores in header
        names stand for dashes.
        """
        connection = self._connection()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if app:
            named.setdefault("authorization", f"Bearer {self.signer.token(app)}")
        connection.request(method, path, body or None, named)
        response = connection.getresponse()
        fields: dict[str, str] = {}
        for name, value in response.getheaders():
            # fields that came twice are one list (RFC 9110, section 5.3)
            known = fields.get(name.lower())
            fields[name.lower()] = value if known is None else f"{known}, {value}"
        answer = Answer(response.status, fields, response.read().decode())
        connection.close()
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        address = ("127.0.0.1", self.ports["gateway"])
        if self.tls is None:
            return http.client.HTTPConnection(*address, timeout=5)
        return http.client.HTTPSConnection("localhost", address[1], timeout=5, context=self.tls)

    def admin(self, path: str) -> str:
        """A page of Envoy's admin interface."""
        connection = UnixConnection(self.sockets["envoy-admin"], 5)
        connection.request("GET", path)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def statistic(self, name: str) -> int:
        """A counter of Envoy's about the deciders."""
        line = self.admin(f"/stats?filter=^cluster.deciders.{name}$")
        return int(line.rpartition(":")[2])

    def start(self, name: str, command: list[str]) -> None:
        with (self.log.parent / f"{name}.err").open("wb") as errors:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "SLUICE_SECRET": SECRET},
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(10)

    def log_lines(self, count: int) -> list[dict[str, object]]:
        """The access log once it holds `count` lines; Envoy writes it in its own time."""
        until(
            lambda: self.log.exists() and self.log.read_bytes().count(b"\n") >= count,
            "the access log",
        )
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def made(
    folder: Path,
    log: str = "sluice-access.json",
    names: Sequence[str] = NAMES,
    sockets: Sequence[str] = (),
) -> Gateway:
    """A gateway to be started, with free ports, a key for its clients, and the secret of its
    deciders.
    """
    tokens.ensure_keys(folder)
    signer = Signer(folder / tokens.KEY_FILE)
    ports = {name: servers.free_port() for name in names if name not in sockets}
    paths = {name: folder / f"{name}.sock" for name in sockets}
    it = Gateway(ports, folder / log, signer, sockets=paths)
    it.secret.touch(mode=0o600)
    it.secret.write_text(f"{SECRET}\n")
    (folder / "sluice-secret.conf").write_text(f'proxy_set_header X-Sluice-Secret "{SECRET}";\n')
    return it


def identity_file(folder: Path) -> Path:
    """The shipped identity.toml, beside the keys of the gateway's clients."""
    (folder / "jwks.json").write_bytes((folder / tokens.JWKS_FILE).read_bytes())
    shipped = gateway.EXAMPLE.parent / "identity.toml"
    (folder / shipped.name).write_bytes(shipped.read_bytes())
    return folder / shipped.name


def rules_file(folder: Path) -> Path:
    """The file of block rules that a gateway's Envoy watches."""
    return folder / "rules" / "rules.json"


def until(true: Callable[[], bool], what: str, within_s: float = 15.0) -> None:
    """Returns as soon as `true()`."""
    give_up = time.monotonic() + within_s
    while not true():
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not come within {within_s} s")
        time.sleep(0.05)


def stub(gateway: Gateway, node: str) -> list[str]:
    return [sys.executable, str(HERE / "stub_decider.py"), node, gateway.address(node)]


def both_asked(gateway: Gateway) -> bool:
    """Whether requests meet both deciders."""
    # twelve apps may all belong to one decider, as the ring depends on the ports
    return (
        len({gateway.get(f"warm-{i}").headers.get("ratelimit", "") for i in range(40)} - {""}) == 2
    )


def as_test(name: str, text: str, folder: Path) -> str:
    """Return a gateway's configuration for a run in `folder`: nobody else's files, and time for a
    stub to answer, as a busy test machine does not always give it 15 ms.
    """
    text = text.replace("15ms", "500ms")
    if name == "caddy":
        return "{\n\tadmin off\n}\n" + text
    if name == "nginx":
        temporary = "".join(
            f"    {kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        head = f"pid {folder}/pid;\nerror_log stderr;\ndaemon off;\n"
        # its workers may then open sockets that are the deciders' user's alone
        head += "user root;\n" if os.geteuid() == 0 else ""
        return head + text.replace("http {", "http {\n" + temporary, 1)
    return text


def command(name: str, config: Path) -> list[str]:
    """Return how a gateway is started."""
    if name == "envoy":
        return servers.envoy_command(config)
    if name == "nginx":
        return [str(NGINX), "-e", "stderr", "-p", str(config.parent), "-c", str(config)]
    return [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(config)]


@contextmanager
def envoy(
    folder: Path,
    *,
    patience: str = "0.5s",
    trusted_hops: int = 0,
    adapt: Callable[[str], str] = str,
) -> Iterator[Gateway]:
    """Envoy with the example configuration and a service that echoes; the caller starts the
    deciders.

    `patience` replaces the 15 ms that a check may take, which a busy test machine does not always
    give a stub. `adapt` changes the configuration further.
    """
    running = made(folder, "envoy-access.json", sockets=SOCKETS)
    rules = rules_file(folder)
    write_atomically(rules, envoy_rules.render(Held()))
    jwks = folder / tokens.JWKS_FILE
    text = gateway.render_envoy_config(running.places, running.log, jwks, rules, trusted_hops)
    with around(running, "envoy", adapt(text.replace("0.015s", patience))):
        yield running


def nginx(folder: Path, *, adapt: Callable[[str], str] = str) -> AbstractContextManager[Gateway]:
    """nginx, as `envoy`."""
    write_sources(folder)
    return _shipped("nginx", 8090, folder, adapt)


def write_sources(folder: Path) -> None:
    """Write the file of blocked addresses that nginx reads, with none in it."""
    write_atomically(
        folder / "rules" / nginx_rules.SOURCES_FILE, nginx_rules.render_sources(Held())
    )


def caddy(folder: Path, *, adapt: Callable[[str], str] = str) -> AbstractContextManager[Gateway]:
    """Caddy, as `envoy`."""
    return _shipped("caddy", 8091, folder, adapt)


@contextmanager
def _shipped(name: str, port: int, folder: Path, adapt: Callable[[str], str]) -> Iterator[Gateway]:
    """Run an example that listens on `port` as it ships, but for what `adapt` changes."""
    running = made(folder)
    text = (gateway.EXAMPLE.parent / FILES[name]).read_text()
    text = text.replace(running.log.name, str(running.log))
    for own, shipped in {"d01": 9101, "d02": 9102, "services": 9200, "gateway": port}.items():
        text = re.sub(rf"127\.0\.0\.1:{shipped}\b", f"127.0.0.1:{running.ports[own]}", text)
    with around(running, name, adapt(text)):
        yield running


@contextmanager
def around(
    running: Gateway, name: str, text: str, services: Sequence[str] = ("services",)
) -> Iterator[None]:
    """Run services and a gateway with this configuration until the block ends, and then end all
    that it started.
    """
    config = running.log.parent / FILES[name]
    config.write_text(as_test(name, text, config.parent))
    try:
        for service in services:
            program = [sys.executable, str(HERE / "stub_service.py")]
            running.start(service, [*program, str(running.ports[service]), service])
        running.start(name, command(name, config))
        until(lambda: not servers.is_free(running.ports["gateway"]), name)
        for service in services:
            until(lambda port=running.ports[service]: not servers.is_free(port), service)
        yield
    finally:
        running.stop()


@contextmanager
def with_stubs(started: AbstractContextManager[Gateway]) -> Iterator[Gateway]:
    """A gateway and two deciders that answer as told, once requests meet both."""
    with started as running:
        for node in ("d01", "d02"):
            running.start(node, stub(running, node))
        # longer than a gateway leaves out a decider that it asked before it listened
        until(lambda: both_asked(running), "both deciders", within_s=60.0)
        yield running
