"""`manage.py up`: starts all of Sluice on this machine, watches it, and stops it again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from console.frame import roles
from console.local import embedded, gateway, launch, servers
from console.local import programs as known_programs
from console.local.environment import running_demo
from console.local.supervisor import SuperviseError, Supervisor
from control.audit.actors import ROLE_LABELS
from control.config import changes
from control.deciders import keys
from control.errors import KeysError

# Free disk without which nothing is started.
NEEDED_BYTES = 2_000_000_000
# How long an earlier run may take to end, when it is already ending.
LOCK_WAIT_S = 20.0
WATCH_EVERY_S = 1.0
# A cold compiler on a busy machine needs minutes; usually it is seconds.
UP_WITHIN_S = 240.0


class Stopped(Exception):
    """Someone asked to stop."""


class Command(BaseCommand):
    help = (
        "Starts everything on this machine: PostgreSQL, Valkey, Envoy, deciders, workers, console"
        " and demo traffic."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--no-traffic", action="store_true", help="without the simulated clients"
        )
        parser.add_argument(
            "--port",
            type=int,
            default=None,
            help="the console's port (default: SLUICE_CONSOLE_PORT or 8000)",
        )

    def handle(self, *, no_traffic: bool, port: int | None, **options: object) -> None:
        try:
            self.up(no_traffic, port)
        except CommandError as error:
            sys.exit(f"sluice: {error}")

    def up(self, no_traffic: bool, port: int | None) -> None:
        """Starts, watches, stops. Raises CommandError."""
        var: Path = settings.SLUICE_VAR
        ports = {**settings.SLUICE_PORTS, **({"console": port} if port else {})}
        began = time.monotonic()
        with only_one(var) as lock, until_told_to_stop():
            check_disk(var)
            check_ports(ports)
            programs = [
                *known_programs.servers(var),
                *known_programs.workers(var, ports, settings.SLUICE_REGION),
            ]
            programs += [] if no_traffic else [known_programs.traffic(ports)]
            supervisor = Supervisor(var, programs)
            try:
                self.start(supervisor, ports, lock)
                self.welcome(ports, time.monotonic() - began)
                self.watch(supervisor)
            except Stopped:
                self.say("\nStopping ...")
            except (SuperviseError, servers.PartError, KeysError) as error:
                raise CommandError(str(error)) from error
            finally:
                self.end(supervisor, var)
        self.say(f"Stopped. Your data is kept in {var}; `make clean` forgets it.")

    def start(self, supervisor: Supervisor, ports: dict[str, int], lock: IO[str]) -> None:
        """Brings everything up. Raises Stopped, CommandError and what the parts raise."""
        var = supervisor.var
        self.say("Starting PostgreSQL and Valkey ...")
        keys.ensure(settings.SLUICE_KEYS)
        make_folders(var)
        (var / "run" / "envoy.yaml").write_text(
            gateway.render(ports, known_programs.access_log(var))
        )
        supervisor.start(keep_open=[lock.fileno()])
        start_servers(supervisor)
        leave_addresses(var)
        if known_programs.is_compiled(var) and all(
            (var / "nodes" / node / "config.bin").exists() for node in known_programs.DECIDERS
        ):
            supervisor.run(
                *known_programs.DECIDERS
            )  # they know what to do, and get ready while the database is prepared
        self.say("Preparing the database ...")
        call_command("migrate", verbosity=0, interactive=False)
        with Path(os.devnull).open("w") as nothing:
            call_command("seed", stdout=nothing)
            call_command("demo_users", stdout=nothing)
            call_command("check", fail_level="ERROR", stdout=nothing)
        call_command("collectstatic", verbosity=0, interactive=False)
        if changes.current().model is None:
            self.say("Training the first model on simulated traffic, about a minute ...")
            run_to_end([sys.executable, "manage.py", "first_model"])
        self.say("Starting the gateway, the deciders and the console ...")
        self.start_workers(supervisor, ports)

    def start_workers(self, supervisor: Supervisor, ports: dict[str, int]) -> None:
        """Starts what decides and shows, then, once that is up, what may come a little later."""
        health = {node: (ports[node], "/healthz") for node in known_programs.DECIDERS}
        if not known_programs.is_compiled(supervisor.var):
            self.say(
                "The first decider compiles its code, about half a minute; the others then load"
                " it ..."
            )
            supervisor.run(known_programs.DECIDERS[0])
            self.wait_until_up(
                supervisor, {known_programs.DECIDERS[0]: health[known_programs.DECIDERS[0]]}
            )
        supervisor.run(*known_programs.DECIDERS, "services", "envoy", "feedback", "console")
        self.wait_until_up(supervisor, {"console": (ports["console"], "/login"), **health})
        supervisor.run(*(program.name for program in supervisor.programs))

    def wait_until_up(self, supervisor: Supervisor, wanted: dict[str, tuple[int, str]]) -> None:
        """Returns when the (port, path) of each name gives a page; says what keeps it from that.
        Raises CommandError.
        """
        give_up = time.monotonic() + UP_WITHIN_S
        while wanted:
            wanted = {
                name: place for name, place in wanted.items() if not known_programs.answers(*place)
            }
            for trouble in supervisor.troubles():
                self.say(trouble.sentence)
            if wanted and time.monotonic() > give_up:
                logs = ", ".join(str(supervisor.log_path(name)) for name in wanted)
                raise CommandError(
                    f"{' and '.join(wanted)} did not come up within {UP_WITHIN_S:.0f} s; see"
                    f" {logs}."
                )
            time.sleep(0.2)

    def welcome(self, ports: dict[str, int], took_s: float) -> None:
        """Says where it is, who one may be, and what to look at first."""
        password = (settings.SLUICE_KEYS / "demo-password").read_text().strip()
        address = f"http://localhost:{ports['console']}"
        self.say(
            f"\nSluice is up after {took_s:.0f} s.\n\n  Console   {address}\n  Gateway  "
            f" http://localhost:{ports['gateway']}\n"
        )
        self.say(f"Sign in as one of these; the password of each is  {password}\n")
        for person in roles.DEMO_PEOPLE:
            self.say(f"  {person.email:<36} {ROLE_LABELS[person.role]}")
        self.say(
            "\nLook first: sign in as support, open a refused request from the home page and read"
            " why. Then, as SRE, turn"
        )
        self.say(f"all ML off under {address}/switches and watch the deciders follow.\n")
        self.say("Ctrl-C stops everything and keeps the data.\n")

    def watch(self, supervisor: Supervisor) -> None:
        """Says what goes wrong until told to stop. Raises Stopped and SuperviseError."""
        while True:
            for trouble in supervisor.troubles():
                self.say(f"{time.strftime('%H:%M:%S')}  {trouble.sentence}")
            time.sleep(WATCH_EVERY_S)

    def end(self, supervisor: Supervisor, var: Path) -> None:
        """Stops everything, undisturbed."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        supervisor.stop()
        running_demo(var).unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """Prints a line. A terminal that has gone is no reason to stop badly."""
        with contextlib.suppress(OSError):
            self.stdout.write(text)
            self.stdout.flush()


