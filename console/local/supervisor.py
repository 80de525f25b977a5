"""Running programs under supervisord, which restarts those that die and stops all in order; and
watching supervisord itself.

No program outlives this process: the kernel ends supervisord when this process dies, and each
program when supervisord dies (`launch`).
"""

from __future__ import annotations

import http.client
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Fault, ServerProxy

from supervisor.states import ProcessStates
from supervisor.xmlrpc import SupervisorTransport

from console.local import launch
from console.local.sockets import socket_path

# Bytes of a log before it is rotated. Chosen: with two older ones of each of twelve programs, the
# logs take 180 MB of disk at most.
LOG_BYTES = 5_000_000
# Seconds until a program that was given up is tried again. Chosen: what it lacked, such as a port,
# may be back by then, and a program that cannot start costs little.
GIVE_UP_AGAIN_AFTER_S = 30.0
# Least seconds between two messages about the same program. Chosen: a program that fails all the
# time does not fill the terminal.
SAY_AGAIN_AFTER_S = 60.0
# Seconds for supervisord to answer. Chosen: usually less than one, but more on a busy machine.
START_WITHIN_S = 15.0
# Seconds that stopping may take beyond what the programs are allowed.
STOP_SPARE_S = 5.0
# Seconds that supervisord may take to end, beyond what the programs are allowed.
SUPERVISOR_SPARE_S = 10.0
# Seconds a program must stay up to count as started, and how often it is tried before it is given
# up. Chosen: a wrong setting shows within 4 s; supervisord waits longer after each try.
START_OPTIONS = ("autostart=false", "autorestart=true", "startsecs=4", "startretries=4")

# States in which a program has a process, or will have one again.
STOPPABLE = frozenset(
    {ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.BACKOFF, ProcessStates.STOPPING}
)


class SuperviseError(Exception):
    """supervisord could not be started, refused a command, or does not answer."""


