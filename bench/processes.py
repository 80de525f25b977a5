"""Processes of a measurement: start them on a core, stop them, and read their CPU time."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Niceness of the measured and the measuring processes, where the user may raise priority: other
# work on the machine then changes the figures less.
NICE = -10
_TICKS = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int]:
    """Return the number of the core for what is measured, and that of the core for what measures
    it; the same one twice where there is only one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-1], allowed[0]


def on_core(core: int) -> list[str]:
    """Return the words to put before a command, so that it runs on a core, ahead of other work."""
    return [*(["nice", "-n", str(NICE)] if os.geteuid() == 0 else []), "taskset", "-c", str(core)]


@contextmanager
def running(
    command: list[str], core: int, port: int, limit_s: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process on one core and wait until it listens on `port`, at most `limit_s` seconds.

    Raises RuntimeError with its output when it does not.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as said:
        pinned = [*on_core(core), *command]
        process = subprocess.Popen(
            pinned, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            if not _listens(process, port, limit_s):
                said.seek(0)
                raise RuntimeError(
                    f"{' '.join(command[:4])} did not start:"
                    f" {said.read()[-1000:].decode(errors='replace')}"
                )
            yield process
        finally:
            _stop(process)


def _listens(process: subprocess.Popen[bytes], port: int, limit_s: float) -> bool:
    end = time.monotonic() + limit_s
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds a process has used so far: all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
