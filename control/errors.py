"""The errors of `control` and `decisions`, raised when a person's change cannot be made. Each
carries a sentence that can be shown to that person.
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
    """Someone else was there before: a key was used for something else, the config changed at the
    same moment, the same change is asked for already.
    """


class KeysError(ControlError):
    """A key file is missing, unreadable or not a key."""


class StoreUnavailable(ControlError):
    """Valkey did not answer."""