@dataclass(frozen=True)
class Program:
    """One program to keep running."""

    name: str
    # starts with an absolute path; tied to its parent (`launch.tied_command`)
    command: list[str]
    # programs of a higher order need those of a lower one, so they are stopped first
    order: int
    stop_signal: str = "TERM"
    stop_within_s: int = 10
    # whether to stop its children with it; False for a server that ends its own children
    group: bool = True
    # variables in which it differs from this process
    environment: Mapping[str, str] = field(default_factory=dict)


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
        """Start supervisord with nothing running yet; `keep_open` are file descriptors it holds for
        as long as it lives.

        Raises:
            SuperviseError: when it does not answer; its own words are in var/log/supervisord.log.
        """
        for folder in ("log", "run"):
            (self.var / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        # an earlier supervisord that is still ending must not answer in place of ours
        self._socket.unlink(missing_ok=True)
        config = self.var / "run" / "supervisord.conf"
        # variables hold addresses of servers, and with them passwords
        config.touch(mode=0o600)
        config.write_text("\n".join(self._config()) + "\n")
        program = [
            sys.executable,
            "-m",
            "console.local.lasting_supervisord",
            "--nodaemon",
            "-c",
            str(config),
        ]
        self.log_path("supervisord").touch(mode=0o600)
        with self.log_path("supervisord").open("ab") as log:
            self._process = subprocess.Popen(
                launch.tied_command(program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, launch.PARENT_PID: str(os.getpid())},
                # so that Ctrl-C in the terminal reaches only us, and we stop the programs in order
                start_new_session=True,
                pass_fds=keep_open,
                # logs, and whatever programs write, are for this user alone
                umask=0o077,
            )
        self._wait_for(self._process)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + START_WITHIN_S
        while not self.answers():
            if process.poll() is not None or time.monotonic() > give_up:
                raise SuperviseError(
                    f"The supervisor did not start; see {self.log_path('supervisord')}."
                )
            time.sleep(0.05)

    def log_path(self, name: str) -> Path:
        return self.var / "log" / f"{name}.log"

    def answers(self) -> bool:
        """Return whether supervisord answers."""
        try:
            with self.asking() as they:
                they.getState()
        except (OSError, http.client.HTTPException):
            return False
        return True

    def run(self, *names: str) -> None:
        """Start those of the named programs that are not running.

        Raises:
            SuperviseError: when supervisord refuses.
        """
        for name in names:
            try:
                with self.asking() as they:
                    # without waiting, which would take `startsecs` for each, one after the other
                    they.startProcess(name, False)
            except Fault as fault:
                if "ALREADY_STARTED" not in fault.faultString:
                    raise SuperviseError(
                        f"{name} could not be started: {fault.faultString}; see"
                        f" {self.log_path(name)}."
                    ) from fault

    def troubles(self) -> Iterator[Trouble]:
        """Yield what went wrong since the last call, and try programs again that were given up.

        Raises:
            SuperviseError: when supervisord does not answer.
        """
        try:
            with self.asking() as they:
                infos = they.getAllProcessInfo()
        except (OSError, http.client.HTTPException) as error:
            raise SuperviseError(
                f"The supervisor does not answer; see {self.log_path('supervisord')}."
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
        """Stop everything, the highest order first and each order at once; return when nothing is
        left.
        """
        if self._process is None:
            return
        # if supervisord does not answer, ending it below stops the programs one after the other
        with suppress(OSError, http.client.HTTPException, Fault):
            for order in sorted({program.order for program in self.programs}, reverse=True):
                self._stop_together(
                    [program for program in self.programs if program.order == order]
                )
        self._process.send_signal(signal.SIGTERM)
        try:
            # the sum, because supervisord alone stops one program after the other
            allowed_s = sum(program.stop_within_s for program in self.programs)
            self._process.wait(SUPERVISOR_SPARE_S + allowed_s)
        except subprocess.TimeoutExpired:
            # the kernel then ends the programs, which are tied to supervisord
            self._process.kill()
            self._process.wait()
        self._process = None
        self._socket.unlink(missing_ok=True)

    def _stop_together(self, programs: Sequence[Program]) -> None:
        with self.asking() as they:
            for program in programs:
                with suppress(Fault):  # it does not run
                    they.stopProcess(program.name, False)
            allowed_s = max(program.stop_within_s for program in programs)
            give_up = time.monotonic() + STOP_SPARE_S + allowed_s
            names = {program.name for program in programs}
            while time.monotonic() < give_up and any(
                info["name"] in names and info["state"] in STOPPABLE
                for info in they.getAllProcessInfo()
            ):
                time.sleep(0.1)

    def _judge(self, info: dict[str, Any], now: float) -> str:
        """Return what is wrong with a program in a sentence, or "" when nothing is."""
        name, state, log = info["name"], info["state"], self.log_path(info["name"])
        before = self._started.get(name, 0)
        if state == ProcessStates.RUNNING:
            # a new start time means that it ended and was started again between two looks
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
        return socket_path(self.var, "supervisor")

    @contextmanager
    def asking(self) -> Iterator[Any]:
        """Yield a proxy of supervisord's methods (http://supervisord.org/api.html) for a `with`."""
        # ServerProxy needs an address but does not use it: the transport goes through the socket
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self._socket}")
        try:
            yield ServerProxy("http://127.0.0.1", transport=transport).supervisor
        finally:
            transport.close()

    def _config(self) -> Iterator[str]:
        """Yield the lines of supervisord's configuration
        (http://supervisord.org/configuration.html).
        """
        socket = f"unix://{_plain(self._socket)}"
        # 0700: anyone who can write to the socket can start any program as this user
        yield from ("[unix_http_server]", f"file={_plain(self._socket)}", "chmod=0700")
        yield from ("[supervisorctl]", f"serverurl={socket}")
        yield from (
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        )
        yield from (
            "[supervisord]",
            # in the foreground, and silent because its output goes to its log already
            *("nodaemon=true", "silent=true"),
            f"pidfile={_plain(self.var / 'run' / 'supervisord.pid')}",
            f"logfile={_plain(self.log_path('supervisord'))}",
            *(f"logfile_maxbytes={LOG_BYTES}", "logfile_backups=1"),
        )
        for program in self.programs:
            yield from self._program_config(program)

    def _program_config(self, program: Program) -> Iterator[str]:
        yield f"[program:{program.name}]"
        # the program's parent is supervisord, whose process id is in this variable
        own = "".join(f',{name}="{_plain(value)}"' for name, value in program.environment.items())
        yield f'environment={launch.PARENT_PID}="%(ENV_{launch.OWN_PID})s"{own}'
        yield f"command={_plain(shlex.join(program.command))}"
        yield f"priority={program.order}"
        yield from START_OPTIONS
        yield f"stopsignal={program.stop_signal}"
        yield f"stopwaitsecs={program.stop_within_s}"
        yield f"stopasgroup={str(program.group).lower()}"
        # killing is the last resort; with the group, it leaves no child behind
        yield "killasgroup=true"
        # one log for both outputs keeps the lines in the order in which they were written
        yield "redirect_stderr=true"
        yield f"stdout_logfile={_plain(self.log_path(program.name))}"
        yield from (f"stdout_logfile_maxbytes={LOG_BYTES}", "stdout_logfile_backups=2")


def _plain(value: object) -> str:
    """Return a value for supervisor's configuration, with each percent sign doubled."""
    return str(value).replace("%", "%%")
