"""A program that kills a decider's save of known apps at every step, and starts from what it left.

It prints how many steps there are. It is a process of its own, because it forks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from decider.node import known_keeper
from tests.decider.known_store import Fleet, entries


def main(folder: Path) -> int:
    """Return how many steps a save has."""
    step = 1
    while _killed_at(step, folder / str(step)):
        step += 1
    return step - 1


def _killed_at(step: int, folder: Path) -> bool:
    """Save, and be killed at a step; then start again. Return whether there is such a step."""
    fleet = Fleet()
    keeper = fleet.keeper(folder)
    fleet.send(keeper, fleet.snapshot(1, entries(10)))
    fleet.send(keeper, fleet.changes(2, 1, entries(3, seed=7)))
    before, newest = keeper.engine.known.table, fleet.snapshot(3, entries(10, seed=8))
    if (child := os.fork()) == 0:
        _kill_at(step)
        asyncio.run(keeper.offer(newest, fleet.part))
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again = fleet.keeper(folder)
    again.start_from_disk()
    assert (again.rejected, again.version in (2, 3) if killed else again.version == 3) == (0, True)
    if again.version == 2:
        assert all((a == b).all() for a, b in zip(again.engine.known.table, before, strict=True))
    # what was left of a save is gone
    assert sorted(p.name for p in folder.iterdir()) == ["known.bin", "known_changes.bin"]
    return killed


def _kill_at(step: int) -> None:
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def with_count(*given: object) -> object:
            count()
            return call(*given)

        return with_count

    pieces = known_keeper._list_of

    def list_of(number: int, contents: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces(number, contents):
            count()
            yield piece

    known_keeper._list_of = list_of  # type: ignore[assignment]
    os.fsync = counted(os.fsync)  # type: ignore[assignment]
    Path.replace = counted(Path.replace)  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
