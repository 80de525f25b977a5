"""A switch flip while 50 operators look at apps and reports of 10,000 outcomes are stored.

The flip is a POST to the page's own view, until its answer: then the change is committed and
published. Operators open pages that each record a new look; reports come over the API, one after
the other. Each kind has processes of its own, as the workers of a console have, and all share one
PostgreSQL that flushes its commits. There is no peer to compare with.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM

from bench import kill_switch, row
from bench.processes import ROOT

# Milliseconds within which 99 of 100 flips must be answered.
TARGET_MS = 200.0
# Operators, their processes, and seconds from one page of an operator to the next: what the figures
# of pages are measured with.
OPERATORS, PROCESSES, EVERY_S = 50, 2, 5.0
# Apps: enough that an operator's pages are of apps they have not looked at lately.
APPS = 2_000
# Outcomes of a report: the most that one may have.
OUTCOMES = 10_000
# Seconds of flips, and between two of them: over many reports.
SECONDS, GAP_S = 90.0, 0.25
# Seconds: longest wait for the others' first work.
START_S = 120.0


def measure() -> list[dict[str, object]]:
    """Return the row: the 99th percentile of the flips of SECONDS."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        environment = os.environ | kill_switch._servers(stack, folder, os.sched_getaffinity(0))
        done = subprocess.run(
            _command("flip"),
            cwd=ROOT,
            env={**environment, "SLUICE_API_RATE": "6000/min"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _command(*what: str) -> list[str]:
    return [sys.executable, "-m", "bench.busy_console.flips", *what]


# ---- the processes with Django
# ---------------------------------------------------------------------


def main(what: str, number: int = 0) -> None:
    """Set up Django and be one of the processes."""
    import django

    django.setup()
    if what == "flip":
        print(json.dumps(_measured()))
    elif what == "report":
        _report(Path(os.environ["SLUICE_VAR"]) / "reports")
    else:
        _operate(number, Path(os.environ["SLUICE_VAR"]) / f"pages-{number}")


def _measured() -> list[dict[str, object]]:
    from django.conf import settings

    _install()
    told = [settings.SLUICE_VAR / "reports"]
    told += [settings.SLUICE_VAR / f"pages-{k}" for k in range(PROCESSES)]
    browser = _signed_in("sre")
    kill_switch._flip(browser, "engage")  # warms the page's caches, and is not counted
    with ExitStack() as stack:
        others = [_command("report"), *(_command("look", str(k)) for k in range(PROCESSES))]
        for command in others:
            stack.enter_context(kill_switch._process(command, SIGTERM))
        kill_switch._wait_for(
            lambda: all(path.exists() and path.read_text() for path in told),
            START_S,
            "no report was stored, or no page shown",
        )
        end = time.monotonic() + SECONDS
        took: list[float] = []
        while time.monotonic() < end:
            took.append(_one_flip(browser, len(took)))
        reports, *pages = ([float(x) for x in path.read_text().split()] for path in told)
    return [_row(took, reports, [each for some in pages for each in some])]


def _one_flip(browser: object, turn: int) -> float:
    """Return the milliseconds of a flip, and wait for the next."""
    began = time.perf_counter()
    kill_switch._flip(browser, "engage" if turn % 2 else "clear")  # type: ignore[arg-type]
    took = (time.perf_counter() - began) * 1000
    time.sleep(GAP_S)
    return took


def _row(took: list[float], reports: list[float], pages: list[float]) -> dict[str, object]:
    p99 = kill_switch._p99(took)
    return row(
        "busy console: switch flip, 50 operators and 10,000 outcomes at once, p99",
        round(p99, 1),
        "ms",
        TARGET_MS,
        p99 <= TARGET_MS,
        f"{len(took)} flips by POST to the page's own view, median {statistics.median(took):.1f}"
        f" ms, slowest {max(took):.0f} ms; meanwhile {len(pages):,} pages of {OPERATORS} operators,"
        f" each a new look (median {statistics.median(pages) * 1000:.0f} ms), and {len(reports)}"
        f" reports of {OUTCOMES:,} outcomes over the API (median {statistics.median(reports):.1f}"
        f" s); no deciders; {len(os.sched_getaffinity(0))} cores for all of it and PostgreSQL, load"
        f" average {os.getloadavg()[0]:.1f}",
    )


def _install() -> None:
    """Make tables, keys, the first config, apps, and people who may flip, look and report."""
    from django.conf import settings
    from django.core.management import call_command

    from control.audit import chain
    from control.audit.actors import SYSTEM
    from control.config import changes
    from control.deciders import keys
    from control.models import App, Tenant

    call_command("migrate", verbosity=0)
    keys.ensure(settings.SLUICE_KEYS)
    changes.first(by=SYSTEM, reason="A measurement")
    with chain.changing():
        tenant = Tenant.objects.create(id="bench", name="Bench")
        App.objects.bulk_create(
            App(id=f"app_{k}", name=f"App {k}", tenant=tenant, tier=1) for k in range(APPS)
        )
        chain.append(
            by=SYSTEM,
            reason="A measurement",
            action="app.import",
            subject="apps",
            summary=f"added {APPS:,} apps",
        )
    people = ["sre", "policy_admin", *(f"operator{k}" for k in range(OPERATORS))]
    for name in people:
        kill_switch.make_person("support" if name.startswith("operator") else name, name)


def _signed_in(name: str):  # type: ignore[no-untyped-def]  # Django's client is imported late
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    # it goes on for longer than a password counts as just given
    settings.REAUTHENTICATION_S = settings.SESSION_COOKIE_AGE
    browser = Client()
    user = get_user_model().objects.get(username=f"{name}@bench.example")
    browser.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return browser


def _report(told: Path) -> None:
    """Report outcomes over the API until ended; append the seconds of each report to a file."""
    browser, at = _signed_in("policy_admin"), "2026-01-01T00:00:00Z"
    while True:
        run = secrets.token_hex(6)
        outcomes = [
            {"key": f"{run}-{k}", "kind": "chargeback", "occurred_at": at, "app": f"app_{k % APPS}"}
            for k in range(OUTCOMES)
        ]
        body = json.dumps({"outcomes": outcomes, "reason": "A measurement"})
        began = time.perf_counter()
        answer = browser.post("/api/v1/outcomes", body, content_type="application/json")
        if answer.status_code != 201:
            raise RuntimeError(f"a report was answered {answer.status_code}: {answer.content!r}")
        _tell(told, time.perf_counter() - began)


def _operate(number: int, told: Path) -> None:
    """Have this process's operators open pages until ended."""
    mine = range(number, OPERATORS, PROCESSES)
    threads = [threading.Thread(target=_open_pages, args=(k, told), daemon=True) for k in mine]
    for thread in threads:
        thread.start()
    threads[0].join()


def _open_pages(operator: int, told: Path) -> None:
    """Open an app's page every EVERY_S seconds, each of another app."""
    browser = _signed_in(f"operator{operator}")
    # spread over the interval, as people are
    time.sleep(operator / OPERATORS * EVERY_S)
    for turn in range(APPS):
        began = time.perf_counter()
        answer = browser.get(f"/apps/app_{(operator * 37 + turn) % APPS}")
        if answer.status_code != 200:
            raise RuntimeError(f"a page was answered {answer.status_code}")
        took = time.perf_counter() - began
        _tell(told, took)
        time.sleep(max(0.0, EVERY_S - took))


def _tell(path: Path, seconds: float) -> None:
    with path.open("a") as file:
        file.write(f"{seconds:.6f}\n")


if __name__ == "__main__":
    main(sys.argv[1], *(int(number) for number in sys.argv[2:]))
