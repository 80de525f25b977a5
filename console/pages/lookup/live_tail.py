"""The live tail: the decisions since the newest row on the page.

The tail follows decision ids, so it shows each decision once, in the order of their times. It skips
a decision that is stored more than `BEHIND_S` after it was made. A batch that was held back in an
outage therefore appears in the list and its counts, but not in the tail.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from console.pages.lookup import page as lookup_page
from console.pages.lookup.page import DecisionRow
from decisions.search import lookup
from decisions.search.filters import Filters
from decisions.search.lookup import QueryReading

# Most rows of one poll; older ones are left out. Chosen: nobody reads more between two polls.
MOST = 200
# Seconds that the tail stays behind the present: normally every node's batch is stored by then.
# Chosen: a longer wait would skip fewer decisions but show all of them later, and a tail is for
# watching.
BEHIND_S = 3.0


@dataclass(frozen=True, slots=True)
class News:
    """The rows that one poll adds to the page."""

    rows: tuple[DecisionRow, ...]
    """Newest first; empty if the page asked to hold them back."""
    waiting: int
    """How many rows are held back, at most MOST."""
    newest: uuid.UUID
    """Id of the decision after which the next poll continues."""
    at: float
    """Unix seconds of the poll."""


def newer_decisions(
    reading: QueryReading, filters: Filters, after: uuid.UUID, now: float, *, hold: bool
) -> News:
    """Return the decisions after the id `after`. With `hold`, only count them.

    For a search that selects single decisions the result is empty.
    """
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
    """Return the address that a tail polls next; `newest` is the newest decision it has shown."""
    page = lookup_page.lookup_address(text, filters, insist=insist, page="ui-lookup-tail")
    return f"{page}&after={newest or lookup.id_at(now - BEHIND_S)}"
