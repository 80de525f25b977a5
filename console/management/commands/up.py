"""`manage.py up`: start all of Sluice on this machine, watch it, and stop it again."""

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError

from console.frame.roles import DEMO_PEOPLE
from console.local import clients, database, embedded, gateway, launch, servers
from console.local import programs as known_programs
from console.local.environment import addresses_file
from console.local.supervisor import Program, SuperviseError, Supervisor
from control.audit import anchoring, anchors
from control.audit.actors import ROLE_LABELS
from control.config import changes
from control.database_roles.own_role import DatabaseRoleError, check_role
from control.database_roles.roles import DatabaseRole
from control.deciders import keys
from control.errors import KeysError
from decider.contracts.files import write_atomically
from decider.gateway import envoy as envoy_rules
from decider.gateway.rules import Held
from decider.store_users.own_user import StoreUserError, check_user
from decider.store_users.roles import Role

# Free bytes of disk without which nothing is started: PostgreSQL stops in the middle of its work on
# a full disk. Chosen: twice what its write-ahead log may take (max_wal_size).
NEEDED_BYTES = 2_000_000_000
# Seconds to wait for an earlier run that is already ending. Chosen: most of its programs may take
# 10 s.
LOCK_WAIT_S = 20.0
# Seconds between two looks at the programs. Chosen: a person sees trouble at once, and asking costs
# next to nothing. supervisord restarts dead programs by itself.
WATCH_EVERY_S = 1.0
# Seconds between two looks at what starts or ends. Chosen: no person notices so short a wait.
LOOK_AGAIN_AFTER_S = 0.2
# Seconds for a managed database to answer, which may be far away.
DATABASE_WITHIN_S = 5
# Seconds within which the programs must be up. Usually they are within seconds, but a first
# compilation on a busy machine takes minutes.
UP_WITHIN_S = 240.0