@contextlib.contextmanager
def only_one(var: Path) -> Iterator[IO[str]]:
    """Holds the installation's lock. It ends with the processes that hold it, so a crash leaves
    none behind.

    Raises:
        CommandError: when another run holds it.
    """
    path = var / "run" / "up.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        give_up = time.monotonic() + LOCK_WAIT_S
        while not _taken(lock):
            lock.seek(0)
            pid = lock.read().strip()
            if (pid and Path(f"/proc/{pid}").exists()) or time.monotonic() > give_up:
                raise CommandError(
                    f"Sluice already runs on {var} (process {pid}). Stop that one, or set"
                    " SLUICE_VAR to another folder."
                )
            time.sleep(0.2)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def until_told_to_stop() -> Iterator[None]:
    """Turns Ctrl-C, SIGTERM and a closed terminal into Stopped, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[signal.Signals, Callable[..., object] | int | None] = {
        each: signal.signal(each, stop) for each in numbers
    }
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def check_disk(var: Path) -> None:
    """Raises CommandError when the disk is nearly full."""
    free = shutil.disk_usage(var).free
    if free < NEEDED_BYTES:
        raise CommandError(
            f"Only {free / 1e9:.1f} GB are free where {var} is; Sluice wants 2 GB. Free some, or"
            " set SLUICE_VAR elsewhere."
        )


def check_ports(ports: dict[str, int]) -> None:
    """Raises CommandError naming each port that is taken and the variables that move them."""
    taken = {}
    for name, port in ports.items():
        if name in {"postgres", "valkey"} and not embedded.is_embedded(name):
            continue
        if not servers.is_free(port):
            taken[name] = port
    if not taken:
        return
    others: list[str] = []
    spoken_for = set(ports.values())
    for name, port in taken.items():
        above = range(port + 1, 2**16)
        free = (other for other in above if other not in spoken_for and servers.is_free(other))
        other = next(free, servers.free_port())
        spoken_for.add(other)
        others.append(f"SLUICE_{name.upper().replace('-', '_')}_PORT={other}")
    words = "Port {} is" if len(taken) == 1 else "Ports {} are"
    which = ", ".join(str(port) for port in taken.values())
    raise CommandError(
        f"{words.format(which)} taken by another program. Choose another for"
        f" {', '.join(taken)}: {' '.join(others)} make run"
    )


def make_folders(var: Path) -> None:
    """The folders that programs write to."""
    for name in (
        "log",
        "run",
        "models",
        "numba",
        "media",
        *(f"nodes/{node}" for node in known_programs.DECIDERS),
    ):
        (var / name).mkdir(parents=True, exist_ok=True)


def start_servers(supervisor: Supervisor) -> None:
    """Starts what is embedded and waits for it. Raises PartError and SuperviseError."""
    var = supervisor.var
    if embedded.is_embedded("valkey"):
        embedded.valkey(var).make()
        supervisor.run("valkey")
    if embedded.is_embedded("postgres"):
        postgres = embedded.postgres(var)
        postgres.make()
        supervisor.run("postgres")
        wait_for(supervisor, "postgres", postgres)
        postgres.make_database()
    else:
        check_database()
    if embedded.is_embedded("valkey"):
        wait_for(supervisor, "valkey", embedded.valkey(var))


def wait_for(supervisor: Supervisor, name: str, part: servers.Postgres | servers.Valkey) -> None:
    """Raises PartError with the log's path when the server does not come up."""
    try:
        servers.wait_until_ready(part)
    except servers.PartError as error:
        raise servers.PartError(f"{error} See {supervisor.log_path(name)}.") from error


def check_database() -> None:
    """Raises PartError when the managed database cannot be reached."""
    try:
        psycopg.connect(settings.DATABASE_URL, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        raise servers.PartError(
            f"The database of DATABASE_URL cannot be reached: {str(error).splitlines()[0]}."
        ) from error


def leave_addresses(var: Path) -> None:
    """Tells other commands on this machine where the servers are, for their owner's eyes only."""
    path = running_demo(var)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(f"DATABASE_URL='{settings.DATABASE_URL}'\nVALKEY_URL='{settings.VALKEY_URL}'\n")


def run_to_end(command: list[str]) -> None:
    """Runs one program in the foreground. Raises CommandError when it fails, Stopped when told to
    stop meanwhile.
    """
    process = subprocess.Popen(launch.command(command), cwd=embedded.ROOT, start_new_session=True)
    try:
        status = process.wait()
    except Stopped:
        process.terminate()
        process.wait()
        raise
    if status:
        raise CommandError(f"`{' '.join(command[1:])}` failed; see above.")
