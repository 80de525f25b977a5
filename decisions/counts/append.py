"""Counts that are kept ready: decisions of a minute by everything that is filtered by, and by app
and action.

Ingest appends a batch's sums in the transaction that stores its rows, so a decision is counted
exactly when it is stored. Appending needs no lock on rows that other workers write too; `levels`
adds up what belongs together, in blocks of several lengths, and knows which blocks answer for a
time.

What is counted has a number (`Keys`), so a row is small and grouping compares integers.
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

MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Family:
    """One way of counting: its table, and the event's fields that make a key."""

    table: str
    fields: tuple[str, ...]

    @property
    def keys(self) -> str:
        """The table of its keys."""
        return f"{self.table}key"


FACETS = Family(
    "decisions_facet", ("action", "stage", "tier", "service", "method", "endpoint", "reason", "arm")
)
APPS = Family("decisions_appcount", ("app", "tier", "action"))
FAMILIES = (FACETS, APPS)


Key = tuple[int | str, ...]


class Keys(dict[Key, int]):
    """Numbers of one family's keys that are known to be committed. A worker's own: another process
    may know others.
    """

    LIMIT = 200_000

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = family

    def learn(self, wanted: Iterable[Key]) -> dict[Key, int]:
        """Numbers of keys that are not known yet, made where there is none, within the caller's
        transaction.

        In sorted order, so that two workers that make the same ones wait for each other in turn.
        They are not remembered here: the transaction may fail (see `Counts.settle`).
        """
        missing = sorted(set(wanted) - self.keys())
        if not missing:
            return {}
        columns = ", ".join(self.family.fields)
        places = ", ".join(["(" + ", ".join(["%s"] * len(self.family.fields)) + ")"] * len(missing))
        values = [value for key in missing for value in key]
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {self.family.keys} ({columns}) VALUES {places} ON CONFLICT DO"  # noqa: S608
                " NOTHING",
                values,
            )
            cursor.execute(
                f"SELECT {columns}, id FROM {self.family.keys} WHERE ({columns}) IN ({places})",  # noqa: S608
                values,
            )
            return {row[:-1]: row[-1] for row in cursor.fetchall()}


_ROW = struct.Struct(
    ">hiiihiiiiidid"
)  # fields; minute, span, key, kept, weight, square, each behind its length
_HEADER, _TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
# Keys of one INSERT: PostgreSQL takes 65,535 parameters.
_MOST_KEYS = 2_000


@dataclass(slots=True)
class Counts:
    """What one worker knows of the keys, and what it learnt in the open transaction."""

    keys: dict[str, Keys] = field(default_factory=lambda: {f.table: Keys(f) for f in FAMILIES})
    tokens: seen_tokens.Seen = field(default_factory=seen_tokens.Seen)
    _learnt: list[tuple[Keys, dict[Key, int]]] = field(default_factory=list)

    def add(self, events: Sequence[Event]) -> None:
        """Counts these events, within the caller's transaction; `settle` belongs after its
        commit.
        """
        self._learnt = []
        if not events:
            return
        self.tokens.add(events)
        for family in FAMILIES:
            self._append(family, _sums(family, events))

    def settle(self) -> None:
        """Remembers the keys of the transaction that was just committed."""
        self.tokens.settle()
        for keys, learnt in self._learnt:
            if len(keys) + len(learnt) > Keys.LIMIT:
                keys.clear()
            keys.update(learnt)
        self._learnt = []

    def _append(self, family: Family, sums: dict[tuple[int, Key], list[float]]) -> None:
        known, new = self.keys[family.table], {}
        wanted = sorted({key for _, key in sums} - known.keys())
        for start in range(0, len(wanted), _MOST_KEYS):
            new |= known.learn(wanted[start : start + _MOST_KEYS])
        self._learnt.append((known, new))
        rows = [
            _ROW.pack(
                6,
                4,
                minute,
                2,
                0,
                4,
                known.get(key) or new[key],
                4,
                int(kept),
                8,
                weight,
                8,
                square,
            )
            for (minute, key), (kept, weight, square) in sums.items()
        ]
        copy = (
            f"COPY {family.table} (minute, span, key, kept, weight, square) FROM STDIN (FORMAT"
            " BINARY)"
        )
        with (
            connection.wrap_database_errors,
            connection.cursor() as cursor,
            cursor.copy(copy) as out,
        ):
            out.write(b"".join([_HEADER, *rows, _TRAILER]))


_GETTERS = {f.table: attrgetter(*f.fields, "inclusion_probability") for f in FAMILIES}


def _sums(family: Family, events: Sequence[Event]) -> dict[tuple[int, Key], list[float]]:
    """Kept, weight and squared weight by minute and key. Equal rows are counted first, in C; few
    sums are left to make.
    """
    sums: dict[tuple[int, Key], list[float]] = {}
    for minute, some in _minutes(events):
        for (*fields, p), kept in Counter(map(_GETTERS[family.table], some)).items():
            weight = kept / p
            held = sums.setdefault((minute, tuple(fields)), [0, 0.0, 0.0])
            held[0] += kept
            held[1] += weight
            held[2] += weight / p
    return sums


def _minutes(events: Sequence[Event]) -> Iterator[tuple[int, Sequence[Event]]]:
    """The events minute by minute; a batch spans one or two of them."""
    at = [e.at for e in events]
    first, last = int(min(at) // MINUTE_S), int(max(at) // MINUTE_S)
    if first == last:
        yield first, events
        return
    by_minute: dict[int, list[Event]] = {}
    for event in events:
        by_minute.setdefault(int(event.at // MINUTE_S), []).append(event)
    yield from by_minute.items()
