"""The kill switch: from the click on the page to the last decision under the old state, and the
push by itself.

Everything is as shipped and runs in processes of its own: PostgreSQL that flushes its commits,
Valkey, eight deciders with a live model, and traffic that keeps the deciders' core 70% busy. There
is no peer to compare with.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import row
from bench.processes import ROOT
from bench.steady_traffic import APPS
from console.local import database, servers

if TYPE_CHECKING:
    # Django is set up in the measuring process only.
    from django.test import Client

# Chosen: more than the core can run at once, as on a busy machine.
DECIDERS = 8
# Share of their core that the deciders use while the measurement runs.
BUSY = 0.70
# Milliseconds from click to last old decision, and from publishing to applied.
CLICK_TARGET_MS, PUSH_TARGET_MS = 250.0, 5.0
# Seconds: longest start (the first decider compiles), longest wait for acks, and pause between
# flips, so that one is over before the next.
START_S, ACK_S, GAP_S = 240.0, 10.0, 0.15


def measure(rounds: int = 100) -> list[dict[str, object]]:
    """Return the rows: 99th percentiles of `rounds` flips and five times as many pushes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        deciding, rest = _cores()
        environment = os.environ | _servers(stack, folder, rest)
        command = [
            sys.executable,
            "-m",
            "bench.kill_switch",
            str(rounds),
            ",".join(map(str, deciding)),
        ]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    rows: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _cores() -> tuple[set[int], set[int]]:
    """Return the deciders' core, and the cores of everything else."""
    allowed = sorted(os.sched_getaffinity(0))
    return {allowed[-1]}, set(allowed[:-1] or allowed)


def _servers(stack: ExitStack, folder: Path, cores: set[int]) -> dict[str, str]:
    """Start PostgreSQL and Valkey on these cores; return the environment that names them."""
    servers.let_pass(folder)
    postgres = servers.Postgres(folder / "postgres", servers.free_port(), secrets.token_hex(8))
    valkey = servers.Valkey(folder / "valkey", servers.free_port(), secrets.token_hex(8))
    for part, end in ((postgres, signal.SIGINT), (valkey, signal.SIGTERM)):
        part.make()
        os.sched_setaffinity(stack.enter_context(_process(part.command(), end)).pid, cores)
        servers.wait_until_ready(part)
    postgres.make_database()
    (folder / "static").mkdir()
    return {
        "DATABASE_URL": postgres.url(),
        "VALKEY_URL": valkey.url(),
        "SLUICE_VAR": str(folder),
        "SLUICE_DEBUG": "true",  # static files without collecting them
        "OMP_NUM_THREADS": "1",
        "SLUICE_LOG_LEVEL": "error",
        "SLUICE_ALLOWED_HOSTS": "testserver",
        "SLUICE_SECRET_KEY": secrets.token_hex(32),
        "DJANGO_SETTINGS_MODULE": "console.settings",
    }


@contextmanager
def _process(command: list[str], end: signal.Signals) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the body runs. The body's RuntimeError carries its output as a note."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        try:
            yield process
        except RuntimeError as error:
            said.seek(0)
            error.add_note(
                f"{' '.join(command[:5])} said: {said.read()[-2000:].decode(errors='replace')}"
            )
            raise
        finally:
            _stop(process, end)


