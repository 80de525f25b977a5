"""The processes that `waiting_clients` measures: Valkey, two deciders, Envoy with the example
configuration, the feedback process, and services that slow down on a schedule.

There is no database and no console: this module puts into Valkey what the console would publish.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import redis
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.processes import ROOT
from console.local import gateway, launch, servers
from decider.contracts import config as documents
from decider.contracts import known, store
from decider.contracts.config import Config
from decider.contracts.files import write_atomically
from decider.contracts.requests import CheckRequest
from decider.contracts.sealed import outcomes, profiles
from decider.contracts.store import NodeStatus, Profile
from decider.engine.known_apps import table as known_apps
from decider.engine.text_hash import TextHash
from decider.gateway import envoy as envoy_rules
from decider.gateway.rules import Held
from learning.traffic import services, tokens
from learning.traffic.client import GatewayClient, GatewayError
from learning.traffic.demo_services import DemoServices
from learning.traffic.tokens import Signer

# Deciders, as `manage.py up` starts them.
NODES = ("d01", "d02")
PORTS = ("gateway", "services")
SOCKETS = ("envoy-check", "envoy-admin", *NODES)
# Seconds that the start may take: of a decider, which may have to compile first, and of other
# processes.
DECIDER_START_S, START_S = 240.0, 30.0
# Seconds for a process to end by itself.
STOP_S = 20.0
# Niceness of the processes that need not answer at once, as with `manage.py up`.
BEHIND = 5


class Installation(NamedTuple):
    """The apps that deciders may know."""

    all: list[Profile]
    """All apps. The paying ones are in the table of known apps."""
    registered: list[Profile]
    """The apps whose profiles reach deciders."""


class Stack(NamedTuple):
    """The running parts."""

    url: str
    """Address of the gateway."""
    token_key: bytes
    signer: Signer
    """Makes the clients' tokens."""
    valkey: str
    """URL of Valkey."""


def write_keys(folder: Path) -> Ed25519PrivateKey:
    """Write the keys that deciders and the feedback program read, and return the key that signs
    configs.
    """
    folder.mkdir(parents=True)
    key = Ed25519PrivateKey.generate()
    (folder / "config.pub").write_text(key.public_key().public_bytes_raw().hex())
    token_key = secrets.token_bytes(32)
    (folder / "token.key").write_text(token_key.hex())
    (folder / outcomes.KEY_FILE).touch(mode=0o600)
    (folder / outcomes.KEY_FILE).write_text(outcomes.derive_key(token_key).hex())
    return key


def publish(
    valkey: redis.Redis,
    key: Ed25519PrivateKey,
    token_key: bytes,
    document: Config,
    people: Installation,
) -> None:
    """Put into the store what the console would: profiles, known apps, and the document."""
    profile_key = profiles.derive_key(token_key)
    with valkey.pipeline(transaction=False) as pipe:
        for profile in people.registered:
            pipe.set(store.PROFILE_PREFIX + profile.app, profiles.seal(profile, profile_key))
        pipe.execute()
    text_hash = TextHash(token_key)
    table = known_apps.of_profiles(people.all, text_hash)
    parts = known.split((table.key, table.tenant, table.tier))
    for digest, data in parts.items():
        valkey.set(store.KNOWN_PART_PREFIX + digest, data)
    version = int(time.time() * 1e3)
    snapshot = known.Snapshot(version, document.version, text_hash.mark, list(parts))
    valkey.xadd(store.KNOWN_STREAM, {"b": known.sign(snapshot, key)}, id=f"{version}-0")
    valkey.set(store.CONFIG_KEY, documents.sign(document, key))


