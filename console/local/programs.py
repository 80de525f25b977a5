"""The programs of one installation on one machine, and how to tell that they are up."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping
from pathlib import Path

from console.local import embedded, launch
from console.local.servers import envoy_command
from console.local.supervisor import Program
from decider import compiled_cache

DECIDERS = ("d01", "d02")
# Niceness of what may wait, and of what may wait long: on a small machine a decision has 15 ms,
# come what may.
BEHIND, FAR_BEHIND = 5, 15


def servers(var: Path) -> list[Program]:
    """PostgreSQL and Valkey, where they are ours to run."""
    found = []
    if embedded.is_embedded("postgres"):
        found.append(
            Program("postgres", embedded.postgres(var).command(), 10, "INT", 30, group=False)
        )
    if embedded.is_embedded("valkey"):
        found.append(Program("valkey", embedded.valkey(var).command(), 10, group=False))
    return found


def workers(var: Path, ports: Mapping[str, int], region: str) -> list[Program]:
    """Everything between a request and a page."""
    found = [_decider(node, var, ports[node], region) for node in DECIDERS]
    services = [
        "-m",
        "learning.traffic.demo_services",
        "--listen",
        f"127.0.0.1:{ports['services']}",
    ]
    found.append(_python("services", 30, *services, nice=BEHIND))
    found.append(Program("envoy", envoy_command(var / "run" / "envoy.yaml"), 30))
    found.append(
        _python(
            "feedback",
            30,
            "-m",
            "decider.node.feedback",
            "--log",
            str(access_log(var)),
            nice=BEHIND,
        )
    )
    found.append(_python("ingest", 30, "manage.py", "ingest", nice=BEHIND))
    beat = ["-B", "--schedule", str(var / "run" / "beat")]
    options = [
        "--concurrency",
        "1",
        "--loglevel",
        "WARNING",
        "--without-gossip",
        "--without-mingle",
    ]
    found.append(
        _python(
            "worker",
            30,
            "-m",
            "celery",
            "-A",
            "console",
            "worker",
            *options,
            *beat,
            patience_s=20,
            nice=FAR_BEHIND,
        )
    )
    serve = [
        "--bind",
        f"127.0.0.1:{ports['console']}",
        "--worker-class",
        "gthread",
        "--threads",
        "8",
        "--timeout",
        "60",
        "--graceful-timeout",
        "2",
    ]
    found.append(
        _python(
            "console",
            30,
            "-m",
            "gunicorn",
            "console.wsgi",
            *serve,
            "--no-control-socket",
            nice=BEHIND,
        )
    )
    return found


def traffic(ports: Mapping[str, int]) -> Program:
    """The simulated clients, through the gateway."""
    return _python(
        "traffic",
        30,
        "-m",
        "learning.traffic.drive",
        "--gateway",
        f"http://127.0.0.1:{ports['gateway']}",
        nice=BEHIND,
    )


def is_compiled(var: Path) -> bool:
    """Return whether code compiled from this source is there, so that deciders start in seconds."""
    return any(compiled_cache.folder(var / "numba").rglob("*.nbi"))


def access_log(var: Path) -> Path:
    """Where the gateway writes what became of each request."""
    return var / "log" / "envoy-access.json"


def answers(port: int, path: str) -> bool:
    """Whether a server of ours gives a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
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
    return _python(node, 20, "-m", "decider", *where, prompt=True)


def _python(
    name: str,
    order: int,
    *arguments: str,
    patience_s: int = 10,
    nice: int = 0,
    prompt: bool = False,
) -> Program:
    command = launch.command([sys.executable, *arguments], nice=nice, prompt=prompt)
    return Program(name, command, order, stop_within_s=patience_s)
