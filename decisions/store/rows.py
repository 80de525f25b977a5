"""Events become rows: copied into their tables and counted, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection, transaction

from decider.contracts.event import REPLAY_NODE, Event
from decisions.counts import append
from decisions.store import copy_format, faults, partitions


def copy_events(
    rows: Sequence[Event], texts: copy_format.Texts, counts: append.Counts | None = None
) -> None:
    """Copy events into their partitions and count them, within the caller's transaction. Those of
    a replay go into a table of their own and are not counted.

    A caller that passes `counts` calls its `settle` after the commit. Raise PoisonError or an error
    of the database.
    """
    live = [e for e in rows if e.node != REPLAY_NODE]
    _copy(partitions.DECISIONS, live, texts)
    _copy(partitions.REPLAYED, [e for e in rows if e.node == REPLAY_NODE], texts)
    (counts or append.Counts()).add(live)


def copy_sparing(
    rows: Sequence[Event], texts: copy_format.Texts, counts: append.Counts
) -> list[tuple[Event, Exception]]:
    """Do as `copy_events`, but leave out the events that cannot be stored. Return them, each with
    its error.

    Halves what fails until single events are left, each try in a savepoint: b bad events of n cost
    about 2 b log2(n) tries. Raise what is not the data's fault.
    """
    if not rows:
        return []
    try:
        with transaction.atomic():
            copy_events(rows, texts, counts)
    except faults.STORING as error:
        # what was learned in the savepoint was rolled back with it
        counts.forget()
        if not faults.is_of_data(error):
            raise
        if len(rows) == 1:
            return [(rows[0], error)]
        middle = len(rows) // 2
        first = copy_sparing(rows[:middle], texts, counts)
        return first + copy_sparing(rows[middle:], texts, counts)
    return []


def _copy(parted: partitions.Parted, rows: Sequence[Event], texts: copy_format.Texts) -> None:
    """Copy events into one table. Raise PoisonError or an error of the database."""
    if not rows:
        return
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(copy_format.copy_into(parted.table)) as copy,
    ):
        for block in copy_format.blocks(rows, texts):
            copy.write(block)
