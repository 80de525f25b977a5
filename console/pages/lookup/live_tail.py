"""The live tail: what was decided since the newest row that someone sees.

It follows decision ids, so rows come in the order of their decisions, each once. A decision that is
stored later than `BEHIND_S` after it was made is skipped: a batch that a node or ingest held back
in an outage is in the list and its counts, not in the tail.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from console.pages.lookup import page as lookup_page
from console.pages.lookup.page import DecisionRow
from decisions.search import lookup
from decisions.search.filters import Filters
from decisions.search.lookup import QueryReading

# Rows of a tail; older ones fall off its end. Chosen: nobody reads more between two polls.
MOST = 200
# How far a tail is behind: while all goes well every node's batch is stored within it. Waiting
# longer would miss less and show later; a tail is for watching, and the list is for finding.
BEHIND_S = 3.0


@dataclass(frozen=True, slots=True)
class News:
    """What there is to add."""

    rows: tuple[DecisionRow, ...]
    """Newest first; empty while it is held."""
    waiting: int
    """Held back rows, up to MOST."""
    newest: uuid.UUID
    """To go on from."""
    at: float


def newer_decisions(
    reading: QueryReading, filters: Filters, after: uuid.UUID, now: float, *, hold: bool
) -> News:
    """Return the decisions after `after`, newest first. With `hold` they are only counted."""
    if reading.kind not in lookup_page.COUNTED:
        return News((), 0, after, now)
    found = lookup.rows(reading, filters, now).filter(
        id__gt=after, id__lt=lookup.id_at(now - BEHIND_S)
    )
    if hold:
        return News((), found[:MOST].count(), after, now)
    rows = lookup_page.rows_of(list(found.defer("features")[:MOST]))
    return News(tuple(rows), 0, rows[0].decision.id if rows else after, now)


def tail_address(
    text: str, filters: Filters, insist: str, newest: uuid.UUID | None, now: float
) -> str:
    """Return where a tail that has seen `newest` (None: nothing) asks next."""
    page = lookup_page.lookup_address(text, filters, insist=insist, page="ui-lookup-tail")
    return f"{page}&after={newest or lookup.id_at(now - BEHIND_S)}"
