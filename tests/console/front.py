"""The console as `manage.py up` runs it: its workers, and the Envoy in front of them."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from console.local import gateway, programs, servers
from console.local.supervisor import Program

ROOT = Path(__file__).parents[2]
FRONT = "console-front"


@dataclass
class Front:
    """A running console."""

    var: Path
    port: int
    environment: Mapping[str, str]
    program: Callable[[Program], list[str]]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def ask(
        self, path: str, *, method: str = "GET", body: str = "", within_s: float = 20.0, **more: str
    ) -> tuple[int, str]:
        """Status and body of an answer; underscores in header names stand for dashes."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=within_s)
        named = {name.replace("_", "-"): value for name, value in more.items()}
        try:
            line.request(method, path, body or None, {"host": f"localhost:{self.port}", **named})
            answer = line.getresponse()
            return answer.status, answer.read().decode()
        finally:
            line.close()

    def send(self, text: str) -> socket.socket:
        """A connection on which these bytes were sent."""
        line = socket.create_connection(("127.0.0.1", self.port), 20)
        line.sendall(text.encode())
        return line

    def start(self, program: Program) -> None:
        with (self.var / "log" / f"{program.name}.log").open("ab") as log:
            self.processes[program.name] = subprocess.Popen(
                self.program(program),
                cwd=ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        process.wait(30)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in (self.var / "log").glob("*.log"))


def of_console(var: Path, port: int) -> dict[str, Program]:
    """The console's programs among those that `manage.py up` runs, by name."""
    ports = {name: servers.free_port() for name in ("gateway", "services")}
    every = programs.worker_programs(var, {**ports, "console": port}, "local")
    return {one.name: one for one in every if one.name.startswith("console")}


@contextmanager
def running(
    var: Path,
    *,
    app: str = "console.wsgi",
    trusted_hops: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Front]:
    """The console in `var`, once it answers. `app`: another WSGI application in its place."""
    port = servers.free_port()
    for folder in ("log", "run"):
        (var / folder).mkdir(parents=True, exist_ok=True)
    programs.console_config_path(var).write_text(
        gateway.render_console_config(port, programs.console_sockets(var), trusted_hops)
    )

    def command(program: Program) -> list[str]:
        return [app if part == "console.wsgi" else part for part in program.command]

    it = Front(var, port, environment or {}, command)
    try:
        for program in of_console(var, port).values():
            it.start(program)
        wait_until(lambda: all(answers(it, path) for path in ("/", "/login")), it)
        yield it
    finally:
        for name in reversed(list(it.processes)):
            it.stop(name)


def wait_until(true: Callable[[], bool], front: Front, within_s: float = 90.0) -> None:
    give_up = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up, front.log()
        time.sleep(0.05)


def answers(front: Front, path: str) -> bool:
    try:
        return front.ask(path)[0] < 400
    except OSError:
        return False
