"""A whole installation for tests that break it: what `manage.py up` runs, on free ports, in a
folder of its own, under the same supervisor, with a wire at each connection that a test may cut.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import psycopg
import pytest
import redis

from console.local import embedded, gateway, programs, servers
from console.local.supervisor import Program, Supervisor
from decider.contracts import store
from decider.contracts.files import write_atomically
from decider.contracts.store import GatewayStatus, NodeStatus
from decider.gateway import envoy as envoy_rules
from decider.gateway.rules import Held
from decider.store_users.roles import Role
from learning.traffic import tokens
from learning.traffic.tokens import Signer
from tests.faults import stepping
from tests.faults.client import PREFIX, SteadyClient
from tests.faults.wire import Wires
from tests.gateway.running import until
from tests.servers import PATIENT

# The parts that faults happen to; `up` runs a few more.
PARTS = (*programs.DECIDERS, "envoy", "feedback", "ingest", "worker", "beat", "console")
# Started, but not broken: the others need them.
BESIDE = ("services", "gateway-agent", "console-switches", "console-front")
# Seconds. A decider whose code is not compiled yet needs a while.
START_S = 240.0
# Bytes of the disk of all parts. Chosen: several times what a new installation and its log need.
DISK_BYTES = 600_000_000
# Bytes written at once to fill it. Chosen: a page, so that no part finds room for one.
BALLAST_STEP = 1 << 12
# Keeps every decision, so that each one that a client was told of must be stored.
SAMPLE_ALL = """
import msgspec
from control.audit.actors import SYSTEM
from control.config import changes
from decider.contracts.config import Sampling
changes.make_version(
    by=SYSTEM, reason="every decision is kept", action="config.test", subject="sampling",
    summary="kept every decision",
    edit=lambda old: msgspec.structs.replace(old, sampling=Sampling(admit=1.0, refuse=1.0)),
)
"""


class Installation:
    """The running parts, what holds between them, and the client of their gateway."""

    def __init__(self, var: Path) -> None:
        """Lay the wires and write down which programs there are; `start` starts them."""
        self.var = var
        self.ports = {n: servers.free_port() for n in ("gateway", "services", "console")}
        self.postgres = embedded.postgres_server(var)
        self.valkey = embedded.valkey_server(var)
        self.wires = Wires()
        found = [
            *programs.server_programs(var),
            *programs.worker_programs(var, self.ports, "local"),
        ]
        wanted = {"postgres", "valkey", *PARTS, *BESIDE}
        self.supervisor = Supervisor(
            var, [self._wired(program) for program in found if program.name in wanted]
        )
        self.store = redis.Redis.from_url(self.valkey.url(), socket_timeout=2)
        tokens.ensure_keys(var / "keys")
        signer = Signer(var / "keys" / tokens.KEY_FILE)
        self.client = SteadyClient(self.ports["gateway"], signer)

    # ---- starting

    def _wired(self, program: Program) -> Program:
        """Return the program with its addresses of servers led over wires of its own."""
        environment = {"DATABASE_URL": self.postgres.url(), **program.environment}
        if program.name in {"postgres", "valkey"}:
            return program
        for server, name in ((self.postgres, "DATABASE_URL"), (self.valkey, "VALKEY_URL")):
            if environment.get(name):
                part = type(server).__name__.lower()
                port = servers.free_port()
                self.wires.lay(f"{program.name}>{part}", port, server.port)
                address = environment[name]
                environment[name] = address.replace(f":{server.port}/", f":{port}/")
        environment |= {"SLUICE_VAR": str(self.var), "DJANGO_SETTINGS_MODULE": "console.settings"}
        command = program.command
        if program.name in programs.DECIDERS:
            environment[stepping.FILE] = str(self._step_file(program.name))
            stepped = [stepping.__name__ if word == "decider" else word for word in command]
            command = [*stepped, *PATIENT]
        return dataclasses.replace(program, environment=environment, command=command)

    def start(self) -> None:
        for name in ("log", "run", "models", "media", "static", "nodes/d01", "nodes/d02"):
            (self.var / name).mkdir(parents=True, exist_ok=True)
        self._configure_gateways()
        self.supervisor.start()
        self.valkey.make()
        self.postgres.make()
        self.supervisor.run("valkey", "postgres")
        servers.wait_until_ready(self.valkey)
        servers.wait_until_ready(self.postgres)
        self.postgres.make_database()
        self.manage("migrate", "--verbosity", "0")
        self.manage("seed", "--apps", "20")
        self.manage("first_model")
        self.manage("shell", "--no-imports", "-c", SAMPLE_ALL)
        # in turn: the first fills the cache of compiled code for the other
        for node in programs.DECIDERS:
            self.supervisor.run(node)
            until(lambda node=node: self.decider_answers(node), node, START_S)
        self.supervisor.run(*PARTS, *BESIDE)
        until(self.console_answers, "the console", 60)
        until(self.ingests, "ingest", 60)
        self.client.start()

    def _configure_gateways(self) -> None:
        sockets = programs.gateway_sockets(self.var)
        for node in programs.DECIDERS:
            far, near = sockets[node], sockets[node].with_suffix(".wire")
            self.wires.lay(f"envoy>{node}", near, far)
            sockets[node] = near
        rules = programs.gateway_rules_path(self.var)
        write_atomically(rules, envoy_rules.render(Held()))
        places: dict[str, int | Path] = {**self.ports, **sockets}
        jwks, log = self.var / "keys" / tokens.JWKS_FILE, programs.access_log_path(self.var)
        text = gateway.render_envoy_config(places, log, jwks, rules)
        # a busy test machine does not always answer within 15 ms
        (self.var / "run" / "envoy.yaml").write_text(text.replace("0.015s", "0.5s"))
        programs.console_config_path(self.var).write_text(
            gateway.render_console_config(
                self.ports["console"], programs.console_sockets(self.var), trusted_hops=0
            )
        )

    def manage(self, *arguments: str) -> str:
        """Run a command of `manage.py` as an operator would; return what it printed."""
        environment = {
            **os.environ,
            "DATABASE_URL": self.postgres.url(),
            "VALKEY_URL": self.valkey.url(role=Role.OPERATOR),
            "SLUICE_VAR": str(self.var),
            "DJANGO_SETTINGS_MODULE": "console.settings",
        }
        done = subprocess.run(
            [sys.executable, "-B", "manage.py", *arguments],
            cwd=embedded.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self) -> None:
        self.client.stop()
        self.store.close()
        self.supervisor.stop()
        self.wires.close()

    # ---- breaking

    def processes(self, part: str) -> list[psutil.Process]:
        """Return the part's process and its children."""
        with self.supervisor.asking() as they:
            pid = int(they.getProcessInfo(part)["pid"])
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(pid) if pid else None
            return [own, *own.children(recursive=True)] if own else []
        return []

    def kill(self, part: str) -> None:
        """End the part without warning; the supervisor starts it again."""
        self.processes(part)[0].kill()

    def halt(self, part: str) -> list[psutil.Process]:
        """Stop the part with all its children, and return them for `go_on`."""
        halted = self.processes(part)
        for process in halted:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)
        return halted

    @staticmethod
    def go_on(halted: list[psutil.Process]) -> None:
        for process in halted:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)

    def step_clock(self, node: str, seconds: float) -> None:
        """Let the decider's wall clock be wrong by so many seconds."""
        write_atomically(self._step_file(node), str(seconds).encode())

    def _step_file(self, node: str) -> Path:
        return self.var / "run" / f"{node}.step"

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Leave no byte free on the disk of all parts while the body runs."""
        if not self.var.is_mount():
            pytest.skip("only root can mount a small disk here, to fill it")
        ballast = self.var / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(BALLAST_STEP))
            yield
        finally:
            ballast.unlink()

    # ---- looking

    def decider_answers(self, node: str) -> bool:
        return programs.serves_page(programs.gateway_sockets(self.var)[node], "/healthz")

    def console_answers(self) -> bool:
        return programs.serves_page(self.ports["console"], "/login")

    def api_status(self) -> int:
        """Return the status with which the console answers a token that only the database could
        know; 0 when nothing comes within 20 s.
        """
        line = http.client.HTTPConnection("127.0.0.1", self.ports["console"], timeout=20)
        token = {"authorization": f"Token sluice_{'0' * 57}", "host": "localhost"}
        with closing(line), suppress(OSError, http.client.HTTPException):
            line.request("GET", "/api/v1/decisions", headers=token)
            return line.getresponse().status
        return 0

    def node(self, name: str) -> NodeStatus | None:
        data = self.store.get(store.NODE_PREFIX + name)
        return msgspec.msgpack.decode(data, type=NodeStatus) if isinstance(data, bytes) else None

    def version_of(self, name: str) -> int:
        """Return the config version by which a decider decides; 0 while it is silent."""
        status = self.node(name)
        return status.config_version if status else 0

    def gateway_status(self) -> GatewayStatus:
        every: Any = self.store.hvals(store.GATEWAYS_KEY)
        return msgspec.msgpack.decode(next(iter(every)), type=GatewayStatus)

    def ingests(self) -> bool:
        return bool(self.store.exists(store.INGEST_STATUS_KEY))

    def stored(self) -> list[bytes]:
        """Return the ids of all stored decisions, doubles included."""
        with psycopg.connect(self.postgres.url(), connect_timeout=5) as line:
            return [row[0].bytes for row in line.execute("SELECT id FROM decisions_decision")]

    def scheduled(self) -> int:
        """Return how many tasks were put into Celery's queues since Valkey started."""
        found: Any = self.store.info("commandstats")
        return int(found.get("cmdstat_lpush", {}).get("calls", 0))

    def waiting_tasks(self) -> int:
        return int(self.store.llen(f"{store.CELERY_PREFIX}celery"))

    def dropped(self) -> int:
        """Return how many events the deciders that live dropped since their start, as they say."""
        every = [self.node(name) for name in programs.DECIDERS]
        return sum(one.events_dropped for one in every if one is not None)

    def buried(self) -> int:
        """Return how many batches were buried."""
        found: Any = self.store.get(store.DEAD_COUNT_KEY)
        return int(found or 0)

    def log_end(self) -> int:
        return programs.access_log_path(self.var).stat().st_size

    def logged(self, since: int) -> list[dict[str, Any]]:
        """Return the lines of the client's requests in the gateway's log from a byte on."""
        whole = programs.access_log_path(self.var).read_bytes()[since:]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if str(line.get("app")).startswith(PREFIX)]

    def log_tail(self, part: str) -> str:
        return self.supervisor.log_path(part).read_text(errors="replace")[-2000:]


