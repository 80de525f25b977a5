"""Programs are kept running, their troubles are said, and none is left behind however the run
ends.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from console.local import launch
from console.local import supervisor as supervising
from console.local.supervisor import Program, SuperviseError, Supervisor

pytestmark = pytest.mark.parts
ROOT = Path(__file__).parents[2]
SLEEPER = launch.tied_command([sys.executable, "-c", "import time; time.sleep(600)"])
FAILING = launch.tied_command([sys.executable, "-c", "raise SystemExit('cannot')"])


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    give_up = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def info(supervisor: Supervisor, name: str) -> dict[str, Any]:
    with supervisor.asking() as they:
        return dict(they.getProcessInfo(name))


def pid_of(supervisor: Supervisor, name: str) -> int:
    return int(info(supervisor, name)["pid"])


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    it = Supervisor(tmp_path, [Program("sleeper", SLEEPER, 1), Program("failing", FAILING, 2)])
    it.start()
    yield it
    it.stop()


def test_only_this_user_may_read_logs_and_sockets(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.run("sleeper")
    until(supervisor.log_path("sleeper").exists)
    modes = {
        path.relative_to(tmp_path).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for folder in ("log", "run")
        for path in (tmp_path / folder, *(tmp_path / folder).iterdir())
    }
    assert "log/supervisord.log" in modes
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}


@pytest.mark.parametrize(
    ("program", "alive"), [("raise SystemExit", False), ("import time; time.sleep(600)", True)]
)
def test_a_supervisor_that_does_not_answer_is_said_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, alive: bool
) -> None:
    """Whether it ended at once or goes on without a word."""
    monkeypatch.setattr(supervising, "START_WITHIN_S", 1.0)
    dumb = Supervisor(tmp_path, [])
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        if not alive:
            until(lambda: process.poll() is not None)
        with pytest.raises(SuperviseError, match=r"did not start; see .*supervisord\.log"):
            dumb._wait_for(process)
        process.kill()


def test_a_program_that_takes_a_while_to_end_is_waited_for(tmp_path: Path) -> None:
    """What comes next in the order, such as a database, must not end before it."""
    code = "import signal, time; ends = lambda *_: (time.sleep(1.5), exit());"
    code += " signal.signal(signal.SIGTERM, ends); time.sleep(600)"
    slow = Program("slow", launch.tied_command([sys.executable, "-c", code]), 1)
    it = Supervisor(tmp_path, [slow])
    it.start()
    try:
        it.run("slow")
        until(lambda: info(it, "slow")["statename"] == "RUNNING")
        it._stop_together([slow])
        assert info(it, "slow")["statename"] in {"STOPPED", "EXITED"}
    finally:
        it.stop()


def test_a_killed_program_is_started_again_and_that_is_said_with_its_log(
    supervisor: Supervisor,
) -> None:
    supervisor.run("sleeper")
    until(lambda: info(supervisor, "sleeper")["statename"] == "RUNNING")
    assert list(supervisor.troubles()) == []
    first = pid_of(supervisor, "sleeper")
    time.sleep(1.1)  # supervisor tells starts apart by whole seconds
    os.kill(first, signal.SIGKILL)
    said: list[str] = []
    until(lambda: bool(said.extend(trouble.sentence for trouble in supervisor.troubles()) or said))
    assert "sleeper" in said[0]
    assert str(supervisor.log_path("sleeper")) in said[0]
    until(lambda: pid_of(supervisor, "sleeper") not in {0, first})


def test_a_program_that_ends_at_once_is_said_once_and_tried_again(supervisor: Supervisor) -> None:
    supervisor.run("failing")
    said: list[str] = []
    until(lambda: bool(said.extend(trouble.sentence for trouble in supervisor.troubles()) or said))
    assert said == [
        "failing ended right after its start and is tried again; see"
        f" {supervisor.log_path('failing')}."
    ]
    assert list(supervisor.troubles()) == []
    until(lambda: "cannot" in supervisor.log_path("failing").read_text())


def test_stopping_leaves_no_process(supervisor: Supervisor) -> None:
    supervisor.run("sleeper")
    pid = pid_of(supervisor, "sleeper")
    assert psutil.pid_exists(pid)
    supervisor.stop()
    assert not psutil.pid_exists(pid)
    assert not supervisor.answers()


ALONE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from console.local import launch
from console.local import supervisor as supervising
from console.local.supervisor import Program, SuperviseError, Supervisor
sleep = launch.tied_command([sys.executable, "-c", "import time; time.sleep(600)"])
it = Supervisor(Path({var!r}), [Program("sleeper", sleep, 1)])
it.start()
it.run("sleeper")
with it.asking() as they:
    print(they.getPID(), they.getProcessInfo("sleeper")["pid"], flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["run", "supervisor"])
def test_no_program_outlives_a_killed_run_or_a_killed_supervisor(
    tmp_path: Path, victim: str
) -> None:
    script = ALONE.format(root=str(ROOT), var=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            supervisor, program = (int(pid) for pid in run.stdout.readline().split())
            os.kill(run.pid if victim == "run" else supervisor, signal.SIGKILL)
            until(lambda: not psutil.pid_exists(program))
        finally:
            run.kill()
    until(
        lambda: (
            not psutil.pid_exists(supervisor)
            or psutil.Process(supervisor).status() == psutil.STATUS_ZOMBIE
        )
    )
