"""Ids for the decisions of a batch, made as `contracts.ids.IdSource` makes single ones."""

from __future__ import annotations

import numpy as np
from numba import njit

from decider.engine.buffers import NEXT_ID, TAILS_LEFT, Batch


@njit(cache=True, inline="always")
def _swapped(word: np.uint64) -> np.uint64:
    """Return the same 8 bytes in the other order: ids are big-endian (RFC 9562)."""
    found = np.uint64(0)
    for k in range(8):
        found |= ((word >> np.uint64(8 * k)) & np.uint64(0xFF)) << np.uint64(56 - 8 * k)
    return found


@njit(cache=True)
def identify(batch: Batch, count: int, wall: float) -> None:
    """Give each decision its id, made as `ids.IdSource` makes them at `wall`, unix seconds.

    It uses up one of `batch.tails` for each. When the wall clock steps back, ids go on from the
    last.
    """
    serial = batch.serial
    step = max(np.int64(wall * 1000.0) << 12, serial[NEXT_ID])
    serial[NEXT_ID] = step + count
    for i in range(count):
        serial[TAILS_LEFT] -= 1
        batch.answer[i]["id_high"] = _swapped(
            np.uint64((step >> 12 << 16) | 0x7000 | (step & 0xFFF))
        )
        batch.answer[i]["id_low"] = batch.tails[serial[TAILS_LEFT]]
        step += 1
