"""A whole installation for tests that break it: what `manage.py up` runs, on free ports, in a
folder of its own, under the same supervisor, with a wire at each connection that a test may cut.
"""

from __future__ import annotations

import dataclasses
import html
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import psutil
import psycopg
import pytest
import redis

from console.local import embedded, gateway, programs, servers
from console.local.supervisor import Program, Supervisor
from control.database_roles.roles import DatabaseRole
from decider import compile_ahead
from decider.contracts import config as configs
from decider.contracts import store
from decider.contracts.config import Config
from decider.contracts.files import write_atomically
from decider.contracts.store import AgentStatus, GatewayStatus, IngestStatus, NodeStatus
from decider.doors.unix_client import UnixConnection
from decider.gateway import envoy as envoy_rules
from decider.gateway.rules import Held
from decider.store_users.roles import Role
from learning.traffic import tokens
from learning.traffic.tokens import Signer
from tests.faults import operator, small_disk, stepping
from tests.faults.client import PREFIX, SteadyClient
from tests.faults.wire import Wires
from tests.servers import PATIENT

Status = TypeVar("Status", AgentStatus, GatewayStatus, IngestStatus, NodeStatus)
# The parts that faults happen to; `up` runs a few more.
PARTS = (
    *programs.DECIDERS,
    *("envoy", "feedback", "gateway-agent", "ingest", "worker", "beat", "console", "console-front"),
)
# Started, but not broken: the others need it.
BESIDE = ("services",)
# Seconds in which a decider starts, whose code was compiled before. Chosen: ten times what it takes
# on an idle machine.
START_S = 120.0
# Seconds for any other part. Chosen in the same way.
PART_START_S = 60.0
# Characters of the end of a log that are shown when its part does not start.
SHOWN_LOG = 2000


def _decoded(data: Any, kind: type[Status]) -> Status | None:
    return msgspec.msgpack.decode(data, type=kind) if isinstance(data, bytes) else None


