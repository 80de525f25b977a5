"""An import of a million apps by the command's own steps, until two running deciders know them.

A decider knows the paying apps when it holds their table, which it reports, and finds the profile
of any app in Valkey. PostgreSQL flushes its commits. There is no peer to compare with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import kill_switch, row
from bench.processes import ROOT

# Apps of the import, their tenants, and how many of a hundred pay.
APPS, TENANTS, PAYING = 1_000_000, 50_000, 30
# Seconds within which they must be stored, and known to every decider.
STORED_S, KNOWN_S = 60.0, 120.0
DECIDERS = ("d01", "d02")
# Seconds: longest wait for a decider to start, and to know the apps.
START_S, WAIT_S = 120.0, 600.0


def measure() -> list[dict[str, object]]:
    """Return the rows: seconds until the apps are stored, and until all deciders know them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        environment = os.environ | kill_switch._servers(stack, folder, os.sched_getaffinity(0))
        done = subprocess.run(
            [sys.executable, "-m", "bench.app_import"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _measured() -> list[dict[str, object]]:
    """Return the rows. In a process with Django."""
    from django.conf import settings

    from control.audit.actors import SYSTEM
    from control.deciders import publish
    from control.directory import app_import, app_rows

    kill_switch._install()
    publish.rebuild()
    path = Path(settings.SLUICE_VAR) / "apps.csv"
    _write(path)
    with ExitStack() as stack:
        for name in DECIDERS:
            stack.enter_context(kill_switch._process(kill_switch._decider(name), signal.SIGTERM))
        kill_switch._wait_for(lambda: len(_known()) == len(DECIDERS), START_S, "no decider started")
        began = time.monotonic()
        with path.open("rb") as lines:
            rows = app_rows.read(lines, "csv")
        read = time.monotonic() - began
        done = app_import.import_apps(
            rows, by=SYSTEM, reason="A measurement", digest="0" * 64, make_tenants=True
        )
        stored = time.monotonic() - began
        app_import.publish_import(done.number)
        told = time.monotonic() - began
        paying = APPS * PAYING // 100
        kill_switch._wait_for(
            lambda: all(count >= paying for count in _known()), WAIT_S, "a decider did not know all"
        )
        known = time.monotonic() - began
    where = (
        f"{APPS:,} apps of {TENANTS:,} new tenants as CSV, {PAYING}% paying, PostgreSQL flushing"
        f" commits, two idle deciders, load average {os.getloadavg()[1]:.1f}: read after"
        f" {read:.0f} s, stored after {stored:.0f} s, profiles sent after {told:.0f} s"
    )
    return [
        _row("stored", stored, STORED_S, where),
        _row("known to all deciders", known, KNOWN_S, where),
    ]


def _row(what: str, took: float, target: float, where: str) -> dict[str, object]:
    name = f"a million apps imported: {what}"
    return row(name, round(took, 1), "s", target, took <= target, where)


def _known() -> list[int]:
    """Return how many known apps each decider reports."""
    from control.deciders import acks

    beats = acks.heartbeats(time.time()).values()
    return [status.known_apps for _, status in beats if status is not None]


def _write(path: Path) -> None:
    with path.open("w", encoding="ascii") as out:
        out.write("id,tenant,tier,name,verified,created_at\n")
        for k in range(APPS):
            tier = ("standard", "premium", "enterprise")[k % 3] if k % 100 < PAYING else "free"
            out.write(
                f"app_{k:08d},ten_{k % TENANTS},{tier},App number {k},true,2026-01-31T12:00:00Z\n"
            )


if __name__ == "__main__":
    import django

    django.setup()
    print(json.dumps(_measured()))
