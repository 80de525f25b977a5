"""Duties of a process: work that is done again and again beside the decisions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("sluice.duties")

# Seconds of pause after a failure that nobody foresaw. Chosen: soon enough for what must go on, and
# a fault that stays costs little.
AFTER_FAULT_S = 0.5


class Faults:
    """Unforeseen failures of the duties of one process: each is told, none ends the process,
    because a decider that ends decides nothing, and what it read would end the next one too.
    """

    def __init__(self) -> None:
        self.count = 0
        """Failures since the start."""
        self.last = ""
        """The last one, as a clause."""

    def note(self, name: str, error: Exception) -> None:
        """Take down that a duty failed."""
        self.count += 1
        self.last = f"{name} failed: {type(error).__name__}: {error}"[:MOST_TOLD]
        # The 1st, 2nd, 4th, 8th, ... only: what fails once may fail at every step.
        if self.count & (self.count - 1) == 0:
            log.error("%s (%d failures so far)", self.last, self.count, exc_info=error)


# Characters of a failure that are told. Chosen: the heartbeat carries them.
MOST_TOLD = 300


async def keep_doing(step: Callable[[], Awaitable[None]], pause_s: float, faults: Faults) -> None:
    """Do a step, then wait `pause_s` seconds, for ever. A step that fails is tried again."""
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - whatever it is, decisions must go on
            faults.note(getattr(step, "__name__", "a duty").strip("_"), error)
            await asyncio.sleep(AFTER_FAULT_S)
        await asyncio.sleep(pause_s)
