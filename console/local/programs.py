"""The programs of one installation on one machine, and how to tell that they are up."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from pathlib import Path

from console.local import embedded, launch
from console.local.servers import envoy_command
from console.local.sockets import socket_path
from console.local.supervisor import Program
from control.database_roles.roles import DatabaseRole
from decider import compile_ahead, compiled_cache
from decider.contracts.sealed.outcomes import KEY_FILE
from decider.doors.addresses import UNIX
from decider.doors.unix_client import UnixConnection
from decider.store_users.roles import Role
from learning.traffic import tokens

# Chosen: two, so that the demo shows what deciders share, and that one of them may stop.
DECIDERS = ("d01", "d02")
# Niceness of programs that may wait a little, and of programs that may wait long. A decision must
# be made within 15 ms, also on a small machine.
BEHIND, FAR_BEHIND = 5, 15
# Stop orders: programs with the highest one are stopped first. First come those that send requests
# and write, then what stands in front of the console, so that answers on their way still get
# through, then the deciders, which write to the servers until they end, and last the servers.
SERVER_ORDER, DECIDER_ORDER, FRONT_ORDER, WORKER_ORDER = 10, 20, 25, 30
# Seconds. Chosen: a local page that takes longer than this does not count as up.
PAGE_WITHIN_S = 2
# Seconds. Chosen: PostgreSQL writes a checkpoint when it stops, which takes long on a slow disk.
POSTGRES_STOP_WITHIN_S = 30
# Seconds. Chosen: a Celery worker ends its running task first.
CELERY_STOP_WITHIN_S = 20

# What a program gets that uses neither server: no address, and so no password.
_NO_SERVER: Mapping[str, str] = dict.fromkeys(
    ("DATABASE_URL", "SLUICE_OWNER_DATABASE_URL", "VALKEY_URL"), ""
)
# One process with one task at a time leaves the cores to the deciders. --without-gossip and
# --without-mingle drop what only several workers need.
_CELERY = (
    *("-m", "celery", "-A", "console", "worker", "--concurrency", "1", "--loglevel", "WARNING"),
    *("--without-gossip", "--without-mingle"),
)
# How gunicorn serves the console, in the file that the documentation shows.
_GUNICORN = ("-m", "gunicorn", "console.wsgi", "--config", "examples/console/gunicorn.py")
# Seconds. Chosen: gunicorn ends its requests first, within its graceful_timeout.
CONSOLE_STOP_WITHIN_S = 12
# Workers of the pages. Chosen: two, so that a page which takes one for itself leaves the other.
_PAGE_WORKERS = 2
# The console's Unix sockets, by their marks in the configuration of the Envoy in front of them.
CONSOLE_SOCKETS = {
    "console-socket": "console",
    "switches-socket": "console-switches",
    "console-admin": "console-admin",
}


def server_programs(var: Path) -> list[Program]:
    """Return the programs PostgreSQL and Valkey, each only if it is embedded. Raise PartError."""
    found = []
    # each server ends its own children in its own order, so no signal goes to the group
    if embedded.is_embedded("postgres"):
        command = embedded.postgres_server(var).command()
        found.append(
            Program(
                *("postgres", command, SERVER_ORDER, "INT", POSTGRES_STOP_WITHIN_S),
                group=False,
                environment=_NO_SERVER,
            )
        )
    if embedded.is_embedded("valkey"):
        command = embedded.valkey_server(var).command()
        found.append(Program("valkey", command, SERVER_ORDER, group=False, environment=_NO_SERVER))
    return found


def worker_programs(var: Path, ports: Mapping[str, int], region: str) -> list[Program]:
    """Return everything between a request and a page: deciders, gateway, workers and console."""
    return [
        *(_decider(node, var, region) for node in DECIDERS),
        _services(ports["services"]),
        _envoy(var),
        _feedback(var),
        _gateway_agent(var),
        _ingest(var),
        _celery_worker(var),
        _beat(var),
        _explainer(var),
        _console(var, "console", _PAGE_WORKERS),
        _console(var, "console-switches", 1),
        _console_front(var),
    ]


def traffic_program(ports: Mapping[str, int], keys: Path) -> Program:
    """Return the simulated clients, which go through the gateway."""
    gateway = f"http://127.0.0.1:{ports['gateway']}"
    key = ("--client-key", str(keys / tokens.KEY_FILE))
    command = ("-m", "learning.traffic.drive", "--gateway", gateway, *key)
    return _python("traffic", WORKER_ORDER, *command, nice=BEHIND)


def is_compiled(var: Path) -> bool:
    """Return whether the present engine code is compiled, so that deciders start in seconds."""
    return (compiled_cache.folder(var / "numba") / compile_ahead.DONE).exists()


def mark_compiled(var: Path) -> None:
    """Record that the present engine code is compiled; a decider that is up has compiled it."""
    (compiled_cache.folder(var / "numba") / compile_ahead.DONE).touch()


def access_log_path(var: Path) -> Path:
    """Return the path of the gateway's access log, which tells what happened to each request."""
    return var / "log" / "envoy-access.json"


