"""The programs under supervisord, which starts them again when they die and stops them in order;
and a watch over supervisord itself.

No program outlives this process: the kernel ends supervisord when its parent dies, and each program
when supervisord does (`launch`).
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

# Bytes. The path of a Unix socket may have 107 (unix(7)). supervisord makes the socket under
# another name first, with a dot and its process id behind, which has up to 7 digits.
SOCKET_PATH_MAX = 99
# Bytes of a log before it is rotated. Chosen: with two older ones of each of eleven programs, the
# logs take 165 MB of disk at most.
LOG_BYTES = 5_000_000
# Seconds. A program that was given up is tried again after so long. Chosen: what it lacked, such as
# a port, may be back by then, and one that cannot start costs little.
GIVE_UP_AGAIN_AFTER_S = 30.0
# Seconds. The same program's trouble is said again after so long at the earliest. Chosen: a program
# that fails all the time does not fill the terminal.
SAY_AGAIN_AFTER_S = 60.0
# Seconds for supervisord to answer. Chosen: it takes less than one; a busy machine takes longer.
START_WITHIN_S = 15.0
# Seconds that stopping may take beyond what the programs are allowed.
STOP_SPARE_S = 5.0
# Seconds beyond the programs' for supervisord's own end.
SUPERVISOR_SPARE_S = 10.0
# Seconds a program must stay up to count as started, and how often it is tried before it is given
# up. Chosen: a wrong setting shows within 4 s; supervisord waits longer after each try.
START_OPTIONS = ("autostart=false", "autorestart=true", "startsecs=4", "startretries=4")

# States in which a program has a process, or will have one again.
STOPPABLE = frozenset(
    {ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.BACKOFF, ProcessStates.STOPPING}
)


class SuperviseError(Exception):
    """The supervisor could not be started or did not obey."""


@dataclass(frozen=True)
class Program:
    """One program to keep running."""

    name: str
    # with an absolute path first, tied to its parent (`launch.tied_command`)
    command: list[str]
    # programs of a lower order are stopped after those of a higher one, because these need them
    order: int
    stop_signal: str = "TERM"
    stop_within_s: int = 10
    # whether to stop its children with it; a server that ends its own children says no
    group: bool = True


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
            (self.var / folder).mkdir(parents=True, exist_ok=True)
        # an earlier supervisord that is still ending must not answer in place of ours
        self._socket.unlink(missing_ok=True)
        config = self.var / "run" / "supervisord.conf"
        # commands may hold the address of a server, and with it a password
        config.touch(mode=0o600)
        config.write_text("\n".join(self._config()) + "\n")
        program = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(config)]
        with self.log_path("supervisord").open("ab") as log:
            self._process = subprocess.Popen(
                launch.tied_command(program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, launch.PARENT_PID: str(os.getpid())},
                # Ctrl-C in the terminal reaches us alone, so that we say in which order to stop
                start_new_session=True,
                pass_fds=keep_open,
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
        """Return whether supervisord runs and can be asked."""
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
                    # without waiting: it would take `startsecs` for each, one after the other
                    they.startProcess(name, False)
            except Fault as fault:
                if "ALREADY_STARTED" not in fault.faultString:
                    raise SuperviseError(
                        f"{name} could not be started: {fault.faultString}; see"
                        f" {self.log_path(name)}."
                    ) from fault

    def troubles(self) -> Iterator[Trouble]:
        """Yield what went wrong since the last call, each in a sentence, and try programs again
        that were given up.

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
        """Stop everything, the highest order first and each order at once; return when nothing is
        left.
        """
        if self._process is None:
            return
        # where it cannot be asked, its own end below stops them, one after the other
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
            # the kernel then ends the programs, which are tied to it
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
            # another start than the last one means that it ended between two looks
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
        # a deep data folder; the process id keeps two installations apart
        return Path(tempfile.gettempdir()) / f"sluice-{os.getpid()}.sock"

    @contextmanager
    def asking(self) -> Iterator[Any]:
        """Give supervisord's methods (http://supervisord.org/api.html) for the time of a `with`."""
        # the address is not used: the transport goes through the socket
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
        # 0700: who can write to the socket can start any program as us
        yield from ("[unix_http_server]", f"file={_plain(self._socket)}", "chmod=0700")
        yield from ("[supervisorctl]", f"serverurl={socket}")
        yield from (
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        )
        yield from (
            "[supervisord]",
            # in the foreground and silent, as its output is its log already
            *("nodaemon=true", "silent=true"),
            f"pidfile={_plain(self.var / 'run' / 'supervisord.pid')}",
            f"logfile={_plain(self.log_path('supervisord'))}",
            *(f"logfile_maxbytes={LOG_BYTES}", "logfile_backups=1"),
        )
        for program in self.programs:
            yield from self._program_config(program)

    def _program_config(self, program: Program) -> Iterator[str]:
        yield f"[program:{program.name}]"
        # supervisord's own process id, as it was told at its start, ties the program to it
        yield f'environment={launch.PARENT_PID}="%(ENV_{launch.OWN_PID})s"'
        yield f"command={_plain(shlex.join(program.command))}"
        yield f"priority={program.order}"
        yield from START_OPTIONS
        yield f"stopsignal={program.stop_signal}"
        yield f"stopwaitsecs={program.stop_within_s}"
        yield f"stopasgroup={str(program.group).lower()}"
        # killing is the last resort, and leaves no child behind
        yield "killasgroup=true"
        # one log for each program tells what happened in the order it happened
        yield "redirect_stderr=true"
        yield f"stdout_logfile={_plain(self.log_path(program.name))}"
        yield from (f"stdout_logfile_maxbytes={LOG_BYTES}", "stdout_logfile_backups=2")


def _plain(value: object) -> str:
    """Return a value as supervisor's configuration takes it, where the percent sign is special."""
    return str(value).replace("%", "%%")