# Programs that start with the deciders; the others start when these are up.
WITH_DECIDERS = (
    *("services", "gateway-agent", "envoy", "feedback"),
    *("console", "console-switches", "console-front"),
)
# Signals that ask to stop: of Ctrl-C, of a service manager, and of a terminal that closes.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Someone asked the command to stop."""


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
            # Django would put its own prefix and colour before the sentence
            sys.exit(f"sluice: {error}")

    def up(self, no_traffic: bool, port: int | None) -> None:
        """Start everything, watch it until told to stop, and stop it.

        Raises:
            CommandError: when it cannot start, or the supervisor is gone.
        """
        var: Path = settings.SLUICE_VAR
        ports = {**settings.SLUICE_PORTS, **({"console": port} if port else {})}
        began = time.monotonic()
        # the lock first: an earlier run that is still ending has the ports
        with only_one(var) as lock, until_told_to_stop():
            check_disk(var)
            check_ports(ports)
            supervisor = Supervisor(var, list_programs(var, ports, with_traffic=not no_traffic))
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
        self.say(f"Stopped. Your data is kept in {var}; `make clean` deletes it.")

    def start(self, supervisor: Supervisor, ports: dict[str, int], lock: IO[str]) -> None:
        """Start all programs, after preparing the database and, if there is none, a model.

        Raises:
            Stopped: when told to stop meanwhile.
            CommandError: when a command fails or something does not come up in time.
            SuperviseError, PartError, KeysError: when a part cannot be started.
        """
        var = supervisor.var
        self.say("Starting PostgreSQL and Valkey ...")
        keys.ensure(settings.SLUICE_KEYS)
        make_folders(var)
        jwks, log = clients.ensure_clients_keys(), known_programs.access_log_path(var)
        rules = known_programs.gateway_rules_path(var)
        # Envoy does not start without the file; the agent replaces it
        write_atomically(rules, envoy_rules.render(Held()))
        places: dict[str, int | Path] = {**ports, **known_programs.gateway_sockets(var)}
        text = gateway.render_envoy_config(places, log, jwks, rules)
        (var / "run" / "envoy.yaml").write_text(text)
        known_programs.console_config_path(var).write_text(
            gateway.render_console_config(
                ports["console"],
                known_programs.console_sockets(var),
                trusted_hops=int(bool(settings.SLUICE_TRUSTED_PROXIES)),
            )
        )
        # supervisord holds the lock too, so it becomes free only when the last program has ended
        supervisor.start(keep_open=[lock.fileno()])
        prepared = are_deciders_prepared(var)
        if not known_programs.is_compiled(var):
            self.say("Compiling the engine's code meanwhile, about a minute ...")
        with compiling_ahead(var):
            start_servers(supervisor)
            leave_addresses(var)
            if prepared:
                # they have compiled code and a config: they can start before the database is ready
                supervisor.run(*known_programs.DECIDERS)
            self.say("Preparing the database ...")
            traffic = any(program.name == "traffic" for program in supervisor.programs)
            prepare_database(with_traffic=traffic)
        if changes.current().model is None:
            self.say("Making the first model live ...")
            # in a process of its own, which ends with the memory that a training may take
            run_to_end([sys.executable, "manage.py", "first_model"])
        self.say("Starting the gateway, the deciders and the console ...")
        self.start_workers(supervisor, ports)

    def start_workers(self, supervisor: Supervisor, ports: dict[str, int]) -> None:
        """Start deciders, gateway and console; once these are up, start all other programs.

        Raises:
            CommandError: when something does not come up in time.
            SuperviseError: when the supervisor refuses or is gone.
        """
        sockets = known_programs.gateway_sockets(supervisor.var)
        health = {node: (sockets[node], "/healthz") for node in known_programs.DECIDERS}
        if not known_programs.is_compiled(supervisor.var):
            self.say(
                "The first decider compiles its code, about half a minute; the others then load"
                " it ..."
            )
            # alone, because a second one would compile the same code at the same time
            first = known_programs.DECIDERS[0]
            supervisor.run(first)
            self.wait_until_up(supervisor, {first: health[first]})
            known_programs.mark_compiled(supervisor.var)
        supervisor.run(*known_programs.DECIDERS, *WITH_DECIDERS)
        # the front sends the one to the console's workers, the other to those of the switches
        pages = {"console": "/", "console-switches": "/login"}
        console = {name: (ports["console"], path) for name, path in pages.items()}
        self.wait_until_up(supervisor, {**console, **health})
        supervisor.run(*(program.name for program in supervisor.programs))

    def wait_until_up(
        self, supervisor: Supervisor, wanted: Mapping[str, tuple[int | Path, str]]
    ) -> None:
        """Wait until each program serves its page; print troubles meanwhile.

        `wanted` holds port or socket, and path, of the page by the name of the program.

        Raises:
            CommandError: when a program does not come up in time; it names the log.
            SuperviseError: when the supervisor is gone.
        """
        give_up = time.monotonic() + UP_WITHIN_S
        while wanted:
            wanted = {
                name: place
                for name, place in wanted.items()
                if not known_programs.serves_page(*place)
            }
            for trouble in supervisor.troubles():
                self.say(trouble.sentence)
            if wanted and time.monotonic() > give_up:
                logs = ", ".join(str(supervisor.log_path(name)) for name in wanted)
                raise CommandError(
                    f"{' and '.join(wanted)} did not come up within {UP_WITHIN_S:.0f} s; see"
                    f" {logs}."
                )
            time.sleep(LOOK_AGAIN_AFTER_S)

    def welcome(self, ports: dict[str, int], took_s: float) -> None:
        """Print how long the start took, the addresses, the demo's people, and what to look at."""
        password = (settings.SLUICE_KEYS / "demo-password").read_text().strip()
        address = f"http://localhost:{ports['console']}"
        self.say(
            f"\nSluice is up after {took_s:.0f} s.\n\n  Console   {address}\n  Gateway  "
            f" http://localhost:{ports['gateway']}\n"
        )
        self.say(f"Sign in as one of these; the password of each is  {password}\n")
        for person in DEMO_PEOPLE:
            self.say(f"  {person.email:<36} {ROLE_LABELS[person.role]}")
        self.say(
            "\nLook first: sign in as support, open a refused request from the home page and read"
            " why. Then, as SRE, turn"
        )
        self.say(f"all ML off under {address}/switches and watch the deciders follow.\n")
        self.say("Ctrl-C stops everything and keeps the data.\n")

    def watch(self, supervisor: Supervisor) -> None:
        """Print what goes wrong until told to stop.

        Raises:
            Stopped: when told to stop.
            SuperviseError: when the supervisor is gone.
        """
        while True:
            for trouble in supervisor.troubles():
                self.say(f"{time.strftime('%H:%M:%S')}  {trouble.sentence}")
            time.sleep(WATCH_EVERY_S)

    def end(self, supervisor: Supervisor, var: Path) -> None:
        """Stop all programs; ignore further signals meanwhile."""
        # a second, impatient Ctrl-C would interrupt stopping the programs in order
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        supervisor.stop()
        addresses_file(var).unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """Print a line; ignore that the terminal is closed."""
        # a closed terminal must not keep us from stopping cleanly
        with contextlib.suppress(OSError):
            self.stdout.write(text)
            self.stdout.flush()


