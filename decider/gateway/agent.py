"""A gateway's agent: `python -m decider.gateway.agent --name NAME --keys DIR --data DIR --envoy
FILE`.

It takes the signed config document from Valkey, verifies it as a decider does, and writes the block
and compliance rules into files that the gateway reads. So they hold while no decider answers. When
Valkey is away, the last good document holds on, and rules that end by themselves still end.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from decider.contracts import config as configs
from decider.contracts import store
from decider.contracts.config import Config, ConfigError
from decider.contracts.files import write_atomically
from decider.gateway import envoy, nginx
from decider.gateway.rules import Held, held
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role

# Seconds between two looks at the store, and at rules that ended. Chosen: a block is in force at
# the gateway this soon, and a look costs one round trip.
LOOK_S = 1.0
# Seconds that the store may take to answer, before the agent looks at its rules again.
STORE_S = 2.0
# Seconds that the command of --reload may take. Chosen: nginx answers at once.
RELOAD_S = 10.0
# Bytes of a document. Chosen: ten times one with 50,000 list entries.
MOST_BYTES = 64 << 20

log = logging.getLogger("sluice.gateway")


@dataclass
class Outlet:
    """The files of one gateway, and the command that has it read them."""

    files: dict[Path, Callable[[Held], bytes]]
    reload: list[str] = field(default_factory=list)
    _unread: bool = False
    """Whether the gateway has not been told of what was written."""

    def write(self, rules: Held) -> None:
        """Write what differs from what is there, and tell the gateway. Raise OSError; the next call
        then does what was left undone.
        """
        for path, render in self.files.items():
            data = render(rules)
            if not path.is_file() or path.read_bytes() != data:
                self._unread = True
                write_atomically(path, data)
        if self._unread and self.reload:
            self._reload()
        self._unread = False

    def _reload(self) -> None:
        try:
            subprocess.run(self.reload, check=True, capture_output=True, timeout=RELOAD_S)
        except subprocess.SubprocessError as error:
            raise OSError(f"the gateway could not be told to read its files: {error}") from error


class Agent:
    """The agent of one gateway. `keys`: the console's public keys by id; `data`: its directory."""

    def __init__(
        self, name: str, keys: dict[str, Ed25519PublicKey], data: Path, outlet: Outlet
    ) -> None:
        self.name, self._keys, self._data, self._outlet = name, keys, data, outlet
        self.config: Config | None = None
        self.rules = Held()
        self.document_error = ""
        self.file_error = ""
        self._refused = self._in_use = b""
        self._written: Held | None = None
        self._good_until = -math.inf
        """Until when the rules written are those in force, unix seconds."""

    def start_from_disk(self) -> None:
        """Take up the last good document, if there is one."""
        path = self._data / "config.bin"
        if path.is_file():
            self.offer(path.read_bytes(), keep=False)

    def offer(self, data: bytes, *, keep: bool = True) -> None:
        """Take up a signed document if it is newer than the one in use. A bad one is refused, and
        said once.
        """
        if data == self._refused:
            return
        try:
            if len(data) > MOST_BYTES:
                raise ConfigError(f"it has more than {MOST_BYTES:,} bytes")
            config = configs.verify(data, self._keys)
        except ConfigError as error:
            self._refused, self.document_error = data, f"config refused: {error}"
            log.error("%s; the last good one stays in use", self.document_error)
            return
        self.document_error = ""
        if self.config is not None and config.version <= self.config.version:
            self._look_at_older(data, config.version)
            return
        self.config, self._good_until, self._in_use = config, -math.inf, data
        if keep:
            self._keep(data)

    def _look_at_older(self, data: bytes, version: int) -> None:
        """Say that the store holds a document that will not be followed. Documents come from it
        alone and one after the other, so an older one is no late one.
        """
        if data == self._in_use:
            return
        assert self.config is not None
        self._refused = data
        self.document_error = (
            f"config {configs.version_text(version)} is not followed: config"
            f" {configs.version_text(self.config.version)} is in force here. Was the database"
            " restored? Then `manage.py restored` makes gateways follow it"
        )
        log.error("%s", self.document_error)

    def _keep(self, data: bytes) -> None:
        try:
            write_atomically(self._data / "config.bin", data)
        except OSError as error:
            log.error("the config could not be kept on disk: %s", error)

    def apply(self, now: float) -> None:
        """Write the rules that are in force at `now` (unix seconds), if others were."""
        if now < self._good_until:
            return
        rules = held(self.config, now)
        try:
            if rules != self._written:
                self._outlet.write(rules)
        except OSError as error:
            # tried again at the next look
            self._say_file_error(f"the rules could not be written: {error}")
            return
        if rules != self._written:
            self._say(rules)
        self.file_error, self.rules, self._written = "", rules, rules
        self._good_until = _next_end(self.config, now)

    def _say_file_error(self, text: str) -> None:
        if text != self.file_error:
            log.error("%s", text)
        self.file_error = text

    def _say(self, rules: Held) -> None:
        version = self.config.version if self.config else 0
        log.info("config %d: the gateway holds %d subjects", version, rules.subjects)
        if rules.left_out:
            log.warning(
                "%d subjects are more than a gateway is given; only deciders refuse them",
                rules.left_out,
            )

    def status(self, now: float) -> store.AgentStatus:
        """Return the heartbeat."""
        return store.AgentStatus(
            self.name,
            now,
            self.config.version if self.config else 0,
            self.rules.subjects,
            self.rules.left_out,
            store.cut(self.file_error or self.document_error),
        )

    def metrics(self) -> bytes:
        """Return the metrics as Prometheus text, for the textfile collector of a node exporter."""
        figures = {
            "sluice_gateway_config_version": self.config.version if self.config else 0,
            "sluice_gateway_rules": self.rules.subjects,
            "sluice_gateway_rules_left_out": self.rules.left_out,
            "sluice_gateway_stale": int(bool(self.file_error or self.document_error)),
        }
        lines = [f"# TYPE {name} gauge\n{name} {value}\n" for name, value in figures.items()]
        return "".join(lines).encode()


