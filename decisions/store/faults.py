"""Whose fault it is that something could not be stored: the data's, which no second try mends, or
the server's, which passes.

The classes of SQLSTATEs are PostgreSQL's (documentation, appendix A).
"""

from __future__ import annotations

from django.db import DataError, Error, IntegrityError

from decisions.store.copy_format import PoisonError

# 22: data exception. 23: integrity constraint violation. 54: program limit exceeded, such as a text
# too long for an index. All others, such as 53 (disk full) and 57 (shutdown), are the server's.
_OF_DATA = ("22", "23", "54")
# What people read. Everything else is told in PostgreSQL's own words.
_SENTENCES = {
    "23505": "A decision with this id is stored already",
    "23514": "A value is outside the range of its column",
    "22021": "A text is not valid Unicode",
    "54000": "A text is too long for an index of the database",
}
# Characters of a reason. Chosen: a line or two on the page.
MOST_REASON = 500

# What may come of storing something; anything else is a defect and ends the process.
STORING = (PoisonError, Error)


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an error, "" when PostgreSQL gave none."""
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def is_of_data(error: BaseException) -> bool:
    """Return whether the data is to blame: it would fail again, however often it is tried."""
    if isinstance(error, PoisonError):
        return True
    state = sqlstate(error)
    # psycopg refuses some data by itself, and such an error has no SQLSTATE
    return state[:2] in _OF_DATA if state else isinstance(error, DataError | IntegrityError)


def reason_of(error: BaseException) -> str:
    """Return why something could not be stored, as a clause for people."""
    own = _SENTENCES.get(sqlstate(error))
    lines = str(error).splitlines() or [type(error).__name__]
    return tidy(f"{own}: {lines[0]}" if own else lines[0])


def tidy(reason: str) -> str:
    """Return a reason as it can be stored and shown: one line, no control characters."""
    text = reason.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else " " for c in text)[:MOST_REASON]
