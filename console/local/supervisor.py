"""Runs programs under supervisord, which starts them again when they die and stops them in order;
and watches supervisord itself.

No program outlives this process: supervisord is told when its parent dies, and each program when
supervisord does (`leash`).
"""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from supervisor.states import ProcessStates
from supervisor.xmlrpc import SupervisorTransport

from console.local import launch

# A Unix socket's path may not be longer (unix(7) says 108), bytes.
SOCKET_PATH_MAX = 100
LOG_BYTES = 5_000_000
# A program that was given up is tried again after so long.
GIVE_UP_AGAIN_AFTER_S = 30.0
# The same trouble of the same program is said again after so long at the earliest.
SAY_AGAIN_AFTER_S = 60.0


STOPPABLE = frozenset(
    {ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.BACKOFF, ProcessStates.STOPPING}
)


class SuperviseError(Exception):
    """The supervisor could not be started or did not obey."""


@dataclass(frozen=True)
class Program:
    """One program to keep running."""

    name: str
    command: list[str]
    """With an absolute path first, tied to its parent."""
    order: int
    """Programs of a lower order are stopped after those of a higher one."""
    stop_signal: str = "TERM"
    stop_within_s: int = 10
    group: bool = True
    """Whether to stop its children with it; a server that ends its own children says no."""


class Trouble(NamedTuple):
    """A program that does not stay up."""

    name: str
    sentence: str


