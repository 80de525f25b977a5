"""What can go wrong when a person changes something. Each error carries a sentence fit to be shown.
Root of the errors of `control` and `decisions`.
"""

from __future__ import annotations


class ControlError(Exception):
    """Root of these errors. `str(error)` is a whole sentence."""


class Refused(ControlError):
    """The change is not possible as asked: blank reason, past end, unknown switch, already in that
    state.
    """


class NotAllowed(ControlError):
    """This person may not do this; the sentence says who may."""


class Conflict(Refused):
    """A key was used before for something else."""


class KeysError(ControlError):
    """A key file is missing, unreadable or not a key."""


class StoreUnavailable(ControlError):
    """Valkey did not answer."""