def gateway_rules_path(var: Path) -> Path:
    """Return the path of the file of block rules, in a folder of its own, which Envoy watches."""
    return var / "run" / "gateway" / "rules.json"


def console_config_path(var: Path) -> Path:
    """Return the path of the configuration of the Envoy in front of the console."""
    return var / "run" / "console-envoy.yaml"


def console_sockets(var: Path) -> dict[str, Path]:
    """Return the paths of the console's sockets by their marks in that configuration."""
    return {mark: socket_path(var, name) for mark, name in CONSOLE_SOCKETS.items()}


def gateway_sockets(var: Path) -> dict[str, Path]:
    """Return the paths of the sockets between the gateway and the deciders by their marks in the
    gateway's configuration.
    """
    return {name: socket_path(var, name) for name in (*DECIDERS, "envoy-check", "envoy-admin")}


def serves_page(place: int | Path, path: str) -> bool:
    """Return whether a server of ours answers `path` with status below 400. `place`: its port on
    the loopback, or its socket.
    """
    connection = (
        UnixConnection(place, PAGE_WITHIN_S)
        if isinstance(place, Path)
        else http.client.HTTPConnection("127.0.0.1", place, timeout=PAGE_WITHIN_S)
    )
    try:
        # the console refuses a host that is not in its ALLOWED_HOSTS
        connection.request("GET", path, headers={"host": "localhost"})
        return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _decider(node: str, var: Path, region: str) -> Program:
    where = ["--node", node, "--region", region, "--listen", f"{UNIX}{socket_path(var, node)}"]
    where += ["--data", str(var / "nodes" / node)]
    where += ["--models", str(var / "models"), "--keys", str(var / "keys")]
    # prompt: only for the deciders and Envoy does a client wait
    command = ("-m", "decider", *where)
    return _python(node, DECIDER_ORDER, *command, prompt=True, uses=_store(var, Role.DECIDER))


def _envoy(var: Path) -> Program:
    command = envoy_command(var / "run" / "envoy.yaml")
    return Program("envoy", command, WORKER_ORDER, environment=_NO_SERVER)


def _ingest(var: Path) -> Program:
    command = ("manage.py", "ingest")
    return _python("ingest", WORKER_ORDER, *command, nice=BEHIND, uses=_both(var, Role.INGEST))


def _services(port: int) -> Program:
    command = ("-m", "learning.traffic.demo_services", "--listen", f"127.0.0.1:{port}")
    return _python("services", WORKER_ORDER, *command, nice=BEHIND)


def _feedback(var: Path) -> Program:
    command = ["-m", "decider.node.feedback", "--log", str(access_log_path(var))]
    command += ["--outcomes-key", str(var / "keys" / KEY_FILE)]
    command += ["--envoy-admin", f"{UNIX}{socket_path(var, 'envoy-admin')}"]
    uses = _store(var, Role.FEEDBACK)
    return _python("feedback", WORKER_ORDER, *command, nice=BEHIND, uses=uses)