@contextmanager
def running(
    document: Config,
    model: bytes,
    people: Installation,
    slowdowns: tuple[services.Slowdown, ...],
) -> Iterator[Stack]:
    """Run all processes while the body runs. `model` is the encoded artifact that `document` names.

    Raises RuntimeError with the output of a process that did not start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        key = write_keys(folder / "keys")
        token_key = bytes.fromhex((folder / "keys" / "token.key").read_text())
        (folder / "models").mkdir()
        assert document.model is not None
        (folder / "models" / document.model.digest).write_bytes(model)
        server = servers.Valkey(folder / "valkey", servers.free_port(), secrets.token_hex(8))
        server.make()
        stack.enter_context(_process("valkey", server.command(), folder))
        servers.wait_until_ready(server)
        valkey = redis.Redis.from_url(server.url())
        stack.callback(valkey.close)
        publish(valkey, key, token_key, document, people)
        ports = {name: servers.free_port() for name in PORTS}
        sockets = {name: folder / f"{name}.sock" for name in SOCKETS}
        _start_deciders(stack, folder, server.url(), sockets, valkey)
        _start_services(stack, folder, ports["services"], document, slowdowns)
        signer = _start_gateway(stack, folder, server.url(), {**ports, **sockets})
        yield Stack(f"http://127.0.0.1:{ports['gateway']}", token_key, signer, server.url())


def _start_deciders(
    stack: ExitStack, folder: Path, url: str, sockets: dict[str, Path], valkey: redis.Redis
) -> None:
    # in turn: the first fills the cache of compiled code for the other
    for node in NODES:
        where = ["--node", node, "--region", "local", "--listen", f"unix:{sockets[node]}"]
        where += ["--data", str(folder / node), "--models", str(folder / "models")]
        where += ["--keys", str(folder / "keys"), "--valkey", url]
        command = [sys.executable, "-m", "decider", *where]
        tied = launch.tied_command(command, prompt=True)
        process = stack.enter_context(_process(node, tied, folder))
        _wait_until(partial(_has_model, valkey, node), f"decider {node}", DECIDER_START_S, process)


def _has_model(valkey: redis.Redis, node: str) -> bool:
    """Return whether a decider reports a live model and the table of known apps."""
    data = valkey.get(store.NODE_PREFIX + node)
    if not isinstance(data, bytes):
        return False
    status = msgspec.msgpack.decode(data, type=NodeStatus)
    return bool(status.model) and status.known_apps > 0


def _start_services(
    stack: ExitStack,
    folder: Path,
    port: int,
    document: Config,
    slowdowns: tuple[services.Slowdown, ...],
) -> None:
    path = folder / "services.json"
    path.write_bytes(msgspec.json.encode({"document": document, "slowdowns": slowdowns}))
    command = [sys.executable, "-m", "bench.waiting_clients.stack", str(path), str(port)]
    tied = launch.tied_command(command, nice=BEHIND)
    process = stack.enter_context(_process("services", tied, folder))
    _wait_until(lambda: not servers.is_free(port), "the services", START_S, process)


def _start_gateway(
    stack: ExitStack, folder: Path, url: str, places: dict[str, int | Path]
) -> Signer:
    """Start Envoy and the feedback program; return the maker of the tokens that it believes."""
    path, log = folder / "envoy.yaml", folder / "envoy-access.json"
    rules = folder / "rules" / "rules.json"
    write_atomically(rules, envoy_rules.render(Held()))
    path.write_text(gateway.render_envoy_config(places, log, tokens.ensure_keys(folder), rules))
    signer = Signer(folder / tokens.KEY_FILE)
    envoy = stack.enter_context(_process("envoy", servers.envoy_command(path), folder))
    port = places["gateway"]
    assert isinstance(port, int)
    _wait_until(lambda: not servers.is_free(port), "Envoy", START_S, envoy)
    command = [sys.executable, "-m", "decider.node.feedback", "--log", str(log), "--valkey", url]
    command += ["--envoy-admin", f"unix:{places['envoy-admin']}"]
    command += ["--outcomes-key", str(folder / "keys" / outcomes.KEY_FILE)]
    stack.enter_context(_process("feedback", launch.tied_command(command, nice=BEHIND), folder))
    address = f"http://127.0.0.1:{port}"
    _wait_until(
        lambda: asyncio.run(_decides(address, signer)), "decisions at the gateway", START_S, envoy
    )
    return signer


async def _decides(url: str, signer: Signer) -> bool:
    """Return whether deciders decide the requests of a dozen apps, which they share."""
    client = GatewayClient(url, signer=signer)
    try:
        asked = [
            await client.send(CheckRequest(f"warm-{k}", "GET", "/v2/orders/1")) for k in range(12)
        ]
    except GatewayError:
        return False
    finally:
        client.close()
    return all(answer.decision for answer in asked)


def _wait_until(
    done: Callable[[], bool], what: str, limit_s: float, process: subprocess.Popen[bytes]
) -> None:
    """Wait until `done`. Raises RuntimeError when `process` ends first or takes over `limit_s`."""
    stop = time.monotonic() + limit_s
    while not done():
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended at its start, with status {process.returncode}")
        if time.monotonic() > stop:
            raise RuntimeError(f"{what} did not come up within {limit_s:.0f} s")
        time.sleep(0.1)


@contextmanager
def _process(name: str, command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the body runs. The body's RuntimeError carries its output as a note."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", launch.PARENT_PID: str(os.getpid())}
    with (folder / f"{name}.out").open("wb+") as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            yield process
        except RuntimeError as error:
            said.seek(0)
            error.add_note(f"{name} said: {said.read()[-2000:].decode(errors='replace')}")
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


# ---- the services' process
# ---------------------------------------------------------------------


class _Served(msgspec.Struct):
    """Input of the services' process."""

    document: Config
    slowdowns: list[dict[str, str | float]]


def _serve(path: Path, port: int) -> None:
    told = msgspec.json.decode(path.read_bytes(), type=_Served)
    slowdowns = tuple(services.Slowdown(**each) for each in told.slowdowns)  # type: ignore[arg-type]
    app = DemoServices(told.document, slowdowns)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.waiting_clients.stack")
    parser.add_argument("told", type=Path)
    parser.add_argument("port", type=int)
    asked = parser.parse_args()
    _serve(asked.told, asked.port)