@contextmanager
def _surroundings(var: Path) -> Iterator[None]:
    """Let this process see the installation's servers as those that `up` runs."""
    ours: Mapping[str, str] = {
        "SLUICE_EMBEDDED_POSTGRES": "true",
        "SLUICE_EMBEDDED_VALKEY": "true",
        "SLUICE_POSTGRES_PORT": str(servers.free_port()),
        "SLUICE_VALKEY_PORT": str(servers.free_port()),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        yield


@contextmanager
def _own_disk(folder: Path) -> Iterator[None]:
    """Put a small disk in the place of the folder, where that is allowed."""
    kind = ["-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0755", "tmpfs"]
    may = os.geteuid() == 0 and shutil.which("mount")
    done = may and subprocess.run(["mount", *kind, str(folder)], capture_output=True, check=False)
    try:
        yield
    finally:
        if done and done.returncode == 0:
            # lazily: an orphan of a killed part may still hold a file
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def running() -> Iterator[Installation]:
    """A whole installation with its client, once all parts are up."""
    with ExitStack() as stack:
        # short, as paths of sockets are
        var = Path(tempfile.mkdtemp(prefix="sluice-faults-", dir="/tmp"))
        stack.callback(shutil.rmtree, var, ignore_errors=True)
        stack.enter_context(_own_disk(var))
        servers.let_pass(var)
        stack.enter_context(_surroundings(var))
        it = Installation(var)
        stack.callback(it.end)
        it.start()
        yield it