def _gateway_agent(var: Path) -> Program:
    where = ("--data", str(var / "gateway"), "--keys", str(var / "keys"))
    command = ("-m", "decider.gateway.agent", "--name", "gateway", *where)
    rules = ("--envoy", str(gateway_rules_path(var)))
    uses = _store(var, Role.GATEWAY)
    return _python("gateway-agent", WORKER_ORDER, *command, *rules, nice=BEHIND, uses=uses)


def _celery_worker(var: Path) -> Program:
    return _python(
        *("worker", WORKER_ORDER, *_CELERY, "--queues", "celery"),
        stop_within_s=CELERY_STOP_WITHIN_S,
        nice=FAR_BEHIND,
        uses=_both(var, Role.WORKER),
    )


def _beat(var: Path) -> Program:
    """Return what starts the scheduled tasks: a program of its own, because a worker that has it as
    a child (-B) does not notice when it dies, and nothing is scheduled from then on.
    """
    # in our own folder: Celery would use the current one, which may not be writable
    schedule = ("--schedule", str(var / "run" / "beat"))
    command = ("-m", "celery", "-A", "console", "beat", "--loglevel", "WARNING", *schedule)
    return _python("beat", WORKER_ORDER, *command, nice=FAR_BEHIND, uses=_both(var, Role.WORKER))


def _explainer(var: Path) -> Program:
    """Return the worker that explains decisions; support waits for it, so it is less far behind."""
    return _python(
        *("explainer", WORKER_ORDER, *_CELERY, "--queues", "celery-explain"),
        *("--hostname", "explainer@%h"),
        stop_within_s=CELERY_STOP_WITHIN_S,
        nice=BEHIND,
        uses=_both(var, Role.WORKER),
    )


def _console(var: Path, name: str, workers: int) -> Program:
    listen = ("--bind", f"unix:{socket_path(var, name)}", "--workers", str(workers))
    return _python(
        *(name, WORKER_ORDER, *_GUNICORN, *listen),
        stop_within_s=CONSOLE_STOP_WITHIN_S,
        nice=BEHIND,
        uses=_both(var, Role.CONSOLE),
    )


def _console_front(var: Path) -> Program:
    # a process of its own: what floods the console must not slow the requests of the API
    command = envoy_command(console_config_path(var), prompt=False, nice=BEHIND)
    return Program("console-front", command, FRONT_ORDER, environment=_NO_SERVER)


def _both(var: Path, role: Role) -> dict[str, str]:
    """Return the variables of a program that uses both servers, as its roles in them. A managed
    server is used as DATABASE_URL or VALKEY_URL says.
    """
    found = _only_store(var, role)
    if embedded.is_embedded("postgres"):
        own = DatabaseRole.INGEST if role is Role.INGEST else DatabaseRole.APP
        found["DATABASE_URL"] = embedded.postgres_server(var).url(role=own)
    return found


def _store(var: Path, role: Role) -> dict[str, str]:
    """Return the variables of a program that uses Valkey and no database."""
    return {"DATABASE_URL": "", **_only_store(var, role)}


def _only_store(var: Path, role: Role) -> dict[str, str]:
    # no program but `up` and migrations is the owner of the tables
    nothing = {"SLUICE_OWNER_DATABASE_URL": ""}
    if not embedded.is_embedded("valkey"):
        return nothing
    return {**nothing, "VALKEY_URL": embedded.valkey_server(var).url(role=role)}


def _python(
    name: str,
    order: int,
    *arguments: str,
    stop_within_s: int = 10,
    nice: int = 0,
    prompt: bool = False,
    uses: Mapping[str, str] = _NO_SERVER,
) -> Program:
    command = launch.tied_command([sys.executable, *arguments], nice=nice, prompt=prompt)
    return Program(name, command, order, stop_within_s=stop_within_s, environment=uses)