def list_programs(var: Path, ports: dict[str, int], *, with_traffic: bool) -> list[Program]:
    """Return the programs to run. Raise CommandError when a server is not installed here."""
    try:
        return [
            *known_programs.server_programs(var),
            *known_programs.worker_programs(var, ports, settings.SLUICE_REGION),
            *(
                [known_programs.traffic_program(ports, settings.SLUICE_KEYS)]
                if with_traffic
                else []
            ),
        ]
    except servers.PartError as error:
        raise CommandError(str(error)) from error


@contextlib.contextmanager
def only_one(var: Path) -> Iterator[IO[str]]:
    """Hold the installation's lock, so that only one `up` runs, and yield the lock's open file. The
    kernel frees it with the last process that holds it, so a crash leaves no lock behind.

    Raises:
        CommandError: when another run holds it.
    """
    path = var / "run" / "up.pid"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        _wait_for_lock(lock, var)
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        # flushed now, because `make clean` and other runs read it
        lock.flush()
        yield lock


def _wait_for_lock(lock: IO[str], var: Path) -> None:
    give_up = time.monotonic() + LOCK_WAIT_S
    while not _take(lock):
        # after its `up` has ended, supervisord holds the lock until everything is stopped
        lock.seek(0)
        pid = lock.read().strip()
        if (pid and Path(f"/proc/{pid}").exists()) or time.monotonic() > give_up:
            raise CommandError(
                f"Sluice already runs on {var} (process {pid}). Stop that one, or set"
                " SLUICE_VAR to another folder."
            )
        time.sleep(LOOK_AGAIN_AFTER_S)


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def until_told_to_stop() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into Stopped, once."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    before = {each: signal.signal(each, stop) for each in STOP_SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def check_disk(var: Path) -> None:
    """Raise CommandError when less than NEEDED_BYTES are free on the disk of `var`."""
    free = shutil.disk_usage(var).free
    if free < NEEDED_BYTES:
        raise CommandError(
            f"Only {free / 1e9:.1f} GB are free on the disk of {var}, but Sluice needs 2 GB. Free"
            " some space, or set SLUICE_VAR to a folder on another disk."
        )


def check_ports(ports: dict[str, int]) -> None:
    """Raise CommandError naming each port that is taken and the variables that move them."""
    # Sluice does not listen on the port of a server that it does not run itself
    elsewhere = {name for name in ("postgres", "valkey") if not embedded.is_embedded(name)}
    taken = {
        name: port
        for name, port in ports.items()
        if name not in elsewhere and not servers.is_free(port)
    }
    if not taken:
        return
    words = "Port {} is" if len(taken) == 1 else "Ports {} are"
    which = ", ".join(str(port) for port in taken.values())
    # all at once, so that one more try is enough
    others = " ".join(_offer_ports(taken, ports))
    raise CommandError(
        f"{words.format(which)} taken by another program. Choose another for"
        f" {', '.join(taken)}: {others} make run"
    )


def _offer_ports(taken: dict[str, int], ports: dict[str, int]) -> Iterator[str]:
    """Yield "VARIABLE=PORT" with a free port for each taken one; offer no port twice."""
    spoken_for = set(ports.values())
    for name, port in taken.items():
        above = range(port + 1, 2**16)
        free = (other for other in above if other not in spoken_for and servers.is_free(other))
        other = next(free, servers.free_port())
        spoken_for.add(other)
        yield f"SLUICE_{name.upper().replace('-', '_')}_PORT={other}"


def make_folders(var: Path) -> None:
    """Make the folders that programs write to."""
    for name in (
        "log",
        "run",
        "models",
        "numba",
        "media",
        *(f"nodes/{node}" for node in known_programs.DECIDERS),
    ):
        (var / name).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def compiling_ahead(var: Path) -> Iterator[None]:
    """Compile the engine's code, unless that is done, beside the body; then wait for the compiler.

    If compiling fails, the first decider does it (`start_workers`).
    """
    if known_programs.is_compiled(var):
        yield
        return
    # tied like our other programs: it ends when this process does
    command = launch.tied_command([sys.executable, "-m", "decider.compile_ahead"])
    with subprocess.Popen(command, cwd=embedded.ROOT, start_new_session=True) as process:
        try:
            yield
            process.wait()
        finally:
            process.terminate()


