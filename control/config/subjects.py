"""Subjects of lists and overrides, as they are stored: checked and spelled alike when a change
brings them in.

Deciders read what is already in a document as well as they can, so that one bad subject of long
ago never costs them a kill switch. New subjects are refused here instead.
"""

from __future__ import annotations

import re

from msgspec import structs

from control.errors import Refused
from decider.contracts.config import Config, ListEntry, Override
from decider.contracts.normalise.addresses import AddressError, listed

_NAME = re.compile(r"[!-~]{1,128}").fullmatch


def checked(new: Config, old: Config) -> Config:
    """Return `new` with the entries that `old` does not have in the form that is stored. Raise
    Refused, which names the entry, for one that names nobody.
    """
    known = {*old.lists, *old.overrides}
    for override in new.overrides:
        if override not in known:
            _check_name(override, f"override {override.id}")
    lists = [entry if entry in known else _checked(entry) for entry in new.lists]
    return structs.replace(new, lists=lists)


def _checked(entry: ListEntry) -> ListEntry:
    what = f"the {entry.kind} entry of the {entry.verdict} list"
    if entry.kind != "source":
        _check_name(entry, what)
        return entry
    try:
        subject = listed(entry.subject)
    except AddressError as error:
        raise Refused(f"The subject of {what} cannot be used: {error}.") from error
    return structs.replace(entry, subject=subject, network="/" in subject)


def _check_name(rule: ListEntry | Override, what: str) -> None:
    if _NAME(rule.subject) is None:
        raise Refused(
            f"The subject of {what} cannot be used: {rule.subject!r} is no id of 1 to 128 visible"
            " ASCII characters."
        )
