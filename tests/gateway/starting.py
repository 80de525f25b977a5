"""The shipped configurations of nginx and Caddy, started on free ports."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from console.local import gateway as example
from console.local import servers
from decider.contracts.files import write_atomically
from decider.gateway import nginx as rules
from decider.gateway.rules import Held
from tests.gateway import running
from tests.gateway.running import HERE, Gateway, until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CADDY = shutil.which("caddy")
# Starts a node's decider or a stub of it.
Start = Callable[[Gateway, str], list[str]]


def stubbed(gateway: Gateway, node: str) -> list[str]:
    return running.stub(node, gateway.ports[node])


def _text(name: str, own_port: int, gateway: Gateway) -> str:
    """A shipped configuration with the ports of a test, and a patience that a busy test machine
    can keep to.
    """
    text = (example.EXAMPLE.parent / name).read_text().replace("15ms", "500ms")
    for port, shipped in {"d01": 9101, "d02": 9102, "services": 9200, "gateway": own_port}.items():
        text = re.sub(rf"127\.0\.0\.1:{shipped}\b", f"127.0.0.1:{gateway.ports[port]}", text)
    return text


@contextmanager
def _around(gateway: Gateway, command: list[str], start: Start) -> Iterator[Gateway]:
    try:
        service = [sys.executable, str(HERE / "stub_service.py"), str(gateway.ports["services"])]
        gateway.start("services", service)
        for node in ("d01", "d02"):
            gateway.start(node, start(gateway, node))
        gateway.start("proxy", command)
        for name in ("services", "d01", "d02", "gateway"):
            until(lambda name=name: not servers.is_free(gateway.ports[name]), name)  # type: ignore[misc]
        yield gateway
    finally:
        gateway.stop()


@contextmanager
def nginx(
    folder: Path, start: Start = stubbed, adapt: Callable[[str], str] = str
) -> Iterator[Gateway]:
    it = running.made(folder)
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"pid {folder}/pid;\nerror_log stderr;\ndaemon off;\n"
    text = adapt(_text("nginx.conf", 8090, it))
    write_atomically(folder / "rules" / rules.SOURCES_FILE, rules.render_sources(Held()))
    config = folder / "nginx.conf"
    config.write_text(head + text.replace("http {", "http {\n    access_log off;\n" + temporary, 1))
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(config)]
    with _around(it, command, start):
        yield it


@contextmanager
def caddy(
    folder: Path, start: Start = stubbed, adapt: Callable[[str], str] = str
) -> Iterator[Gateway]:
    it = running.made(folder)
    config = folder / "Caddyfile"
    config.write_text("{\n\tadmin off\n}\n" + adapt(_text("Caddyfile", 8091, it)))
    command = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(config)]
    with _around(it, command, start):
        yield it


@contextmanager
def envoy(
    folder: Path, start: Start = stubbed, adapt: Callable[[str], str] = str
) -> Iterator[Gateway]:
    with running.envoy(folder, adapt=adapt) as it:
        for node in ("d01", "d02"):
            it.start(node, start(it, node))
        for node in ("d01", "d02"):
            until(lambda node=node: not servers.is_free(it.ports[node]), node)  # type: ignore[misc]
        yield it
