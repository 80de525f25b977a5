"""Starts and ends the processes a gateway test needs."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from console.local import gateway, servers
from decider.contracts.files import write_atomically
from decider.gateway import envoy as envoy_rules
from decider.gateway.rules import Held
from learning.traffic import tokens
from learning.traffic.tokens import Signer

HERE = Path(__file__).parent
NAMES = ("gateway", "envoy-check", "envoy-admin", "d01", "d02", "services")


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


@dataclass
class Gateway:
    """A running Envoy and the processes around it."""

    ports: dict[str, int]
    log: Path
    signer: Signer
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

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
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["gateway"], timeout=5)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if app:
            named.setdefault("authorization", f"Bearer {self.signer.token(app)}")
        connection.request(method, path, body or None, named)
        response = connection.getresponse()
        answer = Answer(
            response.status,
            {k.lower(): v for k, v in response.getheaders()},
            response.read().decode(),
        )
        connection.close()
        return answer

    def admin(self, path: str) -> str:
        """A page of Envoy's admin interface."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["envoy-admin"], timeout=5)
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
                command, stdout=subprocess.DEVNULL, stderr=errors
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


def made(folder: Path, log: str = "unused.json") -> Gateway:
    """A gateway to be started, with free ports and a key for its clients."""
    tokens.ensure_keys(folder)
    signer = Signer(folder / tokens.KEY_FILE)
    return Gateway({name: servers.free_port() for name in NAMES}, folder / log, signer)


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


def stub(name: str, port: int) -> list[str]:
    return [sys.executable, str(HERE / "stub_decider.py"), name, str(port)]


def both_asked(gateway: Gateway) -> bool:
    """Whether requests meet both deciders."""
    # twelve apps may all belong to one decider, as the ring depends on the ports
    return (
        len({gateway.get(f"warm-{i}").headers.get("ratelimit", "") for i in range(40)} - {""}) == 2
    )


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
    jwks = tokens.ensure_keys(folder)
    running = made(folder, "envoy-access.json")
    config = folder / "envoy.yaml"
    rules = rules_file(folder)
    write_atomically(rules, envoy_rules.render(Held()))
    text = gateway.render_envoy_config(running.ports, running.log, jwks, rules, trusted_hops)
    config.write_text(adapt(text.replace("0.015s", patience)))
    try:
        running.start(
            "services",
            [sys.executable, str(HERE / "stub_service.py"), str(running.ports["services"])],
        )
        running.start("envoy", servers.envoy_command(config))
        until(lambda: not servers.is_free(running.ports["gateway"]), "Envoy")
        until(lambda: not servers.is_free(running.ports["services"]), "the service")
        yield running
    finally:
        running.stop()