class Account(NamedTuple):
    """What became of the events that deciders sampled, summed up over their runs; the fields are
    columns of `DeciderRun`, which says more.
    """

    dropped: int
    sent: int
    stored: int
    buried: int
    discarded: int
    withheld: int
    lost: int

    @property
    def adds_up(self) -> bool:
        """Whether all that were sent have arrived, and it is known where."""
        where = self.stored + self.buried + self.discarded + self.withheld + self.lost
        return self.sent == where


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
        self._cookie = ""

    # ---- starting

    def _wired(self, program: Program) -> Program:
        """Return the program with its addresses of servers led over wires of its own."""
        environment = {
            "DATABASE_URL": self.postgres.url(role=DatabaseRole.APP),
            **program.environment,
        }
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
        self.do(operator.SAMPLE_ALL)
        self._cookie = self.do(operator.SIGN_IN)
        # on both cores; each decider would do so by itself, on one
        if not compile_ahead.is_compiled_ahead():
            compile_ahead.compile_ahead()
        self.supervisor.run(*PARTS, *BESIDE)
        for node in programs.DECIDERS:
            self.wait_for(node, partial(self.decider_answers, node), START_S)
        self.wait_for("console", self.console_answers)
        for part in ("ingest", "feedback", "gateway-agent"):
            self.wait_for(part, lambda part=part: part not in self.silent(0.0))
        self.client.start()

    def wait_for(self, part: str, true: Callable[[], bool], within_s: float = PART_START_S) -> None:
        """Return as soon as `true()`. Fail with the last lines of the part's log when that takes
        too long, or when the part does not stay up.
        """
        last = time.monotonic() + within_s
        while not true():
            with self.supervisor.asking() as they:
                state = str(they.getProcessInfo(part)["statename"])
            if state == "FATAL" or time.monotonic() > last:
                pytest.fail(f"{part} is not up within {within_s} s: {state}\n{self.log_tail(part)}")
            time.sleep(0.05)

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
            "DATABASE_URL": self.postgres.url(role=DatabaseRole.APP),
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

    def do(self, text: str) -> str:
        """Run text in `manage.py shell`; return the last line that it printed."""
        return self.manage("shell", "--no-imports", "-c", text).splitlines()[-1]

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

    # ---- looking

    def decider_answers(self, node: str) -> bool:
        return programs.serves_page(programs.gateway_sockets(self.var)[node], "/healthz")

    def line_to(self, node: str) -> UnixConnection:
        """Return a connection to a decider itself, not over a wire."""
        return UnixConnection(programs.gateway_sockets(self.var)[node], 5)

    def alone(self, node: str) -> bool:
        """Return whether a decider says that it hears of no other."""
        with closing(self.line_to(node)) as line:
            line.request("GET", "/metrics")
            return b"sluice_decides_alone 1" in line.getresponse().read()

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

    def home(self) -> str:
        """Return the console's home page as a person sees it who is signed in."""
        line = http.client.HTTPConnection("127.0.0.1", self.ports["console"], timeout=20)
        with closing(line):
            line.request("GET", "/", headers={"cookie": self._cookie, "host": "localhost"})
            response = line.getresponse()
            assert response.status == 200, response.status
            return html.unescape(response.read().decode())

    def document(self) -> Config:
        """Return the document in the store. Raise ConfigError when it cannot be used."""
        data: Any = self.store.get(store.CONFIG_KEY)
        return configs.verify(data, configs.read_public_keys(self.var / "keys" / "config.pub"))

    def node(self, name: str) -> NodeStatus | None:
        return self._status(store.NODE_PREFIX + name, NodeStatus)

    def version_of(self, name: str) -> int:
        """Return the config version that a decider, or the gateway, holds to; 0 while it is
        silent.
        """
        if name == "gateway":
            agent = self._status(store.AGENT_PREFIX + name, AgentStatus)
            return agent.version if agent else 0
        status = self.node(name)
        return status.config_version if status else 0

    def _reported_at(self) -> dict[str, float]:
        """Return when each part that reports through the store did so last, unix seconds."""
        found = {name: self.node(name) for name in programs.DECIDERS}
        found |= {"gateway-agent": self._status(store.AGENT_PREFIX + "gateway", AgentStatus)}
        found |= {"ingest": self._status(store.INGEST_STATUS_KEY, IngestStatus)}
        every: Any = self.store.hvals(store.GATEWAYS_KEY)
        found |= {"feedback": _decoded(every[0] if every else None, GatewayStatus)}
        return {name: status.at for name, status in found.items() if status is not None}

    def silent(self, since: float) -> list[str]:
        """Return the parts that report through the store and did not since then (unix seconds)."""
        reported = self._reported_at()
        every = (*programs.DECIDERS, "gateway-agent", "ingest", "feedback")
        return [name for name in every if reported.get(name, 0.0) <= since]

    def _status(self, key: str, kind: type[Status]) -> Status | None:
        return _decoded(self.store.get(key), kind)

    def stored(self) -> list[bytes]:
        """Return the ids of all stored decisions, doubles included."""
        with psycopg.connect(self.postgres.url(), connect_timeout=5) as line:
            return [row[0].bytes for row in line.execute("SELECT id FROM decisions_decision")]

    def states(self, decisions: set[bytes]) -> list[tuple[int, int]]:
        """Return the stage and the state of ML of each of these decisions, as they are stored."""
        with psycopg.connect(self.postgres.url(), connect_timeout=5) as line:
            rows = line.execute("SELECT id, stage, ml_state FROM decisions_decision")
            return [(stage, ml) for key, stage, ml in rows if key.bytes in decisions]

    def scheduled(self) -> int:
        """Return how many tasks were put into Celery's queues since Valkey started."""
        found: Any = self.store.info("commandstats")
        return int(found.get("cmdstat_lpush", {}).get("calls", 0))

    def waiting_tasks(self) -> int:
        return int(self.store.llen(f"{store.CELERY_PREFIX}celery"))

    def account(self) -> Account:
        """Return what became of all events that the deciders sampled."""
        columns = ", ".join(f"coalesce(sum({name}), 0)::bigint" for name in Account._fields)
        with psycopg.connect(self.postgres.url(), connect_timeout=5) as line:
            row = line.execute(f"SELECT {columns} FROM decisions_deciderrun").fetchone()  # noqa: S608
        return Account(*(row or ()))

    def log_end(self) -> int:
        return programs.access_log_path(self.var).stat().st_size

    def logged(self, since: int) -> list[dict[str, Any]]:
        """Return the lines of the client's requests in the gateway's log from a byte on."""
        whole = programs.access_log_path(self.var).read_bytes()[since:]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if str(line.get("app")).startswith(PREFIX)]

    def log_tail(self, part: str) -> str:
        return self.supervisor.log_path(part).read_text(errors="replace")[-SHOWN_LOG:]


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
def running() -> Iterator[Installation]:
    """A whole installation with its client, once all parts are up."""
    with ExitStack() as stack:
        # short, as paths of sockets are
        var = Path(tempfile.mkdtemp(prefix="sluice-faults-", dir="/tmp"))
        stack.callback(shutil.rmtree, var, ignore_errors=True)
        stack.enter_context(small_disk.mounted(var))
        servers.let_pass(var)
        stack.enter_context(_surroundings(var))
        it = Installation(var)
        stack.callback(it.end)
        it.start()
        yield it
