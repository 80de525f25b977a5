"""Pages of a whole installation on this machine, as `manage.py up` runs it with its demo traffic:
one operator alone, then fifty who each open a page every five seconds.

A page is a GET over the console's own front, until the last byte. There is no peer to compare with.
"""

from __future__ import annotations

import http.cookiejar
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench import row
from bench.processes import ROOT
from console.local import servers

# Milliseconds within which 95 of 100 pages come: alone, and beside other operators.
ALONE_MS, BUSY_MS = 150.0, 400.0
# Operators, and seconds from one page of an operator to the next.
OPERATORS, EVERY_S = 50, 5.0
# Of ten pages. Support looks things up more than it reads of one app.
MIX = ("home",) * 3 + ("lookup",) * 3 + ("decision",) * 3 + ("app",)
# Seconds of traffic before the first page, of the one operator, and of the fifty.
SETTLE_S, ALONE_S, BUSY_S = 60.0, 40.0, 90.0
# Seconds: longest wait for the start, which compiles the engine, and for a page.
START_S, PAGE_S = 400.0, 30.0
_PORTS = ("CONSOLE", "GATEWAY", "SERVICES", "POSTGRES", "VALKEY")


# Decisions whose apps are opened too. Chosen: enough that no page is always the same app's.
_SOME = 12


def _links(kind: str, page: str) -> list[str]:
    """Return the addresses of one kind to which a page links, each once."""
    return sorted(set(re.findall(rf'href="(/{kind}/[^"?#]+)"', page)))


class Taken(NamedTuple):
    """One page that an operator opened."""

    kind: str
    ms: float
    """Milliseconds from the request to the last byte."""


class Operator:
    """Someone signed in to a console."""

    def __init__(self, url: str, email: str, password: str, seed: int) -> None:
        """Sign in. Raises RuntimeError when the console does not let them in."""
        self._url, self._rng = url, random.Random(seed)
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self._get("/login"))
        if found is None:
            raise RuntimeError("the console has no page to sign in")
        form = {"csrfmiddlewaretoken": found[1], "email": email, "password": password, "next": "/"}
        sent = urllib.parse.urlencode(form).encode()
        answer = self._opener.open(f"{url}/login", sent, timeout=PAGE_S)
        if answer.url.rstrip("/") != url:
            raise RuntimeError(f"{email} could not sign in")

    def _get(self, address: str) -> str:
        with self._opener.open(f"{self._url}{address}", timeout=PAGE_S) as answer:
            return str(answer.read().decode())

    def find(self) -> tuple[list[str], list[str]]:
        """Return addresses of the newest decisions, and of the apps of some of them."""
        decisions = _links("decisions", self._get("/lookup?range=1h"))
        apps = [app for one in decisions[:_SOME] for app in _links("apps", self._get(one))[:1]]
        if not decisions or not apps:
            raise RuntimeError("lookup shows no decision or no app")
        return decisions, apps

    def open(self, decisions: list[str], apps: list[str]) -> Taken:
        """Open one page of the mix."""
        kind = self._rng.choice(MIX)
        address = {
            "home": "/",
            "lookup": "/lookup?range=1h",
            "decision": self._rng.choice(decisions),
            "app": self._rng.choice(apps),
        }[kind]
        began = time.perf_counter()
        self._get(address)
        return Taken(kind, (time.perf_counter() - began) * 1000.0)


def measure() -> list[dict[str, object]]:
    """Return the rows: one operator alone, and fifty. Raises RuntimeError when the installation
    does not start or a page fails.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name, _running(Path(name)) as made:
        url, people, password = made
        time.sleep(SETTLE_S)
        operators = [Operator(url, people[k % len(people)], password, k) for k in range(OPERATORS)]
        alone = _work(operators[:1], ALONE_S, 0.0)
        busy = _work(operators, BUSY_S, EVERY_S)
    return [
        _row("pages: one operator alone", alone, ALONE_MS),
        _row(f"pages: {OPERATORS} operators, each a page every {EVERY_S:.0f} s", busy, BUSY_MS),
    ]


@contextmanager
def _running(folder: Path) -> Iterator[tuple[str, list[str], str]]:
    """Run an installation with demo traffic in a folder: its console's address, who may sign in
    and their password.
    """
    # the folder's own user reads what is in it
    folder.chmod(0o755)
    ports = {name: servers.free_port() for name in _PORTS}
    environment = os.environ | {f"SLUICE_{name}_PORT": str(port) for name, port in ports.items()}
    environment["SLUICE_VAR"] = str(folder / "var")
    told = folder / "told"
    with told.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up"], cwd=ROOT, env=environment, stdout=out, stderr=out
        )
        try:
            said = _await_start(process, told)
            people = re.findall(r"^\s+(\S+@\S+)", said, re.MULTILINE)
            password = re.search(r"password of each is\s+(\S+)", said)
            if not people or password is None:
                raise RuntimeError(f"manage.py up told no way to sign in: {said[-500:]}")
            yield f"http://localhost:{ports['CONSOLE']}", people, password[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_start(process: subprocess.Popen[bytes], told: Path) -> str:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        said = told.read_text(errors="replace")
        if "Ctrl-C stops" in said:
            return said
        time.sleep(0.5)
    raise RuntimeError(f"manage.py up did not start: {told.read_text(errors='replace')[-1000:]}")


def _work(operators: list[Operator], seconds: float, every_s: float) -> list[Taken]:
    """Let operators open pages, each in a thread, and return what each page took."""
    decisions, apps = operators[0].find()
    taken: list[Taken] = []
    failed: list[Exception] = []
    begins = time.monotonic()
    ends = begins + seconds

    def work(number: int, operator: Operator) -> None:
        # evenly spread, as people do not act in step
        due = begins + every_s * number / len(operators)
        while (due := max(due, time.monotonic() - every_s)) < ends and not failed:
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                taken.append(operator.open(decisions, apps))
            except (OSError, urllib.error.URLError) as error:
                failed.append(error)
            due = due + every_s if every_s else time.monotonic()

    threads = [
        threading.Thread(target=work, args=(number, operator))
        for number, operator in enumerate(operators)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError(f"a page failed: {failed[0]}")
    return taken


def _p95(figures: list[float]) -> float:
    return statistics.quantiles(figures, n=20)[-1] if len(figures) > 1 else figures[0]


def _row(name: str, taken: list[Taken], target: float) -> dict[str, object]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for one in taken:
        kinds[one.kind].append(one.ms)
    told = ", ".join(
        f"{kind} {statistics.median(found):.0f} and {_p95(found):.0f}"
        for kind, found in sorted(kinds.items())
    )
    p95 = _p95([one.ms for one in taken])
    return row(
        f"{name}, p95",
        *(round(p95, 1), "ms", f"{target:.0f} ms"),
        p95 <= target,
        f"{len(taken)} pages beside demo traffic; median and p95 of each kind: {told}",
    )