@dataclass
class Supervisor:
    """supervisord and what it runs. Logs are in `var`/log, one file each, rotated."""

    var: Path
    programs: Sequence[Program]
    _process: subprocess.Popen[bytes] | None = None
    _started: dict[str, int] = field(default_factory=dict)
    _said: dict[str, float] = field(default_factory=dict)
    _given_up: dict[str, float] = field(default_factory=dict)

    def start(self, *, keep_open: Sequence[int] = ()) -> None:
        """Starts supervisord with nothing running yet; `keep_open` are file descriptors it holds
        for as long as it lives.

        Raises:
            SuperviseError: when it does not answer; its own words are in var/log/supervisord.log.
        """
        for folder in ("log", "run"):
            (self.var / folder).mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        config = self.var / "run" / "supervisord.conf"
        config.touch(
            mode=0o600
        )  # commands may hold the address of a server, and with it a password
        config.write_text("\n".join(self._config()) + "\n")
        program = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(config)]
        with self.log_path("supervisord").open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, launch.HOLDER: str(os.getpid())},
                start_new_session=True,  # so that Ctrl-C in the terminal reaches us alone
                pass_fds=keep_open,
            )
        give_up = time.monotonic() + 15
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise SuperviseError(
                    f"The supervisor did not start; see {self.log_path('supervisord')}."
                )
            time.sleep(0.05)

    def log_path(self, name: str) -> Path:
        return self.var / "log" / f"{name}.log"

    def answers(self) -> bool:
        """Whether supervisord runs and can be asked."""
        try:
            with self.asking() as they:
                they.getState()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def run(self, *names: str) -> None:
        """Starts programs that are not running.

        Raises:
            SuperviseError: when supervisord refuses.
        """
        for name in names:
            try:
                with self.asking() as they:
                    they.startProcess(name, False)
            except Fault as fault:
                if "ALREADY_STARTED" not in fault.faultString:
                    raise SuperviseError(
                        f"{name} could not be started: {fault.faultString}; see"
                        f" {self.log_path(name)}."
                    ) from fault

    def troubles(self) -> Iterator[Trouble]:
        """What went wrong since the last call, each in a sentence. Programs that were given up are
        tried again.

        Raises:
            SuperviseError: when supervisord itself is gone.
        """
        try:
            with self.asking() as they:
                infos = they.getAllProcessInfo()
        except (OSError, http.client.HTTPException) as error:
            raise SuperviseError(
                f"The supervisor is gone; see {self.log_path('supervisord')}."
            ) from error
        now = time.monotonic()
        for info in infos:
            sentence = self._judge(info, now)
            if (
                sentence
                and now - self._said.get(info["name"], -SAY_AGAIN_AFTER_S) >= SAY_AGAIN_AFTER_S
            ):
                self._said[info["name"]] = now
                yield Trouble(info["name"], sentence)

    def stop(self) -> None:
        """Stops everything, the last order first and each order at once, and returns when nothing
        is left.
        """
        if self._process is None:
            return
        with suppress(
            OSError, http.client.HTTPException, Fault
        ):  # then supervisord stops them, one after the other
            for order in sorted({program.order for program in self.programs}, reverse=True):
                self._stop_together(
                    [program for program in self.programs if program.order == order]
                )
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10.0 + sum(program.stop_within_s for program in self.programs))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._socket.unlink(missing_ok=True)

    def _stop_together(self, programs: Sequence[Program]) -> None:
        with self.asking() as they:
            for program in programs:
                with suppress(Fault):  # it does not run
                    they.stopProcess(program.name, False)
            give_up = time.monotonic() + 5 + max(program.stop_within_s for program in programs)
            names = {program.name for program in programs}
            while time.monotonic() < give_up and any(
                info["name"] in names and info["state"] in STOPPABLE
                for info in they.getAllProcessInfo()
            ):
                time.sleep(0.1)

    def _judge(self, info: dict[str, Any], now: float) -> str:
        name, state, log = info["name"], info["state"], self.log_path(info["name"])
        before = self._started.get(name, 0)
        if state == ProcessStates.RUNNING:
            self._started[name] = info["start"]
            self._given_up.pop(name, None)
            return (
                f"{name} stopped and was started again; see {log}."
                if before and info["start"] != before
                else ""
            )
        if state == ProcessStates.FATAL:
            since = self._given_up.setdefault(name, now)
            if now - since >= GIVE_UP_AGAIN_AFTER_S:
                self._given_up[name] = now
                self.run(name)
            return (
                f"{name} does not stay up and is tried again every {GIVE_UP_AGAIN_AFTER_S:.0f} s;"
                f" see {log}."
            )
        if state == ProcessStates.BACKOFF:
            return f"{name} ended right after its start and is tried again; see {log}."
        return ""

    @property
    def _socket(self) -> Path:
        path = self.var / "run" / "supervisor.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return path
        return Path(tempfile.gettempdir()) / f"sluice-{os.getpid()}.sock"

    @contextmanager
    def asking(self) -> Iterator[Any]:
        """supervisord's methods, http://supervisord.org/api.html."""
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._socket}")
        try:
            yield ServerProxy("http://127.0.0.1", transport=transport).supervisor
        finally:
            transport.close()

    def _config(self) -> Iterator[str]:
        yield from ("[unix_http_server]", f"file={_plain(self._socket)}", "chmod=0700")
        yield from ("[supervisorctl]", f"serverurl=unix://{_plain(self._socket)}")
        yield from (
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        )
        yield from (
            "[supervisord]",
            "nodaemon=true",
            "silent=true",
            f"pidfile={_plain(self.var / 'run' / 'supervisord.pid')}",
        )
        yield from (
            f"logfile={_plain(self.log_path('supervisord'))}",
            f"logfile_maxbytes={LOG_BYTES}",
            "logfile_backups=1",
        )
        for program in self.programs:
            yield f"[program:{program.name}]"
            yield f'environment={launch.HOLDER}="%(ENV_{launch.OWN_PID})s"'
            yield f"command={_plain(shlex.join(program.command))}"
            yield from (
                f"priority={program.order}",
                "autostart=false",
                "autorestart=true",
                "startsecs=4",
                "startretries=4",
            )
            yield from (
                f"stopsignal={program.stop_signal}",
                f"stopwaitsecs={program.stop_within_s}",
            )
            yield from (
                f"stopasgroup={str(program.group).lower()}",
                "killasgroup=true",
                "redirect_stderr=true",
            )
            yield from (
                f"stdout_logfile={_plain(self.log_path(program.name))}",
                f"stdout_logfile_maxbytes={LOG_BYTES}",
            )
            yield "stdout_logfile_backups=2"


def _plain(value: object) -> str:
    """A value as supervisor's configuration takes it: its percent sign is special there."""
    return str(value).replace("%", "%%")
