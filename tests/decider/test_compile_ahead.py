"""What is compiled ahead is what the engine then calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from decider import compile_ahead
from learning.traffic import simulate
from learning.traffic.simulate import Scenario
from learning.training import runs

ROOT = Path(compile_ahead.__file__).parents[1]


def test_the_engine_calls_no_function_otherwise_than_it_was_compiled_ahead() -> None:
    """Another signature would be compiled anew, and what was compiled ahead be for nothing."""
    simulate.Simulation(Scenario(1, runs.MONDAY, seconds=2.0, apps=50, rate=20.0)).run()
    listed = [pair for part in (*compile_ahead._parts(), compile_ahead._callers()) for pair in part]
    called = 0
    for function, signature in listed:
        assert set(function.signatures) <= {signature}, function
        called += len(function.signatures)
    # what `begin` calls comes with it from the cache, and no forecast or review is due so soon
    assert called >= 3


def test_a_part_that_is_done_ends_well_while_its_parent_waits() -> None:
    command = [sys.executable, "-m", "decider.compile_ahead", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as part:
        # a minute where nothing is compiled yet
        assert part.wait(240) == 0


def test_a_part_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Killed with -9, that one has no time to stop anything."""
    part = subprocess.Popen(
        [sys.executable, "-m", "decider.compile_ahead", "0"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        # an empty folder, so that it has a minute's work before it
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
    )
    assert part.stdin is not None
    part.stdin.close()
    assert part.wait(60) != 0
