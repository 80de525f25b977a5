"""Runs of wrk and their results."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench import processes

# What the decider that is measured knows, as it listens on TCP, which is all that wrk speaks. Its
# peers get it, too.
SECRET = "known-to-the-gateways-of-a-benchmark"  # noqa: S105 - opens nothing else
SCRIPT = Path(__file__).resolve().parent / "resources" / "checks.lua"
# wrk's units in milliseconds.
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class WrkResult(NamedTuple):
    """The figures of one run of wrk."""

    rate: float
    """Answers a second."""
    p50_ms: float
    p99_ms: float
    requests: int
    refused: int
    """Answers other than 2xx and 3xx."""
    cpu_s: float
    """CPU time of the server, seconds."""


def missing() -> str | None:
    """Return why nothing can be measured; None when wrk is installed."""
    return None if shutil.which("wrk") else "wrk is not installed"


def run(port: int, pid: int, core: int, connections: int, seconds: int, apps: int) -> WrkResult:
    """Load the server with this `port` and `pid` by wrk, which runs on `core` for `seconds`. Raises
    RuntimeError when wrk or the server failed.
    """
    how = f"-t1 -c{connections} -d{seconds}s --latency --timeout 20s".split()
    address = f"http://127.0.0.1:{port}"
    arguments = [str(SCRIPT), address, "--", str(apps), SECRET]
    command = [*processes.on_core(core), "wrk", *how, "-s", *arguments]
    before = processes.cpu_seconds(pid)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    used = processes.cpu_seconds(pid) - before
    if done.returncode:
        raise RuntimeError(f"wrk failed: {(done.stdout + done.stderr)[-500:]}")
    return _read_result(done.stdout, used)


def _read_result(text: str, used: float) -> WrkResult:
    """Return what wrk's report says; `used` is the server's CPU time, seconds. Raise RuntimeError
    for a report with socket errors or without requests.
    """
    errors = re.search(r"Socket errors: (?:connect 0, read 0, write )?(\d+)", text)
    total = re.search(r"(\d+) requests in ([\d.]+)s", text)
    if total is None or int(total[1]) == 0 or (errors is not None and errors[1] != "0"):
        raise RuntimeError(f"wrk had socket errors or made no request: {text[-500:]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    assert rate is not None
    return WrkResult(
        float(rate[1]),
        _latency(text, "50%"),
        _latency(text, "99%"),
        int(total[1]),
        int(refused[1]) if refused else 0,
        used,
    )


def _latency(text: str, which: str) -> float:
    """Return milliseconds of a percentile from wrk's report. Raises RuntimeError without it."""
    found = re.search(rf"^\s+{which}\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    if found is None:
        raise RuntimeError(f"wrk's report has no latency at {which}: {text[-500:]}")
    return float(found[1]) * _UNITS[found[2]]
