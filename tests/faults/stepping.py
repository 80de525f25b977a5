"""Runs a decider whose wall clock a test can step: `python -m tests.faults.stepping` with the
arguments of a decider. SLUICE_TEST_STEP names a file with the seconds by which its clock is wrong.
The machine's clock stays as it is.
"""

from __future__ import annotations

import os
import runpy
import threading
import time
from pathlib import Path

# Variable that names the file.
FILE = "SLUICE_TEST_STEP"
# Seconds between two looks at the file. Chosen: a test waits for seconds.
LOOK_S = 0.05

_true_time, _wrong_by = time.time, 0.0


def _follow(path: Path) -> None:
    global _wrong_by
    while True:
        if path.exists():
            _wrong_by = float(path.read_text() or 0)
        time.sleep(LOOK_S)


def main() -> None:
    time.time = lambda: _true_time() + _wrong_by
    threading.Thread(target=_follow, args=(Path(os.environ[FILE]),), daemon=True).start()
    runpy.run_module("decider", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
