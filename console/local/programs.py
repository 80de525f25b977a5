"""The programs of one installation on one machine, and how to tell that they are up."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from pathlib import Path

from console.local import embedded, launch
from console.local.servers import envoy_command
from console.local.supervisor import Program
from decider import compile_ahead, compiled_cache

# Chosen: two, so that the demo shows what deciders share, and that one may stop.
DECIDERS = ("d01", "d02")
# Niceness of what may wait, and of what may wait long: on a small machine a decision has 15 ms,
# come what may.
BEHIND, FAR_BEHIND = 5, 15
# Orders, in which programs are stopped from the highest: first what sends requests and writes, then
# the deciders, which write to the servers until they end, and the servers last.
SERVER_ORDER, DECIDER_ORDER, WORKER_ORDER = 10, 20, 30
# Seconds. Chosen: a local page that takes longer than this does not count as up.
PAGE_WITHIN_S = 2
# Seconds. Chosen: PostgreSQL writes a checkpoint when it stops, which takes long on a slow disk.
POSTGRES_STOP_WITHIN_S = 30
# Seconds. Chosen: a Celery worker ends its running task first.
CELERY_STOP_WITHIN_S = 20

# One process and one task at a time leave the cores to the deciders; the other options leave out
# what only several workers need. -B: the one worker is also who starts what is due.
_CELERY = (
    *("-m", "celery", "-A", "console", "worker", "--concurrency", "1", "--loglevel", "WARNING"),
    *("--without-gossip", "--without-mingle", "-B"),
)
# Threads, because a page waits for the database most of the time. Chosen: 60 s, because a busy
# small machine may keep the process for a while from showing that it lives; 2 s, so that Ctrl-C
# does not wait for idle connections. Nothing of ours uses the control socket.
_GUNICORN = (
    *("-m", "gunicorn", "console.wsgi", "--worker-class", "gthread", "--threads", "8"),
    *("--timeout", "60", "--graceful-timeout", "2", "--no-control-socket"),
)


def server_programs(var: Path) -> list[Program]:
    """Return PostgreSQL and Valkey, where they are ours to run."""
    found = []
    # both end their own children in their own order, so no signal goes to the group
    if embedded.is_embedded("postgres"):
        command = embedded.postgres_server(var).command()
        found.append(
            Program(
                *("postgres", command, SERVER_ORDER, "INT", POSTGRES_STOP_WITHIN_S), group=False
            )
        )
    if embedded.is_embedded("valkey"):
        command = embedded.valkey_server(var).command()
        found.append(Program("valkey", command, SERVER_ORDER, group=False))
    return found


def worker_programs(var: Path, ports: Mapping[str, int], region: str) -> list[Program]:
    """Return everything between a request and a page: deciders, gateway, workers and console."""
    return [
        *(_decider(node, var, ports[node], region) for node in DECIDERS),
        _services(ports["services"]),
        Program("envoy", envoy_command(var / "run" / "envoy.yaml"), WORKER_ORDER),
        _feedback(var),
        _python("ingest", WORKER_ORDER, "manage.py", "ingest", nice=BEHIND),
        _celery_worker(var),
        _console(ports["console"]),
    ]


def traffic_program(ports: Mapping[str, int]) -> Program:
    """Return the simulated clients, which go through the gateway."""
    gateway = f"http://127.0.0.1:{ports['gateway']}"
    command = ("-m", "learning.traffic.drive", "--gateway", gateway)
    return _python("traffic", WORKER_ORDER, *command, nice=BEHIND)


def is_compiled(var: Path) -> bool:
    """Return whether all code of this source is compiled, so that deciders start in seconds."""
    return (compiled_cache.folder(var / "numba") / compile_ahead.DONE).exists()


def mark_compiled(var: Path) -> None:
    """Note that all code of this source is compiled: a decider that is up compiled it."""
    (compiled_cache.folder(var / "numba") / compile_ahead.DONE).touch()


def access_log_path(var: Path) -> Path:
    """Return the file to which the gateway writes what became of each request."""
    return var / "log" / "envoy-access.json"


def serves_page(port: int, path: str) -> bool:
    """Return whether a server of ours on the loopback port answers `path` with status below 400."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PAGE_WITHIN_S)
    try:
        # the console refuses a host that is not in its ALLOWED_HOSTS
        connection.request("GET", path, headers={"host": f"localhost:{port}"})
        return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _decider(node: str, var: Path, port: int, region: str) -> Program:
    where = ["--node", node, "--region", region, "--listen", f"127.0.0.1:{port}"]
    where += ["--data", str(var / "nodes" / node)]
    where += ["--models", str(var / "models"), "--keys", str(var / "keys")]
    # the one program that a client waits for, with Envoy: woken soon
    return _python(node, DECIDER_ORDER, "-m", "decider", *where, prompt=True)


def _services(port: int) -> Program:
    command = ("-m", "learning.traffic.demo_services", "--listen", f"127.0.0.1:{port}")
    return _python("services", WORKER_ORDER, *command, nice=BEHIND)


def _feedback(var: Path) -> Program:
    command = ("-m", "decider.node.feedback", "--log", str(access_log_path(var)))
    return _python("feedback", WORKER_ORDER, *command, nice=BEHIND)


def _celery_worker(var: Path) -> Program:
    # in our own folder: Celery would write the schedule into the current one, which may be closed
    schedule = ("--schedule", str(var / "run" / "beat"))
    return _python(
        *("worker", WORKER_ORDER, *_CELERY, *schedule),
        stop_within_s=CELERY_STOP_WITHIN_S,
        nice=FAR_BEHIND,
    )


def _console(port: int) -> Program:
    listen = ("--bind", f"127.0.0.1:{port}")
    return _python("console", WORKER_ORDER, *_GUNICORN, *listen, nice=BEHIND)


def _python(
    name: str,
    order: int,
    *arguments: str,
    stop_within_s: int = 10,
    nice: int = 0,
    prompt: bool = False,
) -> Program:
    command = launch.tied_command([sys.executable, *arguments], nice=nice, prompt=prompt)
    return Program(name, command, order, stop_within_s=stop_within_s)
