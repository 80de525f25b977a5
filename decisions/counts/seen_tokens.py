"""Which app used which credential on which day, by the credential's keyed digest.

A decision is found by its token through this table, without an index over every stored row: digest
to apps here, then the apps' rows. A row is written once per digest, app and day, in the transaction
that stores the decision.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter

from django.db import connection

from decider.contracts.event import Event

TABLE = "decisions_tokenday"
_USED = attrgetter("token_digest", "app")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_EPOCH = date(1970, 1, 1)
# Rows of one INSERT: PostgreSQL takes 65,535 parameters, and a row has three.
_MOST_ROWS = 5_000
# Digest, app, day since 1970.
Used = tuple[str, str, int]


@dataclass(slots=True)
class SeenTokens:
    """The rows that one worker knows to be stored."""

    # Chosen: a day's digests of a large installation in some tens of megabytes. After a clearing,
    # known rows are inserted again, which changes nothing.
    LIMIT = 200_000
    known: set[Used] = field(default_factory=set)
    _new: set[Used] = field(default_factory=set)

    def add(self, events: Sequence[Event]) -> None:
        """Store what is new within the caller's transaction. The caller calls `settle` after its
        commit.
        """
        first, last = min(e.at for e in events) // 86_400, max(e.at for e in events) // 86_400
        if first == last:
            # a batch of one day, the usual case: equal pairs fall together in C
            used = {(digest, app, int(first)) for digest, app in set(map(_USED, events))}
        else:
            used = {(e.token_digest, e.app, int(e.at // 86_400)) for e in events}
        self._new = {u for u in used - self.known if _DIGEST.fullmatch(u[0])}
        rows = [
            (uuid.UUID(hex=d), app, _EPOCH + timedelta(days=day))
            # sorted, so that two workers insert shared rows in one order and cannot deadlock
            for d, app, day in sorted(self._new)
        ]
        with connection.cursor() as cursor:
            for start in range(0, len(rows), _MOST_ROWS):
                some = rows[start : start + _MOST_ROWS]
                places = ", ".join(["(%s, %s, %s)"] * len(some))
                sql = (
                    f"INSERT INTO {TABLE} (digest, app, day) VALUES {places} ON CONFLICT DO NOTHING"  # noqa: S608
                )
                cursor.execute(sql, [value for row in some for value in row])

    def settle(self) -> None:
        """Remember the rows of the transaction that was just committed."""
        if len(self.known) + len(self._new) > self.LIMIT:
            self.known.clear()
        self.known |= self._new
        self._new = set()

    def forget(self) -> None:
        """Forget the rows of a transaction or savepoint that was rolled back."""
        self._new = set()


def is_digest(text: str) -> bool:
    """Return whether a text has the form of a digest (`decider.contracts.ids.token_digest`)."""
    return _DIGEST.fullmatch(text) is not None


def apps(digest: str, most: int = 1_000) -> tuple[str, ...]:
    """Return at most `most` apps that used a credential, the latest first; an empty tuple when the
    text is not a digest or was never seen.
    """
    if not is_digest(digest):
        return ()
    with connection.cursor() as cursor:
        sql = (
            f"SELECT app FROM {TABLE} WHERE digest = %s GROUP BY app "  # noqa: S608
            "ORDER BY max(day) DESC, app LIMIT %s"
        )
        cursor.execute(sql, [uuid.UUID(hex=digest), most])
        return tuple(app for (app,) in cursor.fetchall())


def drop(keep_days: int, now: float) -> int:
    """Delete the rows of days whose decisions are no longer stored. Return how many rows were
    deleted.
    """
    with connection.cursor() as cursor:
        first = datetime.fromtimestamp(now, UTC).date() - timedelta(days=keep_days)
        cursor.execute(f"DELETE FROM {TABLE} WHERE day < %s", [first])  # noqa: S608
        dropped: int = cursor.rowcount
        return dropped
