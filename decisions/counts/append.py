"""Counts kept ready for pages: the decisions of each minute by everything that pages filter by, and
by app, tier and action.

Ingest appends a batch's sums in the transaction that stores its rows, so a decision is counted
exactly when it is stored. Appending needs no lock on rows that other workers write too. `rollup`
adds rows up in blocks of several lengths, and finds the blocks that cover a time.

Each combination that is counted has a number (`Keys`), so a row is small and grouping compares
integers.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from django.db import connection

from decider.contracts.event import Event
from decisions.counts import seen_tokens

# Seconds. The finest grain of the counts: the shortest bucket that a histogram draws.
MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Family:
    """One way of counting: its table, and the event's fields that make a key."""

    table: str
    fields: tuple[str, ...]

    @property
    def keys(self) -> str:
        """Name of the table that holds its keys."""
        return f"{self.table}key"


FACETS = Family(
    "decisions_facet", ("action", "stage", "tier", "service", "method", "endpoint", "reason", "arm")
)
APPS = Family("decisions_appcount", ("app", "tier", "action"))
FAMILIES = (FACETS, APPS)


Key = tuple[int | str, ...]


class Keys(dict[Key, int]):
    """The numbers of one family's keys that are known to be committed. Each worker has its own:
    another process may know others.
    """

    # Chosen: far more combinations than an installation has; this bounds a worker's memory when
    # somebody sends requests to invented endpoints.
    LIMIT = 200_000

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = family

    def learn(self, wanted: Iterable[Key]) -> dict[Key, int]:
        """Return the numbers of keys that are not known yet. Create missing ones within the
        caller's transaction.

        Works in sorted order, so that two workers that create the same keys wait for each other in
        turn and cannot deadlock. Remembers nothing: the transaction may fail (see `Counts.settle`).
        """
        missing = sorted(set(wanted) - self.keys())
        if not missing:
            return {}
        columns = ", ".join(self.family.fields)
        places = ", ".join(["(" + ", ".join(["%s"] * len(self.family.fields)) + ")"] * len(missing))
        values = [value for key in missing for value in key]
        with connection.cursor() as cursor:
            cursor.execute(
                # two statements: RETURNING gives nothing for a key that another worker created
                f"INSERT INTO {self.family.keys} ({columns}) VALUES {places} ON CONFLICT DO"  # noqa: S608
                " NOTHING",
                values,
            )
            cursor.execute(
                f"SELECT {columns}, id FROM {self.family.keys} WHERE ({columns}) IN ({places})",  # noqa: S608
                values,
            )
            return {row[:-1]: row[-1] for row in cursor.fetchall()}


# A row of binary COPY (`decisions.store.copy_format`): the number of fields; then minute, span,
# key, kept, weight and square, each behind its length.
_ROW = struct.Struct(">hiiihiiiiidid")
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
# Keys of one INSERT: PostgreSQL takes 65,535 parameters, and a key has up to eight.
_MOST_KEYS = 2_000


@dataclass(slots=True)
class Counts:
    """What one worker knows: the numbers of keys, stored tokens, and the keys learned in the open
    transaction.
    """

    keys: dict[str, Keys] = field(default_factory=lambda: {f.table: Keys(f) for f in FAMILIES})
    tokens: seen_tokens.SeenTokens = field(default_factory=seen_tokens.SeenTokens)
    _learned: list[tuple[Keys, dict[Key, int]]] = field(default_factory=list)

    def add(self, events: Sequence[Event]) -> None:
        """Count these events within the caller's transaction. The caller calls `settle` after its
        commit.
        """
        if not events:
            return
        self.tokens.add(events)
        for family in FAMILIES:
            self._append(family, _sums(family, events))

    def settle(self) -> None:
        """Remember the keys of the transaction that was just committed."""
        self.tokens.settle()
        for keys, learned in self._learned:
            if len(keys) + len(learned) > Keys.LIMIT:
                keys.clear()
            keys.update(learned)
        self._learned = []

    def forget(self) -> None:
        """Forget the keys of a transaction or savepoint that was rolled back."""
        self.tokens.forget()
        self._learned = []

    def _append(self, family: Family, sums: dict[tuple[int, Key], list[float]]) -> None:
        """Append one family's sums; create the keys that are new."""
        known = self.keys[family.table]
        new: dict[Key, int] = {}
        wanted = sorted({key for _, key in sums} - known.keys())
        for start in range(0, len(wanted), _MOST_KEYS):
            new |= known.learn(wanted[start : start + _MOST_KEYS])
        self._learned.append((known, new))
        _copy(family, [_pack(at, known.get(key) or new[key], *n) for (at, key), n in sums.items()])


def _pack(minute: int, key: int, kept: float, weight: float, square: float) -> bytes:
    """Return one packed row of counts. Its span is 0, which marks a row that is not compacted."""
    return _ROW.pack(6, 4, minute, 2, 0, 4, key, 4, int(kept), 8, weight, 8, square)


def _copy(family: Family, rows: list[bytes]) -> None:
    """Append packed rows to a family's table."""
    columns = "minute, span, key, kept, weight, square"
    with (
        connection.wrap_database_errors,
        connection.cursor() as cursor,
        cursor.copy(f"COPY {family.table} ({columns}) FROM STDIN (FORMAT BINARY)") as out,
    ):
        out.write(b"".join([_HEADER, *rows, _TRAILER]))


_GETTERS = {f.table: attrgetter(*f.fields, "inclusion_probability") for f in FAMILIES}


def _sums(family: Family, events: Sequence[Event]) -> dict[tuple[int, Key], list[float]]:
    """Return kept rows, weight and squared weight by minute and key."""
    sums: dict[tuple[int, Key], list[float]] = {}
    for minute, some in _minutes(events):
        # count equal rows first, in C, so that few sums are left for Python
        for (*fields, p), kept in Counter(map(_GETTERS[family.table], some)).items():
            weight = kept / p
            held = sums.setdefault((minute, tuple(fields)), [0, 0.0, 0.0])
            held[0] += kept
            held[1] += weight
            held[2] += weight / p
    return sums


def _minutes(events: Sequence[Event]) -> Iterator[tuple[int, Sequence[Event]]]:
    """Yield the events minute by minute; a batch spans one or two minutes."""
    at = [e.at for e in events]
    first, last = int(min(at) // MINUTE_S), int(max(at) // MINUTE_S)
    # the usual case: no copy of the batch
    if first == last:
        yield first, events
        return
    by_minute: dict[int, list[Event]] = {}
    for event in events:
        by_minute.setdefault(int(event.at // MINUTE_S), []).append(event)
    yield from by_minute.items()