def start_servers(supervisor: Supervisor) -> None:
    """Start the embedded servers, wait until they answer, and make the database.

    Raises:
        PartError: when a server does not come up, or the managed database cannot be reached.
        SuperviseError: when the supervisor refuses.
    """
    var = supervisor.var
    # Valkey first: it loads its file while PostgreSQL is made and starts
    if embedded.is_embedded("valkey"):
        embedded.valkey_server(var).make()
        supervisor.run("valkey")
    else:
        check_store_user()
    if embedded.is_embedded("postgres"):
        postgres = embedded.postgres_server(var)
        postgres.make()
        supervisor.run("postgres")
        wait_for(supervisor, "postgres", postgres)
        postgres.make_database()
    else:
        check_database()
    if embedded.is_embedded("valkey"):
        wait_for(supervisor, "valkey", embedded.valkey_server(var))


def are_deciders_prepared(var: Path) -> bool:
    """Return whether deciders have compiled code and a config from an earlier run."""
    return known_programs.is_compiled(var) and all(
        (var / "nodes" / node / "config.bin").exists() for node in known_programs.DECIDERS
    )


def prepare_database(*, with_traffic: bool) -> None:
    """Migrate the database, add what a new installation needs, and collect the static files.

    Raises:
        CommandError: when one of these commands fails.
    """
    try:
        with database.connected_as(embedded.owner_url(settings.SLUICE_VAR)):
            call_command("migrate", verbosity=0, interactive=False)
    except ProgrammingError as error:
        raise CommandError(
            f"The database cannot be migrated: {str(error).splitlines()[0]}. On a server of your"
            " own, set SLUICE_OWNER_DATABASE_URL to the role that owns the tables"
            " (docs/postgresql.md)."
        ) from error
    # silent: they print for people who call them by hand; `welcome` prints what matters here
    with Path(os.devnull).open("w") as nothing:
        call_command("seed", demo_traffic=with_traffic, stdout=nothing)
        call_command("demo_users", stdout=nothing)
        call_command("check", fail_level="ERROR", stdout=nothing)
    # the worker's first comes minutes later, and `audit verify` finds one from the start
    if not anchors.lines():
        anchoring.run()
    call_command("collectstatic", verbosity=0, interactive=False)


def wait_for(supervisor: Supervisor, name: str, part: servers.Postgres | servers.Valkey) -> None:
    """Wait until the server answers. Raise PartError, which names its log, if it does not."""
    try:
        servers.wait_until_ready(part)
    except servers.PartError as error:
        raise servers.PartError(f"{error} See {supervisor.log_path(name)}.") from error


def check_database() -> None:
    """Raise PartError when the managed database cannot be reached, or would be used as a role that
    may do too much.
    """
    try:
        check_role(settings.DATABASE_URL, DatabaseRole.APP)
        psycopg.connect(settings.DATABASE_URL, connect_timeout=DATABASE_WITHIN_S).close()
    except psycopg.OperationalError as error:
        raise servers.PartError(
            f"The database of DATABASE_URL cannot be reached: {str(error).splitlines()[0]}."
        ) from error
    except DatabaseRoleError as error:
        raise servers.PartError(str(error)) from error


def check_store_user() -> None:
    """Raise PartError when programs would use a managed Valkey as a user that may do everything."""
    try:
        check_user(settings.VALKEY_URL, Role.OPERATOR)
    except StoreUserError as error:
        raise servers.PartError(str(error)) from error


def leave_addresses(var: Path) -> None:
    """Write the servers' addresses to a file for other commands, readable by its owner only."""
    path = addresses_file(var)
    # made anew, because touch does not change the mode of an existing file
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(f"DATABASE_URL='{settings.DATABASE_URL}'\nVALKEY_URL='{settings.VALKEY_URL}'\n")


def run_to_end(command: list[str]) -> None:
    """Run one program and wait for its end.

    Raises:
        CommandError: when it fails.
        Stopped: when told to stop meanwhile, after the program has ended.
    """
    # in its own session, so that Ctrl-C reaches us alone and is answered with one sentence
    process = subprocess.Popen(
        launch.tied_command(command), cwd=embedded.ROOT, start_new_session=True
    )
    try:
        status = process.wait()
    except Stopped:
        process.terminate()
        process.wait()
        raise
    if status:
        raise CommandError(
            f"`{' '.join(command[1:])}` failed with status {status}; its output above says why."
        )
