"""Compile the engine's code ahead, on two cores at once: `python -m decider.compile_ahead`.

One process compiles on one core, and needs more than a minute for the engine. The code has two
parts that do not need each other, so two processes compile them, and the next process that starts
loads both. A process that does not wait for this compiles what it needs by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numba.core.dispatcher import Dispatcher
    from numba.core.types import Type

_ROOT = Path(__file__).resolve().parent.parent
# Processes that compile at once. Chosen: `observe` alone takes half of the time.
_PARTS = 2
# Name of the file that is made in the folder of compiled code when all code is there. The compiled
# files do not show that: they come one by one, and the compiling process may have been stopped in
# between.
DONE = "compiled-ahead"


def is_compiled_ahead() -> bool:
    """Return whether the code of today's sources was compiled ahead."""
    return _marker().exists()


def compile_ahead() -> None:
    """Compile both parts in processes of their own, then their callers in this process.

    Raise RuntimeError when a part fails.
    """
    # Each child holds the other end of a pipe, so that no child outlives this process, however this
    # process ends.
    parts = [
        subprocess.Popen(
            [sys.executable, "-m", "decider.compile_ahead", str(part)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
        )
        for part in range(_PARTS)
    ]
    for process in parts:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()  # or the interpreter warns of it when the object goes
    if any(process.returncode for process in parts):
        raise RuntimeError("a process that compiles the engine failed; it wrote why above")
    _compile(_callers())
    _marker().touch()


def _end_with_parent() -> None:
    """End this process when its standard input is closed."""

    def watch() -> None:
        # os.read and not sys.stdin, whose lock would still be held when this process ends by itself
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _marker() -> Path:
    # `decider` set the variable when it was imported
    return Path(os.environ["NUMBA_CACHE_DIR"]) / DONE


def _compile(functions: list[tuple[Dispatcher, tuple[Type, ...]]]) -> None:
    for function, signature in functions:
        function.compile(signature)


def _parts() -> tuple[list[tuple[Dispatcher, tuple[Type, ...]]], ...]:
    """Return what each process compiles, as functions with their signatures."""
    # Imported here, because it takes seconds that a caller of `is_compiled_ahead` need not spend.
    import numpy as np
    from numba import float64, int64, typeof

    from decider.engine import buffers, kernels
    from decider.engine.known_apps import review

    table, whole = int64[::1], int64[::1]
    outcomes = typeof(np.zeros(1, buffers.OUTCOME))  # type: ignore[no-untyped-call]
    return (
        [(kernels.observe, (table, int64, float64))],
        [
            (kernels.settle, (table, int64, float64)),
            (kernels.finish, (table, int64, float64)),
            (kernels.hash_texts, (table, int64, int64)),
            (kernels.project, (table, whole, whole, int64, float64)),
            (kernels.narrow, (table, whole, whole, int64)),
            (kernels.promise, (table, whole, int64, float64)),
            (kernels.track, (table, whole, whole, int64, float64)),
            (kernels.learn, (table, outcomes, int64, float64)),
            (review.review_slots, (table, int64, int64)),
        ],
    )


def _callers() -> list[tuple[Dispatcher, tuple[Type, ...]]]:
    from numba import boolean, float64, int64

    from decider.engine import kernels

    table = int64[::1]
    begun = (table, int64, int64, float64, int64, boolean, float64, float64)
    return [(kernels.begin, begun), (kernels.conclude, (table, int64, float64))]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _end_with_parent()
        _compile(_parts()[int(sys.argv[1])])
    elif not is_compiled_ahead():
        compile_ahead()
