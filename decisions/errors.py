"""What can go wrong when a person adds to what is known of decisions, each with a sentence fit to
be shown.
"""

from __future__ import annotations


class DecisionsError(Exception):
    """Root of this room's errors. `str(error)` is a whole sentence."""


class Refused(DecisionsError):
    """It is not possible as asked: blank reason, no such dispute, already decided, a value that
    cannot be.
    """


class NotAllowed(DecisionsError):
    """This person may not do this."""


class Conflict(Refused):
    """A key was used before, for something else."""
