"""The real servers the tests run on: one PostgreSQL and one Valkey for the whole session, on free
ports, in a temporary folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from console import parts


def start() -> None:
    """Starts what the environment does not already name, and names it there, so that settings and
    child processes find it.
    """
    if "SLUICE_VAR" not in os.environ or "SLUICE_TEST_SERVERS" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="sluice-tests-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        parts.let_pass(folder)
        os.environ["SLUICE_VAR"] = str(folder)
        os.environ["SLUICE_TEST_SERVERS"] = "1"
    folder = Path(os.environ["SLUICE_VAR"])
    (folder / "static").mkdir(
        parents=True, exist_ok=True
    )  # as `collectstatic` leaves it; its absence is a warning
    os.environ.setdefault("SLUICE_SECRET_KEY", "only-for-tests-" + "0123456789" * 5)
    os.environ.setdefault("SLUICE_DEBUG", "true")
    if "DATABASE_URL" not in os.environ:
        postgres = parts.Postgres(folder / "postgres", parts.free_port(), "test", durable=False)
        _run(postgres, signal.SIGINT)
        postgres.make_database()
        os.environ["DATABASE_URL"] = postgres.url()
    if "VALKEY_URL" not in os.environ:
        valkey = parts.Valkey(folder / "valkey", parts.free_port(), "test", durable=False)
        _run(valkey, signal.SIGTERM)
        os.environ["VALKEY_URL"] = valkey.url()


def _run(part: parts.Postgres | parts.Valkey, stop: signal.Signals) -> None:
    part.make()
    with (part.data.parent / f"{type(part).__name__.lower()}.log").open("wb") as log:
        process = subprocess.Popen(
            part.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    atexit.register(_stop, process, stop)
    parts.wait_until_ready(part)


def _stop(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    process.send_signal(with_signal)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