def _stop(process: subprocess.Popen[bytes], end: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(end)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pin(pid: int, cores: set[int]) -> None:
    """Keep a process and all its threads on these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


# ---- the measuring process, with Django
# ---------------------------------------------------------------------


def main(rounds: int, deciding: set[int]) -> list[dict[str, object]]:
    """Set up an installation, measure clicks with eight deciders and pushes with two, and return
    the rows.
    """
    import django

    django.setup()
    database.be(database.Process.COMMAND)
    _install()
    clicks, click_busy = _with_deciders(
        [f"d{k:02d}" for k in range(1, DECIDERS + 1)], deciding, lambda n: _clicks(rounds, n)
    )
    pushes, push_busy = _with_deciders(["e01", "e02"], deciding, lambda n: _pushes(rounds * 5, n))
    return _rows(clicks, pushes, _conditions(deciding), click_busy, push_busy)


def _conditions(deciding: set[int]) -> str:
    """Return where this was measured, with a place for how busy the deciders' core was."""
    return (
        f"with a live model of 200 trees on one core, {{:.0%}} busy with checks of {APPS:,} apps;"
        " console, PostgreSQL (flushing commits), Valkey and the traffic on"
        f" {len(os.sched_getaffinity(0) - deciding) or 'no'} other core(s), load average"
        f" {os.getloadavg()[1]:.1f}"
    )


def _rows(
    clicks: list[float], pushes: list[float], where: str, click_busy: float, push_busy: float
) -> list[dict[str, object]]:
    return [
        _milliseconds(
            "kill switch, page click to last old decision, p99",
            _p99(clicks),
            CLICK_TARGET_MS,
            f"{len(clicks)} flips by POST to the page's own view, median"
            f" {statistics.median(clicks):.1f} ms; {DECIDERS} deciders " + where.format(click_busy),
        ),
        _milliseconds(
            "kill switch, push to applied, p99",
            _p99(pushes),
            PUSH_TARGET_MS,
            f"{len(pushes):,} applied documents, median {statistics.median(pushes):.2f} ms; 2"
            " deciders " + where.format(push_busy),
        ),
    ]


def _with_deciders(
    names: list[str], deciding: set[int], run: Callable[[int], list[float]]
) -> tuple[list[float], float]:
    """Return what `run` measures while deciders of these names are busy, and the share of their
    core that they used. `run` gets the number of deciders.
    """
    with ExitStack() as stack:
        sockets, deciders = [_socket(name) for name in names], []
        # In turn: the first fills the cache of compiled code for the rest.
        for name in names:
            deciders.append(stack.enter_context(_process(_decider(name), signal.SIGTERM)))
            _wait_for(
                partial(_ranks, name),
                START_S,
                f"decider {name} reported no live model within {START_S:.0f} s",
            )
        for decider in deciders:
            _pin(decider.pid, deciding)
        pids, before = [p.pid for p in deciders], os.sched_getaffinity(0)
        os.sched_setaffinity(0, (before - deciding) or deciding)
        stack.callback(os.sched_setaffinity, 0, before)
        traffic, at_first = _traffic(stack, pids, sockets)
        values = run(len(names))
        at_last = _busy(pids, 2.0)
        if traffic.poll() is not None:
            raise RuntimeError("the traffic process ended before the measurement did")
    return values, statistics.mean([at_first, at_last])


def _milliseconds(name: str, figure: float, target: float, said: str) -> dict[str, object]:
    return row(name, round(figure, 2), "ms", target, figure <= target, said)


def _p99(values: list[float]) -> float:
    """Return the smallest value that 99% of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-len(ordered) * 99 // 100) - 1)]


def _install() -> None:
    """Make tables, keys, the first config, a live model, and a user who may flip switches."""
    from django.conf import settings
    from django.core.management import call_command

    from control.audit.actors import SYSTEM
    from control.config import changes
    from control.deciders import keys
    from rollouts import registry

    call_command("migrate", verbosity=0)
    keys.ensure(settings.SLUICE_KEYS)
    changes.first(by=SYSTEM, reason="A measurement")
    registry.make_live(
        registry.register(_model(), by=SYSTEM, reason="A measurement"),
        by=SYSTEM,
        reason="A measurement",
    )
    make_person("sre")


def make_person(role: str, name: str = "") -> None:
    """Make a person with a role, who signs in as `name` (by default the role) at bench.example.

    Django must be set up and the database migrated.
    """
    from control.audit.actors import SYSTEM
    from control.people import accounts, grants

    name, reason = name or role, "A measurement"
    user = accounts.make(
        by=SYSTEM, email=f"{name}@bench.example", first=name, last="Bench", reason=reason
    )
    grants.give(by=SYSTEM, person=user, role=role, reason=reason)


def _model() -> bytes:
    # Imported here: LightGBM is not needed by the process that only starts this one.
    from bench import model_scoring, random_model
    from decider.contracts.artifact import Calibration

    rows = model_scoring.make_rows(20_000)
    text, even = model_scoring.train(rows).model_to_string(), Calibration(1.0, 0.0)
    return random_model.encode_artifact((text, text), (even, even), rows[:32], name="risk")


def _socket(name: str) -> Path:
    from django.conf import settings

    return Path(settings.SLUICE_VAR) / f"{name}.sock"


def _decider(name: str) -> list[str]:
    from django.conf import settings

    return [
        sys.executable,
        "-m",
        "decider",
        "--node",
        name,
        "--region",
        "local",
        "--listen",
        f"unix:{_socket(name)}",
        "--valkey",
        settings.VALKEY_URL,
        "--data",
        str(settings.SLUICE_VAR / "nodes" / name),
        "--models",
        str(settings.SLUICE_MODELS),
        "--keys",
        str(settings.SLUICE_KEYS),
        "--capacity",
        "20000",
    ]


def _wait_for(done: Callable[[], bool], limit_s: float, failed: str) -> None:
    stop = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > stop:
            raise RuntimeError(failed)
        time.sleep(0.005)


def _ranks(name: str) -> bool:
    """Return whether a decider reports a live model."""
    from control.deciders import acks
    from decider.contracts.vocabulary import MlState

    _, status = acks.heartbeats(time.time()).get(name, (0.0, None))
    return status is not None and status.ml_state == MlState.LIVE and bool(status.model)


def _all_acked(version: int, count: int) -> bool:
    from control.deciders import acks

    return sum(ack.ok for ack in acks.acks(version).values()) == count


def _clicks(rounds: int, deciders: int) -> list[float]:
    """Return milliseconds from each POST to the last decision anywhere under the old state.

    Flips engage and clear by turns.
    """
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.test import Client

    from control.deciders import acks

    # many rounds take longer than a password counts as just given
    settings.REAUTHENTICATION_S = settings.SESSION_COOKIE_AGE
    browser = Client()
    browser.force_login(
        get_user_model().objects.get(), backend="django.contrib.auth.backends.ModelBackend"
    )
    took = []
    for turn in range(rounds + 2):
        clicked = time.time()
        version = _flip(browser, "clear" if turn % 2 else "engage")
        _wait_for_acks(version, deciders)
        ends = (max(ack.last_old_decision_at, clicked) for ack in acks.acks(version).values())
        took.append((max(ends) - clicked) * 1000)
        time.sleep(GAP_S)
    # The first flips warm the page's caches and are not counted.
    return took[2:]


def _flip(browser: Client, verb: str) -> int:
    """Flip the switch by the page's own view. Return the config version of the flip."""
    from django.urls import reverse

    from control.config import changes

    answer = browser.post(
        reverse("switch-flip", args=["all_ml", verb]),
        {"reason": "A measurement", "ends": "2h", "confirm": "all ml"},
        HTTP_HX_REQUEST="true",
    )
    if answer.get("HX-Redirect") != reverse("switches"):
        raise RuntimeError(f"the page did not flip the switch: it answered {answer.status_code}")
    newest = changes.latest()
    assert newest is not None  # the flip made one
    return newest.version


def _wait_for_acks(version: int, deciders: int) -> None:
    _wait_for(
        partial(_all_acked, version, deciders), ACK_S, f"config {version} was not acked by all"
    )


def _pushes(rounds: int, deciders: int) -> list[float]:
    """Return the milliseconds from publishing a document until a decider applied it, for each
    document and each decider that got it by push.
    """
    import msgspec
    from django.conf import settings

    from control.config import changes
    from control.deciders import acks, keys, publish
    from decider.contracts import config

    base, key, took = changes.current(), keys.load_signing_key(settings.SLUICE_KEYS), []
    for version in range(base.version + 1, base.version + 1 + rounds):
        engaged = [config.Switch("all_ml")] if version % 2 else []
        document = config.sign(
            msgspec.structs.replace(base, version=version, issued_at=time.time(), switches=engaged),
            key,
        )
        began = time.time()
        publish.push(document, version)
        _wait_for_acks(version, deciders)
        # The ack of a decider that polled the document first tells nothing about pushes.
        pushed = [ack for ack in acks.acks(version).values() if ack.source == "push"]
        took += [(ack.applied_at - began) * 1000 for ack in pushed]
        time.sleep(GAP_S / 3)
    return took


# ---- traffic
# ---------------------------------------------------------------------


def _traffic(
    stack: ExitStack, pids: list[int], sockets: list[Path]
) -> tuple[subprocess.Popen[bytes], float]:
    """Start traffic at the rate that keeps the deciders' core BUSY, which is found by trying.
    Return its process and the share of their core that the deciders use.
    """
    rate = 6000.0
    for last in (False, False, False, True):
        command = [sys.executable, "-m", "bench.steady_traffic", str(rate), *map(str, sockets)]
        with ExitStack() as trial:
            process = trial.enter_context(_process(command, signal.SIGTERM))
            time.sleep(2.5)
            busy = _busy(pids, 2.0)
            if last or abs(busy - BUSY) < 0.03:
                stack.push(trial.pop_all())
                return process, busy
        rate *= min(4.0, BUSY / max(busy, 0.02))
    raise AssertionError("the last trial returns")


def _busy(pids: list[int], seconds: float) -> float:
    """Return the share of one core that the processes used together."""
    before, start = _ticks(pids), time.monotonic()
    time.sleep(seconds)
    return (_ticks(pids) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)


def _ticks(pids: list[int]) -> int:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(f[11]) + int(f[12]) for f in fields)


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), {int(core) for core in sys.argv[2].split(",")})))