def _next_end(config: Config | None, now: float) -> float:
    """Return when the next rule of a document ends by itself, infinity for never."""
    # looked up, so that a long document is not read again each second
    times = (until for _, until in configs.ends(config) if until) if config else ()
    return min((until for until in times if until > now), default=math.inf)


def exchange(agent: Agent, client: redis.Redis, now: float) -> None:
    """Fetch the document and leave the heartbeat. Raise redis.RedisError when the store is away."""
    found = client.get(store.CONFIG_KEY)
    if isinstance(found, bytes):
        agent.offer(found)
    agent.apply(now)
    pipe = client.pipeline(transaction=False)
    status = msgspec.msgpack.encode(agent.status(now))
    pipe.set(store.AGENT_PREFIX + agent.name, status, ex=store.NODE_TTL_S)
    pipe.zadd(store.AGENTS_KEY, {agent.name: now})
    pipe.execute()


def run(agent: Agent, client: redis.Redis, metrics: Path | None, stop: threading.Event) -> None:
    """Hold the gateway's files up to date until `stop` is set."""
    away = ""
    while not stop.is_set():
        try:
            exchange(agent, client, time.time())
            away = ""
        except redis.RedisError as error:
            if not away:
                log.warning("Valkey is away (%s); the last good document stays in use", error)
            away = str(error)
            # rules end by themselves without the store, too
            agent.apply(time.time())
        if metrics is not None:
            _write_metrics(metrics, agent.metrics())
        stop.wait(LOOK_S)


def _write_metrics(path: Path, data: bytes) -> None:
    try:
        if not path.is_file() or path.read_bytes() != data:
            write_atomically(path, data)
    except OSError as error:
        log.error("the metrics could not be written: %s", error)


def outlet_of(options: argparse.Namespace) -> Outlet:
    """Return where the rules go."""
    files: dict[Path, Callable[[Held], bytes]] = {}
    if options.envoy:
        files[options.envoy] = envoy.render
    if options.nginx:
        files[options.nginx / nginx.SOURCES_FILE] = nginx.render_sources
        files[options.nginx / nginx.APPS_FILE] = nginx.render_apps
    return Outlet(files, shlex.split(options.reload))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; exit with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m decider.gateway.agent",
        description="Has a gateway hold to block and compliance rules while no decider answers.",
    )
    parser.add_argument("--name", required=True, help="name of this gateway, unique in all regions")
    parser.add_argument("--keys", type=Path, required=True, help="directory with config.pub")
    parser.add_argument("--data", type=Path, required=True, help="this agent's directory")
    parser.add_argument("--envoy", type=Path, metavar="FILE", help="file that Envoy watches")
    parser.add_argument("--nginx", type=Path, metavar="DIR", help="folder that nginx includes")
    parser.add_argument("--reload", default="", metavar="COMMAND", help="run after a change")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="Prometheus text, rewritten")
    parser.add_argument("--once", action="store_true", help="write the files once and end")
    parser.add_argument("--valkey", default=os.environ.get("VALKEY_URL"), help="URL of Valkey")
    options = parser.parse_args(arguments)
    if not options.envoy and not options.nginx:
        parser.error("name where the rules go: --envoy FILE or --nginx DIR")
    if not options.valkey and not options.once:
        parser.error("set VALKEY_URL, or name Valkey with --valkey")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Return the exit code: 2 when it cannot start."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        keys = configs.read_public_keys(options.keys / "config.pub")
        if not options.once:
            check_user(options.valkey, Role.GATEWAY)
    except (OSError, ValueError) as error:
        print(f"gateway agent: config.pub cannot be read: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except StoreUserError as error:
        print(f"gateway agent: {error}", file=sys.stderr)  # noqa: T201
        return 2
    agent = Agent(options.name, keys, options.data, outlet_of(options))
    agent.start_from_disk()
    agent.apply(time.time())
    if options.once:
        return int(bool(agent.file_error))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    client = redis.Redis.from_url(
        options.valkey, socket_timeout=STORE_S, socket_connect_timeout=STORE_S
    )
    run(agent, client, options.metrics, stop)
    client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
