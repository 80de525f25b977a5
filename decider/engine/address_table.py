"""The engine's arrays for compiled code: one table of their addresses.

A call from Python into compiled code pays for each array argument; with thirty of them that is more
than a whole decision costs. So the arrays stay where they are, a flat int64 table holds their
addresses and shapes, and each compiled pass rebuilds its views from it. The `Arena` keeps the
arrays alive for as long as the table is used.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from decider.engine.buffers import ANSWER, REQUEST, Batch, Sample
from decider.engine.known_apps.table import KnownApps
from decider.engine.lists import Subjects
from decider.engine.memory.app_state import State
from decider.engine.memory.source_table import Sources
from decider.engine.memory.usual import Usual
from decider.engine.shared.state import PAIR, Region
from decider.engine.text_hash import Texts
from decider.policy import Rules

# Numbers per array in the table: address, rows, columns.
SLOTS = 3
# Arrays of each group, counted from the types that the views below rebuild: a field added to one of
# them moves all that stand behind it. A 1 is a single array.
_WIDTHS = (
    *(len(kind._fields) for kind in (State, Region, Subjects, Rules, Batch, Batch, Sample)),
    1,
    *(len(kind._fields) for kind in (State, Texts, Sources, KnownApps, Usual)),
    1,
)
# Place of each group's first array. Compiled code takes them as constants.
_FIRSTS = (0, *accumulate(_WIDTHS))
(
    _STATE,
    _REGION,
    _SUBJECTS,
    _RULES,
    _BATCH,
    _AHEAD,
    _SAMPLE,
    _UNKNOWN,
    _TRIAL,
    _TEXTS,
    _SOURCES,
    _KNOWN,
    _USUAL,
    _SEVERAL,
    _END,
) = _FIRSTS


class Arena:
    """The arrays of an engine and the table of their addresses."""

    def __init__(self) -> None:
        self.table = np.zeros(SLOTS * _END, np.int64)
        self._held: dict[int, tuple[np.ndarray, ...]] = {}

    def _hold(self, first: int, arrays: tuple[np.ndarray, ...]) -> None:
        for k, array in enumerate(arrays):
            # the views count in rows and columns; strides would make each access dearer
            if not array.flags.c_contiguous:
                raise ValueError(
                    f"the arena holds only contiguous arrays; number {k} of its group is not"
                )
            at = SLOTS * (first + k)
            self.table[at : at + SLOTS] = (
                array.ctypes.data,
                array.shape[0],
                array.shape[1] if array.ndim > 1 else 0,
            )
        # an array that nothing holds would be freed under the addresses
        self._held[first] = arrays

    def hold(
        self,
        *,
        state: State | None = None,
        region: Region | None = None,
        subjects: Subjects | None = None,
        rules: Rules | None = None,
        batch: Batch | None = None,
        ahead: Batch | None = None,
        sample: Sample | None = None,
        unknown: np.ndarray | None = None,
        trial: State | None = None,
        texts: Texts | None = None,
        sources: Sources | None = None,
        known: KnownApps | None = None,
        usual: Usual | None = None,
        several: np.ndarray | None = None,
    ) -> None:
        """Put groups of arrays into the table, in place of the groups that were there.

        Raises ValueError for an array that is not C-contiguous.
        """
        groups: tuple[tuple[np.ndarray, ...] | None, ...]
        groups = (
            state,
            region,
            subjects,
            rules,
            batch,
            ahead,
            sample,
            None if unknown is None else (unknown,),
            trial,
            texts,
            sources,
            known,
            usual,
            None if several is None else (several,),
        )
        for first, arrays in zip(_FIRSTS[:-1], groups, strict=True):
            if arrays is not None:
                self._hold(first, tuple(arrays))


@intrinsic
def _pointer(context: Any, address: Any) -> Any:
    """Turn an integer into a pointer that `carray` accepts."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), generate


# numba infers the types of all that follows from its callers; `inline` lets it drop the parts of a
# view that a pass does not use.
@njit(cache=True, inline="always")
def _row(t, k, dtype):  # type: ignore[no-untyped-def]
    return carray(_pointer(t[SLOTS * k]), (t[SLOTS * k + 1],), dtype)


@njit(cache=True, inline="always")
def _grid(t, k, dtype):  # type: ignore[no-untyped-def]
    return carray(_pointer(t[SLOTS * k]), (t[SLOTS * k + 1], t[SLOTS * k + 2]), dtype)


@njit(cache=True, inline="always")
def _state_at(t, k):  # type: ignore[no-untyped-def]
    return State(
        _row(t, k, np.uint64),
        _row(t, k + 1, np.int32),
        _grid(t, k + 2, np.float64),
        _grid(t, k + 3, np.int32),
        _grid(t, k + 4, np.float32),
        _grid(t, k + 5, np.uint64),
        _grid(t, k + 6, np.uint64),
        _grid(t, k + 7, np.uint16),
        _grid(t, k + 8, np.uint16),
        _grid(t, k + 9, np.uint16),
        _row(t, k + 10, np.uint64),
        _grid(t, k + 11, np.float32),
        _row(t, k + 12, np.int32),
        _row(t, k + 13, np.int64),
        _row(t, k + 14, np.int64),
        _grid(t, k + 15, np.uint32),
        _grid(t, k + 16, np.uint16),
        _grid(t, k + 17, np.float32),
    )


@njit(cache=True, inline="always")
def state_in(t):  # type: ignore[no-untyped-def]
    """Return the state of all tracked apps."""
    return _state_at(t, _STATE)


@njit(cache=True, inline="always")
def trial_in(t):  # type: ignore[no-untyped-def]
    """Return the state of a single slot, in which a request is tried again after a wait."""
    return _state_at(t, _TRIAL)


@njit(cache=True, inline="always")
def region_in(t):  # type: ignore[no-untyped-def]
    """Return the services and tenants."""
    return Region(
        _grid(t, _REGION, np.float64),
        _row(t, _REGION + 1, PAIR),
        _row(t, _REGION + 2, PAIR),
        _grid(t, _REGION + 3, np.int64),
        _row(t, _REGION + 4, np.int64),
        _grid(t, _REGION + 5, np.float64),
        _row(t, _REGION + 6, np.float64),
        _row(t, _REGION + 7, np.float64),
        _row(t, _REGION + 8, np.int64),
    )


@njit(cache=True, inline="always")
def subjects_in(t):  # type: ignore[no-untyped-def]
    """Return the lists and overrides."""
    return Subjects(
        _row(t, _SUBJECTS, np.int64),
        _row(t, _SUBJECTS + 1, np.int64),
        _grid(t, _SUBJECTS + 2, np.float64),
    )


@njit(cache=True, inline="always")
def rules_in(t):  # type: ignore[no-untyped-def]
    """Return the numbers of the config document that the policy reads."""
    return Rules(_grid(t, _RULES, np.float64), _grid(t, _RULES + 1, np.float64))


@njit(cache=True, inline="always")
def _batch_at(t, k):  # type: ignore[no-untyped-def]
    return Batch(
        _row(t, k, REQUEST),
        _row(t, k + 1, ANSWER),
        _grid(t, k + 2, np.float32),
        _grid(t, k + 3, np.float64),
        _grid(t, k + 4, np.float64),
        _row(t, k + 5, np.int64),
        _row(t, k + 6, np.float64),
        _row(t, k + 7, np.uint64),
        _row(t, k + 8, np.int64),
    )


@njit(cache=True, inline="always")
def batch_in(t):  # type: ignore[no-untyped-def]
    """Return the batch being decided."""
    return _batch_at(t, _BATCH)


@njit(cache=True, inline="always")
def ahead_in(t):  # type: ignore[no-untyped-def]
    """Return the batch that holds refused requests as they would look after a wait."""
    return _batch_at(t, _AHEAD)


@njit(cache=True, inline="always")
def sample_in(t):  # type: ignore[no-untyped-def]
    """Return the state of the sampling, which decides which decisions are kept."""
    return Sample(
        _row(t, _SAMPLE, np.float64),
        _row(t, _SAMPLE + 1, np.float64),
        _row(t, _SAMPLE + 2, np.int64),
    )


@njit(cache=True, inline="always")
def unknown_in(t):  # type: ignore[no-untyped-def]
    """Return the profile of an unknown app."""
    return _row(t, _UNKNOWN, np.float32)


@njit(cache=True, inline="always")
def several_in(t):  # type: ignore[no-untyped-def]
    """Return the table of endpoints that load several services."""
    return _grid(t, _SEVERAL, np.float64)


@njit(cache=True, inline="always")
def texts_in(t):  # type: ignore[no-untyped-def]
    """Return the texts still to be hashed, and the key."""
    return Texts(_row(t, _TEXTS, np.uint8), _row(t, _TEXTS + 1, np.uint64))


@njit(cache=True, inline="always")
def sources_in(t):  # type: ignore[no-untyped-def]
    """Return the table of addresses."""
    return Sources(
        _row(t, _SOURCES, np.uint64),
        _row(t, _SOURCES + 1, np.int32),
        _grid(t, _SOURCES + 2, np.uint64),
        _grid(t, _SOURCES + 3, np.float32),
        _grid(t, _SOURCES + 4, np.float64),
    )


@njit(cache=True, inline="always")
def known_in(t):  # type: ignore[no-untyped-def]
    """Return the table of known apps."""
    return KnownApps(
        _row(t, _KNOWN, np.uint64),
        _row(t, _KNOWN + 1, np.int64),
        _row(t, _KNOWN + 2, np.uint8),
        _row(t, _KNOWN + 3, np.uint64),
        _row(t, _KNOWN + 4, np.int64),
        _row(t, _KNOWN + 5, np.uint8),
    )


@njit(cache=True, inline="always")
def usual_in(t):  # type: ignore[no-untyped-def]
    """Return what endpoints usually answer, and how fast apps usually send."""
    return Usual(
        _row(t, _USUAL, np.uint64),
        _grid(t, _USUAL + 1, np.float32),
        _grid(t, _USUAL + 2, np.float32),
    )
